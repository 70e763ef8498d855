//! One thing that is loaded on first use, once, however many wait for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio::time::Instant;

use super::backoff::{Backoff, Step};
use crate::message::{Code, Fault, Stage};

/// One thing that is loaded on first use. Reading it when it is there is one atomic load.
#[derive(Debug)]
pub(super) struct Slot<T> {
    ready: ArcSwapOption<T>,
    progress: Mutex<Progress<T>>,
}

#[derive(Debug)]
struct Progress<T> {
    phase: Phase<T>,
    backoff: Backoff,
}

#[derive(Debug)]
enum Phase<T> {
    /// Nobody has asked, or it is there.
    Idle,
    Loading(watch::Receiver<Outcome<T>>),
    /// Whoever asks before then gets this fault at once.
    Failed {
        fault: Fault,
        since: Instant,
        until: Instant,
    },
}

type Outcome<T> = Option<Result<Arc<T>, Fault>>;

/// What someone who needs the thing finds.
#[derive(Debug)]
pub(super) enum Found<T> {
    /// The thing.
    Ready(Arc<T>),
    /// Someone loads it.
    Loading(Waiting<T>),
    /// Nobody does: whoever got this must load it, and say what came of it.
    Missing(Loading<T>, Waiting<T>),
    /// It could not be loaded a moment ago.
    Failed(Fault),
}

/// The duty to load. Dropped without a word, it falls to the next who asks.
#[derive(Debug)]
pub(super) struct Loading<T> {
    slot: Arc<Slot<T>>,
    outcome: watch::Sender<Outcome<T>>,
}

/// A place in the queue of those who wait for a load.
#[derive(Debug)]
pub(super) struct Waiting<T>(watch::Receiver<Outcome<T>>);

impl<T> Slot<T> {
    /// With nothing in it.
    pub(super) fn empty() -> Arc<Self> {
        let progress = Mutex::new(Progress { phase: Phase::Idle, backoff: Backoff::default() });
        Arc::new(Self { ready: ArcSwapOption::empty(), progress })
    }

    /// What is in it.
    pub(super) fn get(&self) -> Option<Arc<T>> {
        self.ready.load_full()
    }

    /// What is in it, or who sees to that.
    pub(super) fn find(self: &Arc<Self>, now: Instant) -> Found<T> {
        let mut progress = self.progress();
        if let Some(thing) = self.get() {
            return Found::Ready(thing);
        }
        match &progress.phase {
            // An error means that the one who was loading is gone without a word.
            Phase::Loading(outcome) if outcome.has_changed().is_ok() => {
                return Found::Loading(Waiting(outcome.clone()));
            }
            Phase::Failed { fault, since, until } if now < *until => {
                let mut fault = fault.clone();
                fault.retry_after = fault.retry_after.map(|after| after.saturating_sub(now - *since));
                return Found::Failed(fault);
            }
            Phase::Idle | Phase::Loading(_) | Phase::Failed { .. } => {}
        }
        let (sender, receiver) = watch::channel(None);
        progress.phase = Phase::Loading(receiver.clone());
        Found::Missing(Loading { slot: Arc::clone(self), outcome: sender }, Waiting(receiver))
    }

    /// Takes this thing out, if it is still what is in there.
    pub(super) fn remove(&self, thing: &Arc<T>) {
        let _progress = self.progress();
        if self.get().is_some_and(|current| Arc::ptr_eq(&current, thing)) {
            self.ready.store(None);
        }
    }

    /// Puts another thing in the place of what is in it, and returns that.
    pub(super) fn put(&self, thing: Arc<T>) -> Option<Arc<T>> {
        let mut progress = self.progress();
        progress.phase = Phase::Idle;
        progress.backoff.loaded();
        self.ready.swap(Some(thing))
    }

    /// What is in it works.
    pub(super) fn works(&self) {
        self.progress().backoff.alive();
    }

    /// Takes this thing out, if it is still what is in there, for it no longer works: whoever asks soon gets the fault.
    pub(super) fn spoil(&self, thing: &Arc<T>, mut fault: Fault, step: Step, now: Instant) {
        let mut progress = self.progress();
        if self.get().is_some_and(|current| Arc::ptr_eq(&current, thing)) {
            self.ready.store(None);
            progress.remember(&mut fault, step, now);
        }
    }

    /// Why it is empty, if it could not be filled the last time.
    pub(super) fn failure(&self) -> Option<Fault> {
        match &self.progress().phase {
            Phase::Failed { fault, .. } => Some(fault.clone()),
            Phase::Idle | Phase::Loading(_) => None,
        }
    }

    /// Whether someone fills it now.
    pub(super) fn is_loading(&self) -> bool {
        matches!(&self.progress().phase, Phase::Loading(outcome) if outcome.has_changed().is_ok())
    }

    fn progress(&self) -> MutexGuard<'_, Progress<T>> {
        // Nothing panics while it is held.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Progress<T> {
    /// From now on, and for a while, whoever asks gets this fault.
    fn remember(&mut self, fault: &mut Fault, step: Step, now: Instant) {
        let remembered = self.backoff.after(step);
        if fault.retryable {
            // Room may come at any moment, so it is asked for again before it can be promised.
            fault.retry_after = fault.retry_after.filter(|_| step == Step::Room).or(Some(remembered));
        }
        self.phase = Phase::Failed { fault: fault.clone(), since: now, until: now + remembered };
    }
}

impl<T> Loading<T> {
    /// It is loaded: everyone who waits gets it.
    pub(super) fn finish(self, thing: Arc<T>) {
        let mut progress = self.slot.progress();
        self.slot.ready.store(Some(Arc::clone(&thing)));
        progress.phase = Phase::Idle;
        progress.backoff.loaded();
        drop(progress);
        self.outcome.send_replace(Some(Ok(thing)));
    }

    /// It cannot be loaded: everyone who waits gets the fault, and so does whoever asks soon.
    pub(super) fn fail(self, mut fault: Fault, step: Step, now: Instant) {
        self.slot.progress().remember(&mut fault, step, now);
        self.outcome.send_replace(Some(Err(fault)));
    }
}

impl<T> Waiting<T> {
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
