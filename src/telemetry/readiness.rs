//! The readiness of the process, part by part.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::{info, warn};

use super::flow::ProgressWatch;

/// The parts of the process and what each still waits for. Cheap to clone; all clones share the same parts.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    parts: Arc<Mutex<BTreeMap<&'static str, PartState>>>,
}

/// The handle by which one part reports its readiness.
#[derive(Debug, Clone)]
pub struct ReadinessPart {
    name: &'static str,
    readiness: Readiness,
}

#[derive(Debug, Default)]
struct PartState {
    /// Reason for which the part is not ready, as the part itself says.
    waits_for: Option<String>,
    /// Work of the part that must not stand still.
    flow: Option<ProgressWatch>,
    /// True if the standstill has been logged.
    is_logged: bool,
}

impl Readiness {
    /// Registers a part, which is not ready until it says so.
    pub fn part(&self, name: &'static str) -> ReadinessPart {
        let part = ReadinessPart { name, readiness: self.clone() };
        part.waits_for("start");
        part
    }

    /// Tells whether every part is ready.
    pub fn is_ready(&self) -> bool {
        self.report().values().all(Option::is_none)
    }

    /// Lists the parts, each with the reason for which it waits; `None` is ready.
    pub fn report(&self) -> BTreeMap<&'static str, Option<String>> {
        let mut parts = self.parts.lock();
        parts.iter_mut().map(|(name, state)| (*name, state.report(name))).collect()
    }

    fn change(&self, name: &'static str, change: impl FnOnce(&mut PartState)) {
        change(self.parts.lock().entry(name).or_default());
    }
}

impl ReadinessPart {
    /// Marks the part as ready.
    pub fn ready(&self) {
        self.readiness.change(self.name, |state| state.waits_for = None);
    }

    /// Marks the part as not ready, for this reason.
    pub fn waits_for(&self, reason: impl Into<String>) {
        let reason = Some(reason.into());
        self.readiness.change(self.name, |state| state.waits_for = reason);
    }

    /// Adds work without which this part is of no use, such as "replies to be published": while the work stands still
    /// the part is not ready.
    pub fn flow(&self, what: &str) -> ProgressWatch {
        let flow = ProgressWatch::new(what);
        let handle = flow.clone();
        self.readiness.change(self.name, |state| state.flow = Some(handle));
        flow
    }
}

impl PartState {
    fn report(&mut self, part: &str) -> Option<String> {
        let standstill = self.flow.as_ref().and_then(ProgressWatch::standstill);
        let was_logged = std::mem::replace(&mut self.is_logged, standstill.is_some());
        match &standstill {
            Some(why) if !was_logged => warn!(part, why, "not ready"),
            None if was_logged => info!(part, "work gets through again"),
            Some(_) | None => {}
        }
        self.waits_for.clone().or(standstill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_ready_when_every_part_is() {
        let readiness = Readiness::default();
        let (requests, shim) = (readiness.part("requests"), readiness.part("shim"));
        requests.ready();
        assert!(!readiness.is_ready());
        shim.ready();
        assert!(readiness.is_ready());
        requests.waits_for("no partition is assigned");
        assert_eq!(readiness.report()["requests"].as_deref(), Some("no partition is assigned"));
    }

    #[test]
    fn part_stays_ready_when_work_has_just_begun() {
        let readiness = Readiness::default();
        let part = readiness.part("replies");
        let flow = part.flow("replies to be published");
        part.ready();
        let _pending = flow.begin();
        flow.failed("the topic is gone");
        assert!(readiness.is_ready());
    }
}
