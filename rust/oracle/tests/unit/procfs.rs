use super::*;

#[test]
fn a_line_of_maps_is_cut_after_the_offset() {
    let line = "7f2-7f3000 rw-s 0000a000 00:01 1042                       /memfd:a b (deleted)";
    let found = mapping(line).unwrap();
    assert_eq!((found.start, found.end, found.special), (0x7f2, 0x7f3000, false));
    assert_eq!(found.line, "7f2-7f3000 rw-s 0000a000");
}

#[test]
fn what_the_kernel_maps_itself_is_special() {
    let line = "7fff0000-7fff2000 r-xp 00000000 00:00 0                          [vdso]";
    assert!(mapping(line).unwrap().special);
    // A heap is the program's, whatever it is called.
    let line = "55550000-55560000 rw-p 00000000 00:00 0                          [heap]";
    assert!(!mapping(line).unwrap().special);
}

#[test]
fn a_line_that_is_none_is_refused() {
    assert_eq!(mapping(""), None);
    assert_eq!(mapping("7f2 rw-p 0"), None);
    assert_eq!(mapping("7g2-7g3 rw-p 0"), None);
}

#[test]
fn a_process_has_faulted() {
    let me = std::process::id() as Pid;
    let [minor, _] = fault_counts(me, me).unwrap();
    assert!(minor > 0);
}
