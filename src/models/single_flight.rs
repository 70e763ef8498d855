//! One thing that is loaded on first use, once, however many wait for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio::time::Instant;

use super::backoff::{Backoff, LoadStep};
use crate::message::{Code, Fault, Stage};

/// One thing that is loaded on first use. Reading it when it is there is one atomic load.
#[derive(Debug)]
pub(super) struct SingleFlight<T> {
    ready: ArcSwapOption<T>,
    state: Mutex<FlightState<T>>,
}

#[derive(Debug)]
struct FlightState<T> {
    phase: FlightPhase<T>,
    backoff: Backoff,
}

#[derive(Debug)]
enum FlightPhase<T> {
    /// Nobody has asked, or it is there.
    Idle,
    Loading(watch::Receiver<FlightOutcome<T>>),
    /// Whoever asks before then gets this fault at once.
    Failed {
        fault: Fault,
        since: Instant,
        until: Instant,
    },
}

type FlightOutcome<T> = Option<Result<Arc<T>, Fault>>;

/// What someone who needs the thing finds.
#[derive(Debug)]
pub(super) enum Lookup<T> {
    /// The thing.
    Ready(Arc<T>),
    /// Someone loads it.
    Loading(LoadWaiter<T>),
    /// Nobody does: whoever got this must load it, and say what came of it.
    Missing(LoadToken<T>, LoadWaiter<T>),
    /// It could not be loaded a moment ago.
    Failed(Fault),
}

/// The duty to load. Dropped without a word, it falls to the next who asks.
#[derive(Debug)]
pub(super) struct LoadToken<T> {
    flight: Arc<SingleFlight<T>>,
    outcome: watch::Sender<FlightOutcome<T>>,
}

/// A place in the queue of those who wait for a load.
#[derive(Debug)]
pub(super) struct LoadWaiter<T>(watch::Receiver<FlightOutcome<T>>);

impl<T> SingleFlight<T> {
    /// With nothing in it.
    pub(super) fn empty() -> Arc<Self> {
        let state = Mutex::new(FlightState { phase: FlightPhase::Idle, backoff: Backoff::default() });
        Arc::new(Self { ready: ArcSwapOption::empty(), state })
    }

    /// What is in it.
    pub(super) fn get(&self) -> Option<Arc<T>> {
        self.ready.load_full()
    }

    /// What is in it, or who sees to that.
    pub(super) fn lookup(self: &Arc<Self>, now: Instant) -> Lookup<T> {
        let mut state = self.state();
        if let Some(thing) = self.get() {
            return Lookup::Ready(thing);
        }
        match &state.phase {
            // An error means that the one who was loading is gone without a word.
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

    /// Takes this thing out, if it is still what is in there.
    pub(super) fn remove(&self, thing: &Arc<T>) {
        let _state = self.state();
        if self.get().is_some_and(|current| Arc::ptr_eq(&current, thing)) {
            self.ready.store(None);
        }
    }

    /// Puts another thing in the place of what is in it, and returns that.
    pub(super) fn replace(&self, thing: Arc<T>) -> Option<Arc<T>> {
        let mut state = self.state();
        state.phase = FlightPhase::Idle;
        state.backoff.record_load();
        self.ready.swap(Some(thing))
    }

    /// What is in it works.
    pub(super) fn record_alive(&self) {
        self.state().backoff.record_alive();
    }

    /// Takes this thing out, if it is still what is in there, for it no longer works: whoever asks soon gets the fault.
    pub(super) fn fail_ready(&self, thing: &Arc<T>, mut fault: Fault, step: LoadStep, now: Instant) {
        let mut state = self.state();
        if self.get().is_some_and(|current| Arc::ptr_eq(&current, thing)) {
            self.ready.store(None);
            state.remember(&mut fault, step, now);
        }
    }

    /// Why it is empty, if it could not be filled the last time.
    pub(super) fn failure(&self) -> Option<Fault> {
        match &self.state().phase {
            FlightPhase::Failed { fault, .. } => Some(fault.clone()),
            FlightPhase::Idle | FlightPhase::Loading(_) => None,
        }
    }

    /// Whether someone fills it now.
    pub(super) fn is_loading(&self) -> bool {
        matches!(&self.state().phase, FlightPhase::Loading(outcome) if outcome.has_changed().is_ok())
    }

    fn state(&self) -> MutexGuard<'_, FlightState<T>> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> FlightState<T> {
    /// From now on, and for a while, whoever asks gets this fault.
    fn remember(&mut self, fault: &mut Fault, step: LoadStep, now: Instant) {
        let remembered = self.backoff.record_failure(step);
        if fault.retryable {
            // Room may come at any moment, so it is asked for again before it can be promised.
            fault.retry_after = fault.retry_after.filter(|_| step == LoadStep::Room).or(Some(remembered));
        }
        self.phase = FlightPhase::Failed { fault: fault.clone(), since: now, until: now + remembered };
    }
}

impl<T> LoadToken<T> {
    /// It is loaded: everyone who waits gets it.
    pub(super) fn finish(self, thing: Arc<T>) {
        let mut state = self.flight.state();
        self.flight.ready.store(Some(Arc::clone(&thing)));
        state.phase = FlightPhase::Idle;
        state.backoff.record_load();
        drop(state);
        self.outcome.send_replace(Some(Ok(thing)));
    }

    /// It cannot be loaded: everyone who waits gets the fault, and so does whoever asks soon.
    pub(super) fn fail(self, mut fault: Fault, step: LoadStep, now: Instant) {
        self.flight.state().remember(&mut fault, step, now);
        self.outcome.send_replace(Some(Err(fault)));
    }
}

impl<T> LoadWaiter<T> {
    /// Waits until it is loaded, or cannot be.
    pub(super) async fn outcome(mut self) -> Result<Arc<T>, Fault> {
        match self.0.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
            Ok(Some(outcome)) => outcome,
            Ok(None) | Err(_) => {
                let message = "the model's loading was interrupted; Signalbox is stopping, or its log says why";
                Err(Fault::passing(Code::TemporarilyUnavailable, Stage::Load, message))
            }
        }
    }
}

#[cfg(test)]
mod tests;
