//! Recent faults: the last kinds of fault that requests ended with, for operators.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::printable;

/// Kinds that are kept; with one more, the kind that was met the longest ago is forgotten.
const KINDS: usize = 32;

/// Longest reason that is kept, in bytes.
const LONGEST_REASON: usize = 400;

/// Last faults by kind, so that a flood of one kind does not wash the others away. Cheap to clone; clones share the
/// same faults.
#[derive(Debug, Clone, Default)]
pub struct RecentFaults(Arc<Mutex<Vec<Entry>>>);

/// Kind of a fault: faults that share it count as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultKind<'a> {
    /// Endpoint that the request was for; empty if it was not known yet.
    pub endpoint: &'a str,
    /// Route that had the request; empty if none had.
    pub route: &'a str,
    /// The fault's code.
    pub code: &'static str,
    /// The code's HTTP status.
    pub status: u16,
    /// The stage that the request had come to.
    pub stage: &'static str,
}

/// Faults of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecentFault {
    /// Endpoint that the requests were for; empty if it was not known yet.
    pub endpoint: Arc<str>,
    /// Route that had the requests; empty if none had.
    pub route: Arc<str>,
    /// The faults' code.
    pub code: &'static str,
    /// The code's HTTP status.
    pub status: u16,
    /// The stage that the requests had come to.
    pub stage: &'static str,
    /// The reason of the last one.
    pub reason: Arc<str>,
    /// The number of faults of this kind.
    pub times: u64,
    /// Time since the last one.
    pub ago: Duration,
}

#[derive(Debug)]
struct Entry {
    last: Instant,
    fault: RecentFault,
}

impl RecentFaults {
    /// Counts a fault of this kind. The reason must repeat nothing of the request.
    pub fn record(&self, kind: FaultKind<'_>, reason: &str) {
        self.record_at(kind, reason, Instant::now());
    }

    /// Lists the faults, the last one first.
    pub fn report(&self) -> Vec<RecentFault> {
        self.report_at(Instant::now())
    }

    fn report_at(&self, now: Instant) -> Vec<RecentFault> {
        let mut entries: Vec<RecentFault> = {
            let entries = self.0.lock();
            let report =
                |entry: &Entry| RecentFault { ago: now.saturating_duration_since(entry.last), ..entry.fault.clone() };
            entries.iter().map(report).collect()
        };
        entries.sort_by_key(|fault| fault.ago);
        entries
    }

    fn record_at(&self, kind: FaultKind<'_>, reason: &str, now: Instant) {
        let FaultKind { endpoint, route, code, status, stage } = kind;
        let is_same = |fault: &RecentFault| {
            (fault.code, fault.stage, &*fault.route, &*fault.endpoint) == (code, stage, route, endpoint)
        };
        let mut entries = self.0.lock();
        if let Some(entry) = entries.iter_mut().find(|entry| is_same(&entry.fault)) {
            (entry.last, entry.fault.times) = (now, entry.fault.times + 1);
            // The reason is copied only when it is another one than before: a flood of faults mostly says the same.
            if *entry.fault.reason != *reason {
                entry.fault.reason = printable(reason, LONGEST_REASON).into();
            }
            return;
        }
        if entries.len() >= KINDS
            && let Some(oldest) = (0..entries.len()).min_by_key(|index| entries[*index].last)
        {
            entries.swap_remove(oldest);
        }
        let (endpoint, route, reason) = (endpoint.into(), route.into(), printable(reason, LONGEST_REASON).into());
        let fault = RecentFault { endpoint, route, code, status, stage, reason, times: 1, ago: Duration::ZERO };
        entries.push(Entry { last: now, fault });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(route: &str) -> FaultKind<'_> {
        FaultKind { endpoint: "e", route, code: "MODEL_ERROR", status: 502, stage: "invoke" }
    }

    #[test]
    fn faults_of_one_kind_count_as_one() {
        let faults = RecentFaults::default();
        let begun = Instant::now();
        faults.record_at(kind("a"), "the first", begun);
        faults.record_at(kind("b"), "another", begun + Duration::from_millis(1));
        faults.record_at(kind("a"), "the second\n", begun + Duration::from_millis(2));
        let report = faults.report_at(begun + Duration::from_secs(1));
        let shown: Vec<_> = report.iter().map(|fault| (&*fault.route, &*fault.reason, fault.times)).collect();
        assert_eq!(shown, [("a", r"the second\n", 2), ("b", "another", 1)]);
    }

    #[test]
    fn oldest_kind_is_forgotten_when_there_are_too_many() {
        let faults = RecentFaults::default();
        let begun = Instant::now();
        for number in 0..=KINDS {
            let route = number.to_string();
            faults.record_at(kind(&route), "why", begun + Duration::from_millis(number as u64));
        }
        let report = faults.report_at(begun + Duration::from_secs(1));
        assert_eq!((report.len(), &*report[KINDS - 1].route), (KINDS, "1"));
    }
}
