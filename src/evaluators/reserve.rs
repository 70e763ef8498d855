//! The evaluator that is ready to take the place of one that is lost.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::Shared;
use super::evaluator::{Evaluator, StartError};
use crate::routing::ConditionError;
use crate::telemetry::ReadinessPart;

/// Time until a failed start is tried again. The template itself waits longer after each failure.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Time for which processes may end before they are ready, one after the other, before that counts as a failure: they may
/// be killed by anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time until another process is forked, after one has ended before it was ready.
const FORK_DELAY: Duration = Duration::from_millis(20);

/// The place of one evaluator, which is filled again once that one is taken.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    state: Mutex<ReserveState>,
    /// Wakes a seat that waits for an evaluator.
    filled: Notify,
    /// Wakes the task that fills the place.
    taken: Notify,
}

#[derive(Debug, Default)]
struct ReserveState {
    evaluator: Option<Evaluator>,
    /// The error of those who ask while no evaluator runs, and none can be started.
    failure: Option<ConditionError>,
}

impl Reserve {
    /// Takes the evaluator, or waits for one.
    pub(super) async fn take(&self) -> Evaluator {
        loop {
            let filled = self.filled.notified();
            let taken = self.state.lock().evaluator.take();
            match taken {
                Some(evaluator) => {
                    self.taken.notify_one();
                    if !evaluator.is_gone() {
                        return evaluator;
                    }
                }
                None => filled.await,
            }
        }
    }

    /// Returns the error of those who ask while no evaluator runs and none can be started.
    pub(super) fn failure(&self) -> Option<ConditionError> {
        self.state.lock().failure.clone()
    }
}

/// Keeps an evaluator in reserve, for as long as it is polled.
pub(super) async fn fill(shared: Arc<Shared>, part: ReadinessPart) {
    let (reserve, mut lost_since) = (&shared.reserve, None);
    loop {
        let gone = reserve.state.lock().evaluator.as_ref().map(Evaluator::gone);
        if let Some(gone) = gone {
            tokio::select! {
                () = reserve.taken.notified() => {}
                () = gone => {}
            }
            drop(reserve.state.lock().evaluator.take_if(|evaluator| evaluator.is_gone()));
            continue;
        }
        match Evaluator::start(&shared.template, &shared.begin, &shared.metrics.evaluators).await {
            Ok(evaluator) => {
                let mut state = reserve.state.lock();
                (state.evaluator, state.failure) = (Some(evaluator), None);
                drop(state);
                part.ready();
                lost_since = None;
                reserve.filled.notify_one();
            }
            Err(StartError::Lost(_)) if lost_since.get_or_insert_with(Instant::now).elapsed() < PATIENCE => {
                sleep(FORK_DELAY).await;
            }
            Err(error) => {
                tracing::warn!(%error, "no evaluator of conditions can be started");
                if shared.metrics.evaluators.get() == 0 {
                    shared.fail(&part, error.to_string());
                }
                sleep(RETRY_DELAY).await;
            }
        }
    }
}

impl Shared {
    /// Fails all that wait, and all that ask before an evaluator runs again.
    fn fail(&self, part: &ReadinessPart, reason: String) {
        part.waits_for(reason);
        // The reason names files of this machine, which callers are not told.
        let error = ConditionError::Unavailable("no Python process can be started that evaluates it".to_owned());
        self.reserve.state.lock().failure = Some(error.clone());
        for job in self.queue.drain() {
            job.fail(&error);
        }
    }
}
