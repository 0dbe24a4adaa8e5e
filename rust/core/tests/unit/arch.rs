use super::*;

#[test]
fn builtin_profiles_are_valid_and_have_distinct_names() {
    let profiles = Arch::builtin();
    for arch in &profiles {
        assert_eq!(arch.validate(), Ok(()), "{}", arch.name);
        assert!(!arch.source.is_empty());
    }
    let mut names: Vec<_> = profiles.iter().map(|arch| &arch.name).collect();
    names.dedup();
    assert_eq!(names.len(), profiles.len());
}

#[test]
fn x86_mmap_base_is_where_a_debugger_sees_it_without_randomisation() {
    assert_eq!(Arch::builtin()[0].mmap_base, 0x7fff_f7ff_f000);
}

#[test]
fn a_profile_with_a_gap_between_levels_names_the_level() {
    let mut arch = Arch::builtin().remove(0);
    arch.levels[2].shift = 22;
    let message = arch.validate().unwrap_err();
    assert!(message.starts_with("levels: pmd has shift 22"), "{message}");
}
