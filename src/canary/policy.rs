//! When a canary's share moves: up while it does well, and back to nothing when it does not. Pure: no clock, no I/O.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::statistics::ObservationWindow;
use crate::config::{AbortIf, Canary};

/// Percentiles closer than this are not told apart, however small they are.
const P95_RESOLUTION: Duration = Duration::from_millis(1);

/// Where a canary stands. All instances that run the same definition of it agree on one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryState {
    /// How often it was begun again.
    pub generation: u32,
    /// What it is doing.
    pub phase: CanaryPhase,
    /// The index of its step, or of the one it was taken back from.
    pub step: usize,
    /// Unix time in milliseconds since when.
    pub since: u64,
    /// Why it was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a canary is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CanaryPhase {
    /// It is at one of its steps.
    Rolling,
    /// It has passed its last step, and stays there.
    Done,
    /// It was taken back.
    Aborted,
}

/// What a comparison with the other routes says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CanaryVerdict {
    /// Nothing yet.
    TooFew,
    /// It does as well as they do.
    Good,
    /// It does not, and why.
    Bad(String),
}

impl CanaryState {
    /// At the first step.
    pub(super) fn first(generation: u32, now: u64) -> Self {
        Self { generation, phase: CanaryPhase::Rolling, step: 0, since: now, reason: None }
    }

    /// Taken back from where it stands.
    pub(super) fn aborted(&self, reason: String, now: u64) -> Self {
        Self { phase: CanaryPhase::Aborted, since: now, reason: Some(reason), ..self.clone() }
    }

    /// The share of what no condition took, from 0 to 1.
    pub(super) fn share(&self, canary: &Canary) -> f64 {
        let step = canary.steps.get(self.step).or(canary.steps.last());
        match self.phase {
            CanaryPhase::Aborted => 0.0,
            CanaryPhase::Rolling | CanaryPhase::Done => step.map_or(0.0, |percent| percent / 100.0),
        }
    }

    /// Whether it takes the place of an earlier record. Instances write without asking each other, so of two records
    /// the one that has gone further holds, whichever comes first.
    pub(super) fn supersedes(&self, other: &Self) -> bool {
        self.rank() >= other.rank()
    }

    fn rank(&self) -> (u32, bool, usize, CanaryPhase) {
        (self.generation, self.phase == CanaryPhase::Aborted, self.step, self.phase)
    }

    /// Where it goes from here, if it goes anywhere.
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

/// Compares what a canary did at a step with what the others did meanwhile.
pub(super) fn judge(abort_if: &AbortIf, canary: &ObservationWindow, others: &ObservationWindow) -> CanaryVerdict {
    if canary.calls < abort_if.minimum_calls as u64 {
        return CanaryVerdict::TooFew;
    }
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
    fn it_moves_up_step_by_step_and_stays() {
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
    fn too_few_calls_conclude_nothing() {
        let state = CanaryState::first(0, 0);
        assert_eq!(judge(&AbortIf::default(), &window(49, 49, 900), &window(1000, 0, 1)), CanaryVerdict::TooFew);
        assert_eq!(state.next(&canary(), CanaryVerdict::TooFew, u64::MAX), None);
    }

    #[test]
    fn it_goes_back_for_errors_or_latency() {
        let abort_if = AbortIf::default();
        let verdict = |canary, others| judge(&abort_if, &canary, &others);
        assert_eq!(verdict(window(100, 2, 10), window(900, 0, 10)), CanaryVerdict::Good);
        assert!(
            matches!(verdict(window(100, 3, 10), window(900, 0, 10)), CanaryVerdict::Bad(why) if why.contains("3.0 %"))
        );
        // What fails everywhere is not its fault.
        assert_eq!(verdict(window(100, 50, 10), window(900, 450, 10)), CanaryVerdict::Good);
        assert_eq!(verdict(window(100, 0, 15), window(900, 0, 10)), CanaryVerdict::Good);
        assert!(
            matches!(verdict(window(100, 0, 16), window(900, 0, 10)), CanaryVerdict::Bad(why) if why.contains("1.6 times"))
        );
        // Nobody is left to compare with.
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
        /// However the records of several instances are interleaved, all who read them end at one share; and so does
        /// whoever finds only the one that a compacted topic has kept, once those who know better have repeated it.
        #[test]
        fn all_who_read_agree(records in prop::collection::vec(standings(), 1..20)) {
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
