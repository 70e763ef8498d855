//! The watcher of all canaries: reads their states, compares them with the other routes, and decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use super::policy::{CanaryPhase, CanaryState, CanaryVerdict, judge};
use super::report::CanaryReport;
use super::report::OperatorAction;
use super::statistics::{Baseline, ObservationWindow, RouteStatistics};
use super::subject::CanarySubject;
use crate::message::unix_milliseconds;
use crate::telemetry::Metrics;

/// Checks of a canary during one of its steps; more of them abort a bad canary earlier.
const CHECKS_PER_STEP: u32 = 20;
/// Shortest time between two checks, however short the steps are.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Longest time between two checks, however long the steps are: a bad canary keeps its share that long at most.
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Time after which a state is written again that was written and has not been read back.
const REWRITE_AFTER: Duration = Duration::from_secs(2);

/// Owns the states of all canaries.
pub(super) struct CanaryWatcher {
    metrics: Metrics,
    /// Tells whether everything that had been written before the start has been read. No canary takes a share earlier.
    caught_up: bool,
    /// The states of canaries by key, those included that this instance does not have.
    states: BTreeMap<String, CanaryState>,
    canaries: BTreeMap<String, WatchedCanary>,
    /// The states that are to be written. They hold once they have been read back.
    writes: Vec<(String, CanaryState)>,
    /// Time of the last check; none where the next one is due at once.
    evaluated: Option<Instant>,
}

/// Holds a canary of this instance's config.
#[derive(Debug)]
struct WatchedCanary {
    subject: CanarySubject,
    /// The counters at the time when the canary came to its state, its own first.
    baselines: Vec<Baseline>,
    baseline_at: Instant,
    written: Option<(CanaryState, Instant)>,
    /// The others' requests when there were last enough of them to compare with: beside a canary at 100 % there are
    /// none.
    reference: Option<ObservationWindow>,
    /// The state that the share has been set for.
    applied: Option<CanaryState>,
}

impl CanaryWatcher {
    pub(super) fn new(metrics: Metrics) -> Self {
        let (states, canaries) = (BTreeMap::new(), BTreeMap::new());
        Self { metrics, caught_up: false, states, canaries, writes: Vec::new(), evaluated: None }
    }

    /// Takes the states that are to be written.
    pub(super) fn take_writes(&mut self) -> Vec<(String, CanaryState)> {
        std::mem::take(&mut self.writes)
    }

    /// Computes the time between two checks from the shortest steps of all canaries.
    fn check_interval(&self) -> Duration {
        let shortest = self.canaries.values().map(|watched| watched.subject.canary.every / CHECKS_PER_STEP).min();
        shortest.unwrap_or(MAX_CHECK_INTERVAL).clamp(MIN_CHECK_INTERVAL, MAX_CHECK_INTERVAL)
    }

    pub(super) fn set(&mut self, subjects: Vec<CanarySubject>) {
        self.evaluated = None;
        let mut before = std::mem::take(&mut self.canaries);
        for subject in subjects {
            let key = key(&subject);
            // A canary whose counters are the same objects keeps its baselines; with other counters it starts counting
            // anew.
            let known = before.remove(&key).filter(|known| Arc::ptr_eq(&known.subject.own, &subject.own));
            let watched = match known {
                Some(known) if are_same(&known.subject.others, &subject.others) => WatchedCanary { subject, ..known },
                _ => WatchedCanary {
                    baselines: baselines(&subject),
                    baseline_at: Instant::now(),
                    written: None,
                    reference: None,
                    applied: None,
                    subject,
                },
            };
            self.canaries.insert(key, watched);
        }
        // A removed canary leaves no stale share in the metrics.
        for gone in before.into_values() {
            let labels = [&*gone.subject.endpoint, &*gone.subject.route];
            let _ = self.metrics.canary_share.remove_label_values(&labels);
        }
        if self.caught_up {
            self.catch_up();
        }
    }

    /// Applies the states of all canaries, now that they are known. A canary without a state begins at its first step.
    pub(super) fn catch_up(&mut self) {
        self.caught_up = true;
        let keys: Vec<_> = self.canaries.keys().cloned().collect();
        for key in keys {
            match self.states.get(&key) {
                Some(_) => self.apply(&key),
                None => self.write(&key, CanaryState::first(0, unix_milliseconds())),
            }
        }
    }

    /// Takes in a state that an instance has written.
    pub(super) fn read(&mut self, key: String, state: CanaryState) {
        match self.states.get(&key) {
            Some(held) if *held == state => {}
            Some(held) if !state.supersedes(held) => {
                // Another instance wrote without knowing of the state that holds. Compaction keeps the last record of
                // each key, so the state that holds is written once more.
                if self.caught_up {
                    self.writes.push((key, held.clone()));
                }
            }
            _ => {
                self.states.insert(key.clone(), state);
                if self.caught_up {
                    self.apply(&key);
                }
            }
        }
    }

    /// Sets the share of a canary to that of its state.
    fn apply(&mut self, key: &str) {
        let (Some(watched), Some(state)) = (self.canaries.get_mut(key), self.states.get(key)) else { return };
        let CanarySubject { endpoint, route, canary, share: current, .. } = &watched.subject;
        let (before, share) = (current.get(), state.share(canary));
        current.set(share);
        if watched.applied.as_ref() == Some(state) {
            // The state is applied already; only the configuration around the canary has changed.
            return;
        }
        // A new state begins with no requests: the next comparison counts from here.
        watched.baselines = baselines(&watched.subject);
        watched.baseline_at = Instant::now();
        watched.written = None;
        watched.applied = Some(state.clone());
        self.metrics.canary_share.with_label_values(&[endpoint, route]).set(share);
        let (from, to) = (100.0 * before, 100.0 * share);
        match state.phase {
            CanaryPhase::Aborted => {
                let reason = state.reason.as_deref();
                self.metrics.canary_aborts.with_label_values(&[endpoint, route]).inc();
                tracing::warn!(%endpoint, %route, from, reason, "canary is taken back");
            }
            CanaryPhase::Done => tracing::info!(%endpoint, %route, share = to, "canary has passed its last step"),
            CanaryPhase::Rolling => {
                tracing::info!(%endpoint, %route, from, to, step = state.step, "canary's share moves");
            }
        }
    }

    /// Compares each canary with the others, when it is time for that, and writes the next state of those that are due.
    pub(super) fn evaluate(&mut self) {
        // Before the topic has been read to its end, an old state could be taken for the one that holds.
        if !self.caught_up || self.evaluated.is_some_and(|last| last.elapsed() < self.check_interval()) {
            return;
        }
        self.evaluated = Some(Instant::now());
        let keys: Vec<_> = self.canaries.keys().cloned().collect();
        for key in keys {
            let (Some(watched), Some(state)) = (self.canaries.get_mut(&key), self.states.get(&key)) else { continue };
            let (own, others) = watched.windows();
            let canary = &watched.subject.canary;
            if others.calls >= canary.abort_if.minimum_calls as u64 {
                watched.reference = Some(others);
            }
            let verdict = judge(&canary.abort_if, &own, &watched.reference.unwrap_or(others));
            let is_good = verdict == CanaryVerdict::Good;
            if let Some(next) = state.next(canary, verdict, unix_milliseconds()) {
                self.write(&key, next);
            } else if state.phase == CanaryPhase::Done && is_good && watched.baseline_at.elapsed() >= canary.every {
                // A finished canary is still judged, from a new baseline each time: good requests of long ago must not
                // make up for bad ones now.
                watched.baselines = baselines(&watched.subject);
                watched.baseline_at = Instant::now();
            }
        }
    }

    fn write(&mut self, key: &str, state: CanaryState) {
        let Some(watched) = self.canaries.get_mut(key) else { return };
        let is_under_way = watched.written.as_ref().is_some_and(|(written, at)| {
            (written.phase, written.step, written.generation) == (state.phase, state.step, state.generation)
                && at.elapsed() < REWRITE_AFTER
        });
        if !is_under_way {
            self.writes.push((key.to_owned(), state.clone()));
            watched.written = Some((state, Instant::now()));
        }
    }

    pub(super) fn act(&mut self, endpoint: &str, route: &str, action: OperatorAction) -> bool {
        let named =
            |watched: &WatchedCanary| *watched.subject.endpoint == *endpoint && *watched.subject.route == *route;
        let Some(key) = self.canaries.iter().find(|(_, watched)| named(watched)).map(|(key, _)| key.clone()) else {
            return false;
        };
        let Some(state) = self.states.get(&key) else { return false };
        let next = match action {
            OperatorAction::Restart => CanaryState::first(state.generation.saturating_add(1), unix_milliseconds()),
            OperatorAction::Abort => state.aborted("an operator asked for it".to_owned(), unix_milliseconds()),
        };
        self.write(&key, next);
        true
    }

    pub(super) fn report(&self) -> Vec<CanaryReport> {
        let milliseconds = |duration: Duration| 1000.0 * duration.as_secs_f64();
        let report = |(key, watched): (&String, &WatchedCanary)| {
            let (own, others) = watched.windows();
            let subject = &watched.subject;
            CanaryReport {
                endpoint: Arc::clone(&subject.endpoint),
                route: Arc::clone(&subject.route),
                share: 100.0 * subject.share.get(),
                steps: subject.canary.steps.clone(),
                state: self.states.get(key).cloned(),
                calls: own.calls,
                failures: own.failures,
                p95_ms: milliseconds(own.p95),
                others_p95_ms: milliseconds(others.p95),
            }
        };
        self.canaries.iter().map(report).collect()
    }
}

impl WatchedCanary {
    /// Sums up the requests since the baseline: the canary's own, and the others'.
    fn windows(&self) -> (ObservationWindow, ObservationWindow) {
        let now = baselines(&self.subject);
        let pairs = || self.baselines.iter().zip(&now);
        (Baseline::window(pairs().take(1)), Baseline::window(pairs().skip(1)))
    }
}

fn baselines(subject: &CanarySubject) -> Vec<Baseline> {
    std::iter::once(&subject.own).chain(&subject.others).map(|statistics| statistics.baseline()).collect()
}

fn are_same(one: &[Arc<RouteStatistics>], other: &[Arc<RouteStatistics>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
}

/// Builds the canary's key in the topic: another model or other steps make it another canary.
fn key(subject: &CanarySubject) -> String {
    let CanarySubject { endpoint, route, model_uri, canary, .. } = subject;
    let definition = xxh3_64(format!("{model_uri} {:?}", canary.steps).as_bytes());
    format!("canary/{endpoint}/{route}/{definition:016x}")
}
