//! Keys of evaluators: the section `conditions`.

use super::*;

#[test]
fn keys_of_evaluators_are_checked() {
    let with = |keys: &str| format!("{GATEWAY}\nconditions: {{{keys}}}\n");
    let config = loaded(&with("evaluators: 4, timeout: 20ms, max_memory: 1GiB")).config.conditions;
    assert_eq!((config.evaluators, config.timeout.as_millis(), config.max_memory.as_u64()), (4, 20, 1 << 30));
    let report = report(&with("evaluators: 0, timeout: 0s, max_memory: 0, memory: 1GiB"));
    for part in ["evaluators: must be at least 1", "timeout: ", "max_memory: must be more than nothing", "memory: "] {
        assert!(report.contains(&format!("conditions.{part}")), "{report}");
    }
}
