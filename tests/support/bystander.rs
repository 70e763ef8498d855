//! Calls a well-behaved model all the time, as a caller who minds their own business, and notices when others disturb
//! the calls.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Caller;

/// Calls one endpoint, one call after the other, until the test asks for its report.
pub(crate) struct Bystander {
    stop: CancellationToken,
    calling: JoinHandle<Vec<Duration>>,
}

/// Holds percentiles of the calls' latencies.
#[derive(Debug)]
pub(crate) struct Latencies {
    pub(crate) calls: usize,
    pub(crate) median: Duration,
    pub(crate) worst: Duration,
}

impl Bystander {
    /// Begins to call. Each call must be answered with a prediction.
    pub(crate) fn calling(caller: &Caller, endpoint: &'static str, payload: Value) -> Self {
        let (caller, stop) = (caller.clone(), CancellationToken::new());
        let stopped = stop.clone();
        let calling = tokio::spawn(async move {
            let mut took = Vec::new();
            while !stopped.is_cancelled() {
                let answer = caller.ask(endpoint, &payload).await;
                assert_eq!(answer.status, 200, "a bystander's call {}: {}", took.len(), answer.text());
                took.push(answer.took);
            }
            took
        });
        Self { stop, calling }
    }

    /// Ends the calls. Panics when one of them failed.
    pub(crate) async fn report(self) -> Latencies {
        self.stop.cancel();
        Latencies::of(self.calling.await.unwrap())
    }

    /// Measures the usual latencies: a second's worth of calls.
    pub(crate) async fn alone(caller: &Caller, endpoint: &'static str, payload: &Value) -> Latencies {
        let begun = Instant::now();
        let mut took = Vec::new();
        while begun.elapsed() < Duration::from_secs(1) {
            let answer = caller.ask(endpoint, payload).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            took.push(answer.took);
        }
        Latencies::of(took)
    }
}

impl Latencies {
    /// Computes the percentiles of these latencies.
    pub(crate) fn of(mut took: Vec<Duration>) -> Self {
        assert!(!took.is_empty(), "no call was made");
        took.sort_unstable();
        Self { calls: took.len(), median: took[took.len() / 2], worst: took[took.len() - 1] }
    }

    /// Panics when the latencies are much longer than `usual`: a neighbour may take processor time, but nobody waits
    /// for it.
    pub(crate) fn assert_undisturbed(&self, usual: &Self) {
        assert!(self.calls >= 10, "{self:?} are too few to tell");
        let bearable = usual.median * 5 + Duration::from_millis(30);
        assert!(self.median < bearable, "{self:?} is no longer what it was: {usual:?}");
        assert!(self.worst < Duration::from_secs(4), "{self:?} is no longer what it was: {usual:?}");
    }
}
