use super::*;

#[test]
fn a_record_is_read_field_by_field() {
    let mut bytes = Vec::new();
    bytes.extend(0x0102u16.to_le_bytes());
    bytes.extend(0x0304_0506u32.to_le_bytes());
    bytes.extend([7, 8, 9, 10]);
    bytes.extend((-11i32).to_le_bytes());
    bytes.extend((-12i64).to_le_bytes());
    bytes.extend(13u64.to_le_bytes());
    bytes.extend((-14i32).to_le_bytes());
    bytes.extend((-15i64).to_le_bytes());
    bytes.extend(16u64.to_le_bytes());
    bytes.extend(17u64.to_le_bytes());
    bytes.extend(18u32.to_le_bytes());
    let record = Record::read(bytes.as_slice().try_into().unwrap());
    assert_eq!((record.op, record.flags), (0x0102, 0x0304_0506));
    assert_eq!((record.prot, record.access, record.mode, record.advice), (7, 8, 9, 10));
    assert_eq!((record.base, record.addr, record.length), (-11, -12, 13));
    assert_eq!((record.base2, record.addr2, record.length2), (-14, -15, 16));
    assert_eq!((record.value, record.aux), (17, 18));
}

#[test]
fn an_outcome_is_as_long_as_it_says_and_marks_what_is_valid() {
    let outcome = Outcome { ret: Some(-1), errno: 12, livelock: true, ..Outcome::default() };
    let mut out = Vec::new();
    outcome.write(&mut out);
    assert_eq!(out.len(), OUTCOME_BYTES);
    assert_eq!(OUTCOME_BYTES, 98);
    assert_eq!((out[23], out[29]), (1, 1));
    assert_eq!(out[30..34], 12i32.to_le_bytes());
    assert_eq!(out[34..42], (-1i64).to_le_bytes());
    Outcome { ret: Some(0), value: Some(9), ..Outcome::default() }.write(&mut out);
    assert_eq!((out[98 + 29], out[98 + 42]), (3, 9));
}
