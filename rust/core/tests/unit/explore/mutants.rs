use super::*;

#[test]
fn each_mutant_stands_in_the_list_once_in_its_place() {
    for (nth, mutant) in MUTANTS.iter().enumerate() {
        assert_eq!(mutant.which as usize, nth);
        assert_eq!(entry_of(mutant.which), mutant.entry);
        let text = [mutant.removed, mutant.race, mutant.oracle, mutant.name].concat();
        assert!(!text.contains(['"', '\\', '\n']) && !text.contains("  "), "{text}");
    }
}
