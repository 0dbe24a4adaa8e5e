use spfemu_core::program::{FileSpec, ProgramSpec, RECORD_BYTES, Start, TaskSpec};

use super::*;

/// A record of the array form, all of its fields at their defaults but these, by their offsets.
fn record(op: u16, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; RECORD_BYTES];
    bytes[..2].copy_from_slice(&op.to_le_bytes());
    for base in [10, 30] {
        bytes[base..base + 4].copy_from_slice(&(-1i32).to_le_bytes());
    }
    for (offset, value) in fields {
        bytes[*offset..offset + value.len()].copy_from_slice(value);
    }
    bytes
}

const FLAGS: usize = 2;
const PROT: usize = 6;
const ADVICE: usize = 9;
const BASE: usize = 10;
const ADDR: usize = 14;
const LENGTH: usize = 22;
const ADDR2: usize = 34;
const LENGTH2: usize = 42;
const AUX: usize = 58;

fn decoded(records: &[Vec<u8>]) -> Result<Vec<Op>, String> {
    let records = records.concat();
    let spec = ProgramSpec {
        tasks: vec![TaskSpec { start: Start::First, records: &records }],
        nr_ids: 2,
        nr_names: 1,
        texts: &[],
        files: vec![FileSpec { length: 0, kind: spfemu_core::mm::FileKind::Shmem, cached: true }],
        note_maps: Vec::new(),
    };
    tasks(&spec).map(|tasks| tasks[0].ops.iter().map(|(op, _)| *op).collect())
}

#[test]
fn flags_become_the_hosts() {
    // private, anonymous, populate, growsdown
    let flags = (1u32 | 4 | 32 | 512).to_le_bytes();
    let ops = decoded(&[record(1, &[(FLAGS, &flags), (PROT, &[3])])]).unwrap();
    let wanted = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE | libc::MAP_GROWSDOWN;
    let Op::Mmap(mmap) = ops[0] else { panic!("{ops:?}") };
    assert_eq!((mmap.flags, mmap.prot), (wanted as u64, 3));
    assert_eq!((mmap.hint, mmap.file, mmap.id), (None, None, None));
}

#[test]
fn mremap_has_two_addresses_and_an_id() {
    let flags = (GIVEN | 3).to_le_bytes();
    let ops = decoded(&[record(
        4,
        &[
            (FLAGS, &flags),
            (BASE, &0i32.to_le_bytes()),
            (ADDR, &4096i64.to_le_bytes()),
            (LENGTH, &4096u64.to_le_bytes()),
            (ADDR2, &65536i64.to_le_bytes()),
            (LENGTH2, &8192u64.to_le_bytes()),
            (AUX, &2u32.to_le_bytes()),
        ],
    )])
    .unwrap();
    let range = Range { at: At { id: Some(0), offset: 4096 }, length: 4096 };
    let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
    let target = Some(At { id: None, offset: 65536 });
    let wanted = Mremap { range, new_length: 8192, flags, target, id: Some(1) };
    assert_eq!(ops, [Op::Mremap(wanted)]);
}

#[test]
fn advices_are_in_the_formats_order() {
    let advice = |number: u8| decoded(&[record(5, &[(ADVICE, &[number])])]);
    for (number, wanted) in
        [(0, libc::MADV_DONTNEED), (8, libc::MADV_DONTFORK), (19, libc::MADV_POPULATE_WRITE)]
    {
        let Op::Range(call, _) = advice(number).unwrap()[0] else { panic!("no range call") };
        assert_eq!(call, RangeCall::Madvise(wanted as u64));
    }
    let wrong = advice(20).unwrap_err();
    assert_eq!(wrong, "tasks[0]: record 0: field 'advice': value 20 (allowed: 0 to 19)");
}

#[test]
fn brackets_know_their_partners() {
    let repeat = |count: u64| record(26, &[(50, &count.to_le_bytes())]);
    let ops = decoded(&[repeat(3), record(29, &[]), record(27, &[])]).unwrap();
    assert_eq!(ops[0], Op::Repeat(Repeat { count: 3, for_ns: 0, end: 2 }));
    assert_eq!(ops[2], Op::End { repeat: 0 });
    assert_eq!(decoded(&[record(27, &[])]).unwrap_err(), "tasks[0]: record 0: closes no repeat");
    assert_eq!(decoded(&[repeat(1)]).unwrap_err(), "tasks[0]: a repeat is not closed");
}

#[test]
fn what_would_change_the_host_is_refused() {
    for op in [0, 28, 30, 31, 35, 37, 41, 42] {
        let wrong = decoded(&[record(op, &[])]).unwrap_err();
        assert!(wrong.contains(&format!("field 'op': value {op} (allowed")), "{wrong}");
    }
}

#[test]
fn numbers_out_of_range_are_refused() {
    for (bad, what) in [
        (record(2, &[(BASE, &2i32.to_le_bytes())]), "field 'base': value 2"),
        (record(3, &[(PROT, &[8])]), "field 'prot': value 8"),
        (record(1, &[(FLAGS, &0x800u32.to_le_bytes())]), "field 'flags': value 0x800"),
        (record(13, &[(AUX, &1u32.to_le_bytes())]), "field 'aux': value 1"),
        (record(20, &[(LENGTH, &u64::MAX.to_le_bytes())]), "field 'length'"),
        (record(24, &[(AUX, &1u32.to_le_bytes())]), "field 'aux': value 1"),
        (record(1, &[(AUX, &2u32.to_le_bytes())]), "field 'aux': value 2"),
    ] {
        let wrong = decoded(&[bad]).unwrap_err();
        assert!(wrong.contains(what), "{wrong}");
    }
}
