use super::*;
use crate::program::build::{self, *};
use crate::program::{ProgramError, Start};

/// What a program of this one record is told.
fn refused(record: Rec) -> String {
    let ProgramError(message) = try_program(&[(Start::First, &[record])]).unwrap_err();
    message.strip_prefix("tasks[0]: record 0: ").expect("where it is wrong").to_owned()
}

fn is_accepted(record: Rec) -> bool {
    try_program(&[(Start::First, &[record])]).is_ok()
}

#[test]
fn operations_that_are_unknown_are_refused() {
    for op in [0, 42, u16::MAX] {
        assert!(refused(rec(op)).starts_with(&format!("field 'op': value {op} (allowed:")));
    }
}

#[test]
fn what_a_record_points_to_must_exist() {
    assert_eq!(refused(read(8, 0)), "field 'base': value 8 (allowed: -1, or the number of an id)");
    assert!(refused(read(-2, 0)).starts_with("field 'base': value -2"));
    assert!(refused(mmap(1, 8)).starts_with("field 'base2': value 8"));
    assert!(refused(mmap(1, -2)).starts_with("field 'base2': value -2"));
    assert!(refused(Rec { aux: 2, ..mmap(1, 0) }).starts_with("field 'aux': value 2"));
    assert!(refused(aux(WAIT, 1)).starts_with("field 'aux': value 1"));
    assert!(refused(aux(BARRIER, 8)).starts_with("field 'aux': value 8"));
    // Text 2 is no sysctl, and there is no text 3.
    assert!(refused(aux(SYSCTL, 2)).starts_with("field 'aux': value 2"));
    assert!(refused(aux(SYSCTL, 3)).starts_with("field 'aux': value 3"));
    assert!(is_accepted(Rec { aux: 1, ..mmap(1, 7) }));
    let remap = |base2, aux| Rec { flags: GIVEN | 3, base2, aux, ..range(MREMAP, 0, 0, 1) };
    assert!(refused(remap(8, 0)).starts_with("field 'base2': value 8"));
    assert!(refused(remap(0, 9)).starts_with("field 'aux': value 9"));
    assert!(refused(Rec { flags: 8, ..remap(-1, 0) }).starts_with("field 'flags': value 0x8"));
    assert!(is_accepted(remap(7, 8)));
}

#[test]
fn values_outside_their_range_are_refused() {
    assert!(refused(Rec { prot: 8, ..mmap(1, 0) }).starts_with("field 'prot': value 8"));
    assert!(refused(Rec { mode: 2, ..read(0, 0) }).starts_with("field 'mode': value 2"));
    assert!(refused(Rec { access: 3, ..touch(0, 1) }).starts_with("field 'access': value 3"));
    assert!(refused(Rec { flags: 3, ..touch(0, 1) }).starts_with("field 'flags': value 3"));
    assert!(refused(touch(0, 0)).starts_with("field 'length': value 0"));
    let every_byte = Rec { length: u64::MAX, length2: 1, ..touch(0, 0) };
    assert!(refused(every_byte).starts_with("field 'length': value"));
    let unknown = Rec { flags: 5 | 2048, ..mmap(1, 0) };
    assert!(refused(unknown).starts_with("field 'flags': value 0x805"));
    for advice in [20, 21, 255] {
        let wrong = Rec { advice, ..range(MADVISE, 0, 0, 1) };
        assert!(refused(wrong).starts_with(&format!("field 'advice': value {advice}")));
    }
}

#[test]
fn an_address_is_an_offset_from_its_id() {
    let Ok(Op::Access(access)) = decode(read(3, -1)) else { panic!("a read") };
    assert_eq!(access.at.id(), Some(3));
    assert_eq!(access.at.resolve(0x5000), 0x4000);
    let Ok(Op::Access(access)) = decode(Rec { addr: -1, ..rec(READ) }) else { panic!("a read") };
    assert_eq!(access.at.id(), None);
    assert_eq!(access.at.resolve(0), u64::MAX);
}

#[test]
fn an_optional_address_is_there_only_if_it_is_given() {
    let Ok(Op::Mmap(mmap)) = decode(Rec { base: 1, addr: 5, ..mmap(1, 0) }) else { panic!() };
    assert_eq!(mmap.hint, None);
    assert_eq!(Op::Mmap(mmap).awaited_id(), None);
    let given = Rec { flags: 5 | GIVEN, base: 1, addr: 5, ..build::mmap(1, 0) };
    let Ok(Op::Mmap(mmap)) = decode(given) else { panic!() };
    assert_eq!(Op::Mmap(mmap).awaited_id(), Some(1));
    let exec = Rec { addr: 0x1000, ..rec(EXEC) };
    assert_eq!(decode(exec), Ok(Op::Exec(ExecArgs::default())));
    let exec = Rec { flags: GIVEN, ..exec };
    assert_eq!(
        decode(exec),
        Ok(Op::Exec(ExecArgs { brk_start: Some(0x1000), ..ExecArgs::default() }))
    );
}

#[test]
fn codes_are_those_of_the_array_form() {
    for op in (1..=29).filter(|op| *op != 4) {
        let length = if op == TOUCH { 1 } else { 0 };
        let value = u64::from(op == REPEAT);
        let decoded = decode(Rec { length, value, ..rec(op) }).unwrap();
        assert_eq!(decoded.code(), op, "{}", decoded.name());
    }
}

#[test]
fn operations_stay_small() {
    // A recording has millions of them.
    assert!(size_of::<Op>() <= 72, "{}", size_of::<Op>());
}

fn decode(record: Rec) -> Result<Op, String> {
    let bytes = packed(&[record]);
    let texts = ["vm.page-cluster".to_owned()];
    let files = [FileSpec { length: PAGE, kind: FileKind::Regular, cached: true }];
    let tables = Tables { nr_ids: 8, nr_names: 8, nr_tasks: 1, files: &files, texts: &texts };
    Op::decode(&Record::read(bytes.as_slice().try_into().unwrap()), &tables)
}
