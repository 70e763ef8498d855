//! Whether the process can do its work now, part by part.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The parts of the process and what each still waits for. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    parts: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

/// One part's say in it.
#[derive(Debug, Clone)]
pub struct Part {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Registers a part, which is not ready until it says so.
    pub fn part(&self, name: &'static str) -> Part {
        let part = Part { name, readiness: self.clone() };
        part.waits_for("start");
        part
    }

    /// Whether every part is ready.
    pub fn is_ready(&self) -> bool {
        self.report().values().all(Option::is_none)
    }

    /// Each part, with what it waits for; `None` is ready.
    pub fn report(&self) -> BTreeMap<&'static str, Option<String>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, name: &'static str, waiting: Option<String>) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(name, waiting);
    }
}

impl Part {
    /// This part can do its work.
    pub fn ready(&self) {
        self.readiness.set(self.name, None);
    }

    /// This part cannot, for this reason.
    pub fn waits_for(&self, reason: impl Into<String>) {
        self.readiness.set(self.name, Some(reason.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_part_is() {
        let readiness = Readiness::default();
        let (intake, shim) = (readiness.part("intake"), readiness.part("shim"));
        intake.ready();
        assert!(!readiness.is_ready());
        shim.ready();
        assert!(readiness.is_ready());
        intake.waits_for("no partition is assigned");
        assert_eq!(readiness.report()["intake"].as_deref(), Some("no partition is assigned"));
    }
}
