use super::*;

#[test]
fn violations_that_differ_in_numbers_only_are_of_one_kind() {
    let kind = |what| Violation::kind("use-after-free", what);
    assert_eq!(
        kind("vm_area_struct[12] of generation 3 was freed (now 4)"),
        "use-after-free: vm_area_struct[#] of generation # was freed (now #)"
    );
    assert_eq!(kind("VMA 0x7f00..0x7fff ends"), "use-after-free: VMA #..# ends");
    assert_ne!(kind("pte[0] of generation 1"), kind("pmd[0] of generation 1"));
}
