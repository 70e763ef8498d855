//! The policy of a canary's share: up while the canary does well, and back to nothing when it does not. Pure: no clock,
//! no I/O.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::statistics::ObservationWindow;
use crate::config::{AbortIf, Canary};

/// Smallest difference between two percentiles that counts; without it the ratio of two tiny latencies would abort
/// canaries.
const P95_RESOLUTION: Duration = Duration::from_millis(1);

/// Holds the state of a canary. All instances that run the same definition of the canary agree on one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryState {
    /// The number of restarts.
    pub generation: u32,
    /// The phase of the rollout.
    pub phase: CanaryPhase,
    /// The index of the current step, or of the step at which the canary was aborted.
    pub step: usize,
    /// The time at which this state began, as Unix time in milliseconds.
    pub since: u64,
    /// The reason of an abort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Names the phase of a canary's rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CanaryPhase {
    /// The canary is at one of its steps.
    Rolling,
    /// The canary has passed its last step, and stays there.
    Done,
    /// The canary was taken back to no share.
    Aborted,
}

/// Holds the result of a comparison with the other routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CanaryVerdict {
    /// The canary has had too few requests to tell.
    TooFew,
    /// The canary does as well as the others.
    Good,
    /// The canary does worse than the others, for this reason.
    Bad(String),
}

impl CanaryState {
    /// Begins at the first step.
    pub(super) fn first(generation: u32, now: u64) -> Self {
        Self { generation, phase: CanaryPhase::Rolling, step: 0, since: now, reason: None }
    }

    /// Aborts from this state.
    pub(super) fn aborted(&self, reason: String, now: u64) -> Self {
        Self { phase: CanaryPhase::Aborted, since: now, reason: Some(reason), ..self.clone() }
    }

    /// Returns the share of what no condition took, from 0 to 1.
    pub(super) fn share(&self, canary: &Canary) -> f64 {
        let step = canary.steps.get(self.step).or(canary.steps.last());
        match self.phase {
            CanaryPhase::Aborted => 0.0,
            CanaryPhase::Rolling | CanaryPhase::Done => step.map_or(0.0, |percent| percent / 100.0),
        }
    }

    /// Tells whether this state takes the place of another. Instances write without asking each other, so of two states
    /// the one that has gone further holds, in whichever order they are read.
    pub(super) fn supersedes(&self, other: &Self) -> bool {
        self.rank() >= other.rank()
    }

    fn rank(&self) -> (u32, bool, usize, CanaryPhase) {
        (self.generation, self.phase == CanaryPhase::Aborted, self.step, self.phase)
    }

    /// Decides the next state, if the verdict leads to one.
    pub(super) fn next(&self, canary: &Canary, verdict: CanaryVerdict, now: u64) -> Option<Self> {
        match (self.phase, verdict) {
            (CanaryPhase::Aborted, _) | (_, CanaryVerdict::TooFew) | (CanaryPhase::Done, CanaryVerdict::Good) => None,
            (_, CanaryVerdict::Bad(reason)) => Some(self.aborted(reason, now)),
            (CanaryPhase::Rolling, CanaryVerdict::Good) => {
                let stayed = Duration::from_millis(now.saturating_sub(self.since));
                (stayed >= canary.every).then(|| self.passed(canary, now))
            }
        }
    }

    fn passed(&self, canary: &Canary, now: u64) -> Self {
        let is_last = self.step + 1 >= canary.steps.len();
        let (phase, step) =
            if is_last { (CanaryPhase::Done, self.step) } else { (CanaryPhase::Rolling, self.step + 1) };
        Self { phase, step, since: now, ..self.clone() }
    }
}

/// Compares a canary's requests at a step with the others' requests in the same time.
pub(super) fn judge(abort_if: &AbortIf, canary: &ObservationWindow, others: &ObservationWindow) -> CanaryVerdict {
    // A share of a few requests says nothing, good or bad.
    if canary.calls < abort_if.minimum_calls as u64 {
        return CanaryVerdict::TooFew;
    }
    // Errors are compared even with no request of the others: a canary's own failures are bad by themselves.
    let (share, usual) = (canary.failed_share(), others.failed_share());
    if share > usual + abort_if.error_share {
        return CanaryVerdict::Bad(format!(
            "{:.1} % of its {} requests failed, {:.1} % of the others'",
            100.0 * share,
            canary.calls,
            100.0 * usual
        ));
    }
    // An instance that has just started may have nothing to compare with.
    let comparable = others.calls >= abort_if.minimum_calls as u64;
    let limit = others.p95.mul_f64(abort_if.p95_ratio).max(others.p95 + P95_RESOLUTION);
    if comparable && canary.p95 > limit {
        let ratio = canary.p95.as_secs_f64() / others.p95.as_secs_f64().max(f64::MIN_POSITIVE);
        return CanaryVerdict::Bad(format!(
            "its 95th percentile is {:.1} times that of the others: {:.1} ms, {:.1} ms",
            ratio,
            1000.0 * canary.p95.as_secs_f64(),
            1000.0 * others.p95.as_secs_f64()
        ));
    }
    CanaryVerdict::Good
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canary() -> Canary {
        Canary { steps: vec![1.0, 5.0, 25.0, 100.0], every: Duration::from_secs(600), abort_if: AbortIf::default() }
    }

    fn window(calls: u64, failures: u64, p95: u64) -> ObservationWindow {
        ObservationWindow { calls, failures, p95: Duration::from_millis(p95) }
    }

    #[test]
    fn canary_moves_up_each_step_and_stays_at_last() {
        let canary = canary();
        let mut state = CanaryState::first(0, 0);
        let mut shares = vec![state.share(&canary)];
        for minutes in 1..=60 {
            let now = minutes * 60_000;
            if let Some(next) = state.next(&canary, CanaryVerdict::Good, now) {
                assert!(next.supersedes(&state) && !state.supersedes(&next), "{next:?}");
                assert_eq!(minutes % 10, 0);
                state = next;
                shares.push(state.share(&canary));
            }
        }
        assert_eq!(shares, [0.01, 0.05, 0.25, 1.0, 1.0]);
        assert_eq!(state.phase, CanaryPhase::Done);
    }

    #[test]
    fn verdict_is_too_few_below_minimum_calls() {
        let state = CanaryState::first(0, 0);
        assert_eq!(judge(&AbortIf::default(), &window(49, 49, 900), &window(1000, 0, 1)), CanaryVerdict::TooFew);
        assert_eq!(state.next(&canary(), CanaryVerdict::TooFew, u64::MAX), None);
    }

    #[test]
    fn canary_is_aborted_for_errors_or_latency() {
        let abort_if = AbortIf::default();
        let verdict = |canary, others| judge(&abort_if, &canary, &others);
        assert_eq!(verdict(window(100, 2, 10), window(900, 0, 10)), CanaryVerdict::Good);
        assert!(
            matches!(verdict(window(100, 3, 10), window(900, 0, 10)), CanaryVerdict::Bad(why) if why.contains("3.0 %"))
        );
        // A failure of all routes is not the canary's fault.
        assert_eq!(verdict(window(100, 50, 10), window(900, 450, 10)), CanaryVerdict::Good);
        assert_eq!(verdict(window(100, 0, 15), window(900, 0, 10)), CanaryVerdict::Good);
        assert!(
            matches!(verdict(window(100, 0, 16), window(900, 0, 10)), CanaryVerdict::Bad(why) if why.contains("1.6 times"))
        );
        // The others have too few requests for a comparison of latencies.
        assert_eq!(verdict(window(100, 0, 900), window(3, 0, 10)), CanaryVerdict::Good);
        assert!(matches!(verdict(window(100, 3, 900), window(0, 0, 0)), CanaryVerdict::Bad(_)));
        // A fraction of a millisecond is nothing.
        let canary = ObservationWindow { p95: Duration::from_micros(900), ..window(100, 0, 0) };
        let others = ObservationWindow { p95: Duration::from_micros(100), ..window(100, 0, 0) };
        assert_eq!(verdict(canary, others), CanaryVerdict::Good);

        let back = CanaryState::first(0, 0).next(&self::canary(), CanaryVerdict::Bad("slow".into()), 5).unwrap();
        assert_eq!((back.share(&self::canary()), back.phase, back.since), (0.0, CanaryPhase::Aborted, 5));
        assert_eq!(back.next(&self::canary(), CanaryVerdict::Good, u64::MAX), None);
        assert!(CanaryState::first(1, 9).supersedes(&back) && !back.supersedes(&CanaryState::first(1, 9)));
    }

    prop_compose! {
        fn standings()(generation in 0..3_u32, phase in 0..3_u8, step in 0..4_usize, since in 0..9_u64) -> CanaryState {
            let phase = [CanaryPhase::Rolling, CanaryPhase::Done, CanaryPhase::Aborted][usize::from(phase)];
            CanaryState { generation, phase, step, since, reason: None }
        }
    }

    proptest! {
        /// Interleaves the records of several instances: all readers end at one share. So does a reader that finds only
        /// the record that compaction has kept, once an instance that knows better has repeated the state that holds.
        #[test]
        fn all_readers_agree_in_any_order(records in prop::collection::vec(standings(), 1..20)) {
            let fold = |records: &[CanaryState]| {
                let mut held = records[0].clone();
                for record in &records[1..] {
                    if record.supersedes(&held) {
                        held = record.clone();
                    }
                }
                held
            };
            let held = fold(&records);
            let repaired = [records.last().unwrap().clone(), held.clone()];
            prop_assert_eq!(&fold(&repaired), &held);
            let mut reversed = records;
            reversed.reverse();
            prop_assert_eq!(fold(&reversed).rank(), held.rank());
        }
    }
}
