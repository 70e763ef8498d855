//! Puts Signalbox under fire: processes are killed, brokers die, wires are cut, and the checker counts what that has
//! cost.
//!
//! Each scenario has a short version for `tests/run`, and a long one for `tests/fire`, which sets
//! `SIGNALBOX_TEST_FIRE_MINUTES`.

mod brokers; // brokers that are killed, away, standing still, out of space
mod deadly; // poison pills, which no process survives
mod ground; // the place of a scenario
mod groups; // two groups that have the same requests
mod instances; // instances that are killed, paused, come and gone
mod memory; // less memory than answers take
mod models; // models in trouble
mod neighbours; // bad requests beside innocent ones
mod network; // a wire that is cut, both ways and one way, and narrow
mod run; // one scenario at one delivery
mod topics; // topics that are deleted and made anew

use ground::Ground;
use run::{Length, Run};

/// Promises about delivery, as `kafka.delivery` names them. Each scenario runs at all of them.
const DELIVERIES: &[&str] = &["at_least_once", "exactly_once"];

/// Runs a scenario at each delivery. All of them are judged, whatever the first says.
fn at_each_delivery(mut scenario: impl FnMut(&'static str) -> Result<(), String>) {
    let verdicts: Vec<_> = DELIVERIES.iter().map(|delivery| scenario(delivery)).collect();
    let failures: Vec<_> = verdicts.into_iter().filter_map(Result::err).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
