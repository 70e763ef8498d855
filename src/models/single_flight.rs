//! Single flight: one value that is loaded on first use, once, however many callers wait for it.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio::time::Instant;

use super::faults::unavailable;
use crate::invocation::Backoff;
use crate::message::Fault;

/// Times for which a load that failed, or a crash, is remembered, in which callers get its fault at once.
const LOADS: Backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(60) };

/// Times for which it is remembered that a URI could not be resolved.
const RESOLUTIONS: Backoff = Backoff { longest: Duration::from_secs(5), ..LOADS };

/// Single flight for one value that is loaded on first use. Reading it when it is there is one atomic load.
#[derive(Debug)]
pub(super) struct SingleFlight<T> {
    ready: ArcSwapOption<T>,
    state: Mutex<FlightState<T>>,
}

#[derive(Debug)]
struct FlightState<T> {
    phase: FlightPhase<T>,
    /// The failures in a row to load the value.
    failures: u32,
    /// The crashes in a row; a load does not reset them, for it is no sign that the model will stay alive.
    crashes: u32,
}

#[derive(Debug)]
enum FlightPhase<T> {
    /// No caller has asked yet, or the value is there.
    Idle,
    Loading(watch::Receiver<FlightOutcome<T>>),
    /// Callers before `until` get this fault at once.
    Failed {
        fault: Fault,
        since: Instant,
        until: Instant,
    },
}

/// Step of a load that failed, which decides how expensive it is to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoadStep {
    /// Asking the registry. This is cheap, and often put right by moving a stage, so it is tried again soon.
    Resolve,
    /// Fetching the artifacts and loading them: seconds of a processor.
    Start,
    /// Finding room in memory, which the next moment may bring.
    Room,
    /// Staying alive: the model had been loaded, and its processes ended.
    Crash,
}

type FlightOutcome<T> = Option<Result<Arc<T>, Fault>>;

/// Result of a lookup by a caller who needs the value.
#[derive(Debug)]
pub(super) enum Lookup<T> {
    /// The value is there.
    Ready(Arc<T>),
    /// Another caller loads it.
    Loading(LoadWaiter<T>),
    /// No caller loads it yet: the caller who gets the token must load it, and finish or fail the token.
    Missing(LoadToken<T>, LoadWaiter<T>),
    /// Loading failed a moment ago.
    Failed(Fault),
}

/// Duty to load the value. Dropped without a result, the duty falls to the next caller.
#[derive(Debug)]
pub(super) struct LoadToken<T> {
    flight: Arc<SingleFlight<T>>,
    outcome: watch::Sender<FlightOutcome<T>>,
}

/// Place in the queue of the callers that wait for a load.
#[derive(Debug)]
pub(super) struct LoadWaiter<T>(watch::Receiver<FlightOutcome<T>>);

impl<T> SingleFlight<T> {
    /// Builds a single flight without a value.
    pub(super) fn empty() -> Arc<Self> {
        Arc::new(Self { ready: ArcSwapOption::empty(), state: Mutex::default() })
    }

    /// Returns the value, if it is there.
    pub(super) fn get(&self) -> Option<Arc<T>> {
        self.ready.load_full()
    }

    /// Looks the value up; the first caller of a value that is not there gets the token to load it.
    pub(super) fn lookup(self: &Arc<Self>, now: Instant) -> Lookup<T> {
        let mut state = self.state.lock();
        if let Some(thing) = self.get() {
            return Lookup::Ready(thing);
        }
        match &state.phase {
            // An error means that the loading task is gone without a result.
            FlightPhase::Loading(outcome) if outcome.has_changed().is_ok() => {
                return Lookup::Loading(LoadWaiter(outcome.clone()));
            }
            FlightPhase::Failed { fault, since, until } if now < *until => {
                let mut fault = fault.clone();
                fault.retry_after = fault.retry_after.map(|after| after.saturating_sub(now - *since));
                return Lookup::Failed(fault);
            }
            FlightPhase::Idle | FlightPhase::Loading(_) | FlightPhase::Failed { .. } => {}
        }
        let (sender, receiver) = watch::channel(None);
        state.phase = FlightPhase::Loading(receiver.clone());
        Lookup::Missing(LoadToken { flight: Arc::clone(self), outcome: sender }, LoadWaiter(receiver))
    }

    /// Takes this value out, if it is still the current one.
    pub(super) fn remove(&self, thing: &Arc<T>) {
        let _state = self.state.lock();
        if self.get().is_some_and(|current| Arc::ptr_eq(&current, thing)) {
            self.ready.store(None);
        }
    }

    /// Replaces the value by another.
    pub(super) fn replace(&self, thing: Arc<T>) {
        let mut state = self.state.lock();
        (state.phase, state.failures) = (FlightPhase::Idle, 0);
        self.ready.store(Some(thing));
    }

    /// Records that the value works, so that its next crash counts as the first.
    pub(super) fn record_alive(&self) {
        self.state.lock().crashes = 0;
    }

    /// Takes this value out, if it is still the current one, because it no longer works: callers that come soon get the
    /// fault.
    pub(super) fn fail_ready(&self, thing: &Arc<T>, mut fault: Fault, step: LoadStep, now: Instant) {
        let mut state = self.state.lock();
        if self.get().is_some_and(|current| Arc::ptr_eq(&current, thing)) {
            self.ready.store(None);
            state.remember(&mut fault, step, now);
        }
    }

    /// Returns the fault of the last load, if that failed and no other has begun.
    pub(super) fn failure(&self) -> Option<Fault> {
        match &self.state.lock().phase {
            FlightPhase::Failed { fault, .. } => Some(fault.clone()),
            FlightPhase::Idle | FlightPhase::Loading(_) => None,
        }
    }

    /// Tells whether the value is being loaded.
    pub(super) fn is_loading(&self) -> bool {
        matches!(&self.state.lock().phase, FlightPhase::Loading(outcome) if outcome.has_changed().is_ok())
    }
}

impl<T> Default for FlightState<T> {
    fn default() -> Self {
        Self { phase: FlightPhase::Idle, failures: 0, crashes: 0 }
    }
}

impl<T> FlightState<T> {
    /// Counts a failure, and returns the time for which it is remembered.
    fn record_failure(&mut self, step: LoadStep) -> Duration {
        let (count, backoff) = match step {
            LoadStep::Resolve => (&mut self.failures, RESOLUTIONS),
            LoadStep::Start => (&mut self.failures, LOADS),
            LoadStep::Crash => (&mut self.crashes, LOADS),
            LoadStep::Room => return LOADS.first,
        };
        *count = count.saturating_add(1);
        backoff.pause(*count)
    }

    /// Remembers a fault for a while: callers that come soon get it at once.
    fn remember(&mut self, fault: &mut Fault, step: LoadStep, now: Instant) {
        let remembered = self.record_failure(step);
        if fault.retryable {
            // Room may come at any moment, so a load is tried again before the time that the policy could promise.
            fault.retry_after = fault.retry_after.filter(|_| step == LoadStep::Room).or(Some(remembered));
        }
        self.phase = FlightPhase::Failed { fault: fault.clone(), since: now, until: now + remembered };
    }
}

impl<T> LoadToken<T> {
    /// Publishes the value: every waiting caller gets it.
    pub(super) fn finish(self, thing: Arc<T>) {
        let mut state = self.flight.state.lock();
        self.flight.ready.store(Some(Arc::clone(&thing)));
        (state.phase, state.failures) = (FlightPhase::Idle, 0);
        drop(state);
        self.outcome.send_replace(Some(Ok(thing)));
    }

    /// Publishes the fault: every waiting caller gets it, and so do callers that come soon.
    pub(super) fn fail(self, mut fault: Fault, step: LoadStep, now: Instant) {
        self.flight.state.lock().remember(&mut fault, step, now);
        self.outcome.send_replace(Some(Err(fault)));
    }
}

impl<T> LoadWaiter<T> {
    /// Waits until the value is loaded, or cannot be.
    pub(super) async fn outcome(mut self) -> Result<Arc<T>, Fault> {
        match self.0.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
            Ok(Some(outcome)) => outcome,
            Ok(None) | Err(_) => {
                Err(unavailable("the model's loading was interrupted; Signalbox is stopping, or its log says why"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
