use super::*;
use crate::events::{Cost, NR_COSTS};

/// A machine that is like x86-48 but for `text`.
fn like(text: &str) -> Result<Profile, String> {
    Profile::from_toml(&format!("name = \"mine\"\nlike = \"x86-48\"\n{text}"))
}

/// What is wrong with it.
fn wrong(text: &str) -> String {
    like(text).expect_err(text)
}

#[test]
fn each_number_is_where_it_belongs() {
    let machine = |name: &str| {
        let profile = Profile::builtin().iter().find(|profile| profile.name == name);
        profile.unwrap().machine()
    };
    let x86 = machine("x86-48");
    assert_eq!(x86.line_ns, [1, 8, 45, 45, 128]);
    let costs: [u64; NR_COSTS] =
        [450, 150, 350, 500, 1_237, 280, 10, 1, 100, 40, 20_000, 100_000, 100_000, 2_000, 4_000];
    assert_eq!(x86.cost_ns, costs);
    assert_eq!(
        (x86.atomic_ns, x86.ipi_base_ns, x86.ipi_target_ns, x86.ipi_handler_ns),
        (6, 600, 200, 400)
    );
    assert_eq!(
        (x86.wakeup_ns, x86.wakeup_jitter, x86.waker_ns, x86.slice_ns),
        (33_000, 50, 1_500, 3_000_000)
    );
    assert_eq!((x86.nr_cpus(), x86.threads_adjacent), (48, false));

    let power = machine("power8-1024");
    assert_eq!(power.line_ns, [1, 10, 170, 170, 350]);
    let costs: [u64; NR_COSTS] =
        [600, 100, 4_000, 5_500, 618, 90, 60, 1, 100, 60, 30_000, 150_000, 100_000, 32_000, 60_000];
    assert_eq!(power.cost_ns, costs);
    assert_eq!(
        (power.atomic_ns, power.ipi_base_ns, power.ipi_target_ns, power.ipi_handler_ns),
        (10, 400, 0, 0)
    );
    assert_eq!((power.wakeup_ns, power.waker_ns), (32_000, 700));
    assert_eq!((power.nr_cpus(), power.threads_adjacent), (1024, true));
    assert_eq!((x86.broadcast_flush, power.broadcast_flush), (false, true));

    let small = machine("power8-80");
    let mut cost_ns = power.cost_ns;
    cost_ns[Cost::ZapPage as usize] = 1_600;
    let expected = Machine {
        name: "power8-80".into(),
        sockets: 2,
        cores_per_die: 5,
        cost_ns,
        wakeup_ns: 9_000,
        idle_exit_ns: 4_000,
        ..power
    };
    assert_eq!(small, expected);

    let arm = machine("arm64-64");
    let expected = Machine {
        name: "arm64-64".into(),
        arch: "arm64".into(),
        sockets: 1,
        cores_per_die: 64,
        threads_per_core: 1,
        line_ns: [1, 1, 47, 47, 47],
        broadcast_flush: true,
        ipi_base_ns: 300,
        ipi_target_ns: 0,
        ipi_handler_ns: 0,
        ..x86
    };
    assert_eq!(arm, expected);
}

#[test]
fn every_number_of_the_package_has_a_source_of_its_own() {
    for profile in Profile::builtin() {
        for (field, entry) in FIELDS.iter().zip(&profile.entries) {
            let Some(entry) = entry else { continue };
            assert!(entry.source != "the user's", "{}: {}", profile.name, field.name);
            assert!(!entry.source.contains("above"), "{}: {}", profile.name, field.name);
        }
    }
}

#[test]
fn every_field_is_read() {
    // Two of everything, so that there is room for each.
    let base = like("dies_per_socket = 2\nline_socket_ns = 100").unwrap();
    for (nth, field) in FIELDS.iter().enumerate() {
        let mut other = base.clone();
        let entry = other.entries[nth].as_mut().expect("said");
        entry.value = if field.unit == Unit::Flag { 1 - entry.value } else { entry.value + 1 };
        assert!(other.machine() != base.machine(), "{}", field.name);
    }
}

#[test]
fn what_a_machine_inherits_is_assumed() {
    let mine = like("wakeup_ns = 20_000").unwrap();
    let line = mine.entry("line_die_ns").unwrap();
    assert_eq!((line.value, line.kind), (45, Kind::Assumed));
    assert!(line.source.starts_with("as x86-48, measured there: core-to-core-latency"));
    let wakeup = mine.entry("wakeup_ns").unwrap();
    assert_eq!((wakeup.value, wakeup.source.as_str()), (20_000, "the user's"));
    assert_eq!(mine.summary, "like x86-48");
}

#[test]
fn a_changed_machine_keeps_the_rest_and_says_what_was_changed() {
    let changes = "wakeup_ns = 20_000\nthreads_per_core = 1".parse().unwrap();
    let mine = Profile::builtin()[0].replaced(&changes).unwrap();
    assert_eq!(mine.name, "x86-48,threads_per_core=1,wakeup_ns=20000");
    assert_eq!(mine.nr_cpus(), 24);
    assert_eq!(mine.entry("line_core_ns"), None);
    assert_eq!(mine.entry("line_die_ns").unwrap().kind, Kind::Measured);
    let named = "name = \"mine\"\nfault_ns = 0".parse().unwrap();
    assert_eq!(Profile::builtin()[0].replaced(&named).unwrap().name, "mine");
    let like = "like = \"x86-48\"".parse().unwrap();
    let wrong = Profile::builtin()[0].replaced(&like).unwrap_err();
    assert!(wrong.contains("like: value \"x86-48\" (allowed: none"), "{wrong}");
}

#[test]
fn a_distance_that_there_is_not_costs_what_the_nearer_one_does() {
    let mine = like("sockets = 1\ncores_per_die = 1").unwrap();
    assert_eq!(mine.machine().line_ns, [1, 8, 8, 8, 8]);
}

#[test]
fn each_field_refuses_what_it_cannot_be() {
    for field in FIELDS {
        let name = field.name;
        for (value, told) in [
            ("\"abc\"", "\"abc\""),
            ("1.5", "1.5"),
            ("-1", "-1"),
            ("[1]", "an array"),
            ("1979-05-27", "1979-05-27"),
            ("9_000_000_000", "9000000000"),
        ] {
            let whole = if field.unit == Unit::Flag || value.ends_with("_000") || value == "-1" {
                ""
            } else {
                "whole, "
            };
            let expected =
                format!("machine mine: {name}: value {told} (allowed: {whole}{})", range(field));
            assert_eq!(wrong(&format!("{name} = {value}")), expected);
        }
        if field.unit != Unit::Flag {
            assert!(wrong(&format!("{name} = true")).contains("value true"));
            let below = field.allowed.start().wrapping_sub(1) as i64;
            assert!(wrong(&format!("{name} = {below}")).contains(&format!("value {below} (")));
        }
    }
}

#[test]
fn an_entry_has_a_value_a_kind_and_a_source() {
    let entry = |rest: &str| wrong(&format!("fault_ns = {{ {rest} }}"));
    let full = "value = 1, kind = \"assumed\", source = \"x\"";
    assert!(like(&format!("fault_ns = {{ {full} }}")).is_ok());
    assert_eq!(entry("value = 1, source = \"x\""), "machine mine: fault_ns.kind: missing");
    assert_eq!(entry("value = 1, kind = \"assumed\""), "machine mine: fault_ns.source: missing");
    assert_eq!(
        entry("kind = \"assumed\", source = \"x\""),
        "machine mine: fault_ns.value: missing"
    );
    assert_eq!(
        entry("value = 1, kind = \"guessed\", source = \"x\""),
        "machine mine: fault_ns.kind: value \"guessed\" (allowed: measured, derived, assumed; \
         fitted: zap_page_ns and wakeup_ns alone)"
    );
    let fitted = "value = 1, kind = \"fitted\", source = \"x\"";
    assert!(entry(fitted).contains("fault_ns.kind: value \"fitted\" (allowed: measured"));
    assert!(like(&format!("wakeup_ns = {{ {fitted} }}")).is_ok());
    assert_eq!(
        entry("value = 1, kind = \"assumed\", source = \"\""),
        "machine mine: fault_ns.source: value \"\" (allowed: one line of text)"
    );
    assert_eq!(
        entry(&format!("{full}, unit = \"s\"")),
        "machine mine: fault_ns.unit: value \"s\" (allowed: only value, kind, source)"
    );
    assert!(entry("value = -1, kind = \"assumed\", source = \"x\"").contains("fault_ns: value -1"));
}

#[test]
fn a_machine_that_cannot_be_is_refused() {
    let of = |text: &str| Profile::from_toml(text).expect_err(text);
    assert_eq!(of("arch = \"x86\""), "machine : name: missing (allowed: one line of text)");
    assert!(of("name = 5").contains("name: value 5 (allowed: one line of text)"));
    assert!(of("name = \"a\\nb\"").contains("name: value \"a\\nb\""));
    assert!(of("name = \"mine\"").contains("arch: missing"));
    assert!(of("name = \"mine\"\narch = \"x86\"").contains("summary: missing"));
    let bare = "name = \"mine\"\narch = \"x86\"\nsummary = \"x\"\n";
    assert_eq!(of(bare), "machine mine: sockets: missing (allowed: 1 to 4096)");
    assert!(
        of("name = \"mine\"\nlike = \"pdp-11\"")
            .contains("like: value \"pdp-11\" (allowed: x86-48, ")
    );
    assert!(of("name = \"mine\"\nlike = 5").contains("like: value 5 (allowed: x86-48, "));
    assert_eq!(of("name = \"mine\"\nname"), "machine: line 2: key with no value, expected `=`");
    assert!(wrong("arch = \"vax\"").contains("arch: value \"vax\" (allowed: x86, "));
    assert!(
        wrong("fualt_ns = 5").contains("machine mine: fualt_ns: unknown (allowed: name, arch, ")
    );
    assert_eq!(
        wrong("cores_per_die = 2000"),
        "machine mine: cpus: value 8000 (allowed: 1 to 4096, sockets x dies_per_socket x \
         cores_per_die x threads_per_core)"
    );
    assert_eq!(
        wrong("line_machine_ns = 40"),
        "machine mine: line_machine_ns: value 40 (allowed: 45 to 1000000000, not below line_die_ns)"
    );
    assert_eq!(
        wrong("line_socket_ns = 80"),
        "machine mine: line_socket_ns: value 80 (allowed: none, for dies_per_socket is 1)"
    );
    assert_eq!(
        wrong("dies_per_socket = 2"),
        "machine mine: line_socket_ns: missing (allowed: 1 to 1000000000)"
    );
}

#[test]
fn as_many_cpus_as_may_be() {
    assert_eq!(like("cores_per_die = 1024").unwrap().nr_cpus(), 4096);
}
