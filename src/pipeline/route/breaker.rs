//! The circuit breaker of a route: the policy with a clock, a log and metrics.

use parking_lot::Mutex;
use std::sync::Arc;

use prometheus::{IntCounter, IntGauge};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::config;
use crate::invocation::breaker::{Breaker, BreakerOpen, BreakerPhase, CallOutcome, CallPass};
use crate::invocation::in_words;
use crate::message::{Code, Fault, Stage};
use crate::telemetry::Metrics;

/// Shares a circuit breaker between the calls of one route.
pub(in crate::pipeline) struct RouteBreaker {
    endpoint: Arc<str>,
    route: Arc<str>,
    /// Policy, locked for the moment that it takes to count, never over a call.
    policy: Mutex<Breaker>,
    begin: Instant,
    state: IntGauge,
    /// Changes of the state, by the [`BreakerPhase`] that they led to.
    transitions: [IntCounter; 3],
}

/// Permits one call. A permit that is dropped before its call has ended counts for nothing.
pub(in crate::pipeline) struct BreakerPermit<'a> {
    breaker: &'a RouteBreaker,
    pass: Option<CallPass>,
    ended: Option<CallOutcome>,
}

impl RouteBreaker {
    /// Begins closed.
    pub(super) fn new(policy: config::Breaker, endpoint: &str, route: &str, metrics: &Metrics) -> Self {
        let to = |phase: BreakerPhase| metrics.breaker_transitions.with_label_values(&[endpoint, route, phase.name()]);
        let state = metrics.breaker_state.with_label_values(&[endpoint, route]);
        state.set(BreakerPhase::Closed as i64);
        Self {
            endpoint: endpoint.into(),
            route: route.into(),
            policy: Mutex::new(Breaker::new(policy)),
            begin: Instant::now(),
            state,
            transitions: [BreakerPhase::Closed, BreakerPhase::HalfOpen, BreakerPhase::Open].map(to),
        }
    }

    /// Tells whether a call would be refused now.
    pub(super) fn refuses(&self) -> bool {
        self.policy.lock().refuses(self.begin.elapsed())
    }

    /// Lets a call through, or refuses it.
    ///
    /// # Errors
    /// When the breaker is open; the fault says since when, why, and when to come back.
    pub(in crate::pipeline) fn admit(&self) -> Result<BreakerPermit<'_>, Fault> {
        let mut policy = self.policy.lock();
        let before = policy.phase();
        let admitted = policy.admit(self.begin.elapsed());
        self.report(&policy, before);
        drop(policy);
        let pass = admitted.map_err(|refusal| self.refused(&refusal))?;
        Ok(BreakerPermit { breaker: self, pass: Some(pass), ended: None })
    }

    /// Reports a change of the state, under the lock, so that no other change comes before its report.
    fn report(&self, policy: &Breaker, before: BreakerPhase) {
        let phase = policy.phase();
        if phase == before {
            return;
        }
        self.state.set(phase as i64);
        self.transitions[phase as usize].inc();
        let (endpoint, route) = (&*self.endpoint, &*self.route);
        let why = policy.trip().map(ToString::to_string).unwrap_or_default();
        match (before, phase) {
            (BreakerPhase::Closed, _) => warn!(endpoint, route, why, "breaker opened"),
            (_, BreakerPhase::Open) => info!(endpoint, route, why, "breaker stays open"),
            (_, BreakerPhase::HalfOpen) => debug!(endpoint, route, "breaker lets a probe through"),
            (_, BreakerPhase::Closed) => info!(endpoint, route, "breaker closed"),
        }
    }

    fn refused(&self, refusal: &BreakerOpen) -> Fault {
        let message = format!(
            "route `{}` of endpoint `{}` is not called: its breaker has been open for {}, since {}",
            self.route,
            self.endpoint,
            in_words(refusal.open_for),
            refusal.trip
        );
        Fault::passing(Code::TemporarilyUnavailable, Stage::Invoke, message).with_retry_after(refusal.left)
    }
}

/// Resets the metric of a route that a new configuration no longer has, or has otherwise.
impl Drop for RouteBreaker {
    fn drop(&mut self) {
        if self.policy.lock().phase() != BreakerPhase::Closed {
            self.state.set(BreakerPhase::Closed as i64);
        }
    }
}

impl BreakerPermit<'_> {
    /// Renews a permit some time later: if the breaker has opened since, the call has to be admitted once more.
    pub(in crate::pipeline) fn renew(self) -> Result<Self, Fault> {
        let is_valid = self.pass.as_ref().is_some_and(|pass| self.breaker.policy.lock().is_valid(pass));
        if is_valid { Ok(self) } else { self.breaker.admit() }
    }

    /// Ends the call; `None` when nothing can be concluded from it.
    pub(in crate::pipeline) fn end(mut self, ended: Option<CallOutcome>) {
        self.ended = ended;
    }
}

impl Drop for BreakerPermit<'_> {
    fn drop(&mut self) {
        let Some(pass) = self.pass.take() else { return };
        let mut policy = self.breaker.policy.lock();
        let before = policy.phase();
        policy.end(pass, self.breaker.begin.elapsed(), self.ended);
        self.breaker.report(&policy, before);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const FAILED: Option<CallOutcome> = Some(CallOutcome { failed: true, took: Duration::ZERO });
    const ANSWERED: Option<CallOutcome> = Some(CallOutcome { failed: false, took: Duration::ZERO });

    fn breaker(metrics: &Metrics) -> RouteBreaker {
        let policy = config::Breaker { minimum_calls: 2, probes: 1, ..config::Breaker::default() };
        RouteBreaker::new(policy, "e", "main", metrics)
    }

    fn metric(metrics: &Metrics, line: &str) -> bool {
        metrics.encode().unwrap().lines().any(|found| found == line)
    }

    #[test]
    fn refusal_names_route_time_and_reason() {
        let metrics = Metrics::new().unwrap();
        let mut breaker = breaker(&metrics);
        breaker.admit().unwrap().end(FAILED);
        breaker.admit().unwrap().end(FAILED);
        breaker.begin -= Duration::from_secs(3);
        assert!(breaker.refuses());
        let fault = breaker.admit().err().unwrap();
        assert_eq!((fault.code, fault.stage), (Code::TemporarilyUnavailable, Stage::Invoke));
        assert!(fault.retry_after.is_some_and(|left| left <= Duration::from_secs(2) && !left.is_zero()), "{fault:?}");
        let words = [
            "route `main` of endpoint `e` is not called: its breaker has been open for 3",
            "s, since 2 of 2 calls failed",
        ];
        assert!(fault.message.starts_with(words[0]) && fault.message.ends_with(words[1]), "{fault}");
        assert!(metric(&metrics, r#"signalbox_breaker_state{endpoint="e",route="main"} 2"#));
        drop(breaker);
        assert!(metric(&metrics, r#"signalbox_breaker_state{endpoint="e",route="main"} 0"#));
    }

    #[test]
    fn renewal_fails_when_breaker_opened_meanwhile() {
        let metrics = Metrics::new().unwrap();
        let breaker = breaker(&metrics);
        let [waiting, waiting_longer] = [(); 2].map(|()| breaker.admit().unwrap().pass.take());
        breaker.admit().unwrap().end(ANSWERED);
        let renewed = BreakerPermit { breaker: &breaker, pass: waiting, ended: None }.renew().unwrap();
        renewed.end(FAILED);
        assert!(BreakerPermit { breaker: &breaker, pass: waiting_longer, ended: None }.renew().is_err());
    }

    #[test]
    fn breaker_admits_next_probe_when_one_is_dropped() {
        let metrics = Metrics::new().unwrap();
        let mut breaker = breaker(&metrics);
        breaker.admit().unwrap().end(FAILED);
        breaker.admit().unwrap().end(FAILED);
        breaker.begin -= Duration::from_secs(5);
        let lost = breaker.admit().unwrap();
        assert!(breaker.admit().is_err());
        assert!(metric(&metrics, r#"signalbox_breaker_state{endpoint="e",route="main"} 1"#));
        drop(lost);
        breaker.admit().unwrap().end(ANSWERED);
        assert!(metric(&metrics, r#"signalbox_breaker_state{endpoint="e",route="main"} 0"#));
        let closed = r#"signalbox_breaker_transitions_total{endpoint="e",route="main",to="closed"} 1"#;
        assert!(metric(&metrics, closed), "{}", metrics.encode().unwrap());
    }
}
