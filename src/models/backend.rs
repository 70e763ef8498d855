//! Backends of a loaded version: a pool of forked hosts, or a server that speaks MLflow's scoring protocol.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;

use super::call::CallFailure;
use super::faults::unavailable;
use super::host::Child;
use super::pool::HostPool;
use crate::invocation::row_independence::RowIndependence;
use crate::invocation::{Call, HttpBackend};
use crate::message::{Code, Fault, Reply};

/// Backend that answers for a loaded version.
#[derive(Debug)]
pub(super) enum Backend {
    Hosts(Arc<HostPool>),
    Server(Arc<ServerBackend>),
}

/// Server that speaks MLflow's scoring protocol, ours or somebody else's.
#[derive(Debug)]
pub(super) struct ServerBackend {
    pub(super) http: HttpBackend,
    pub(super) permits: Arc<Semaphore>,
    /// The server's process, when that is ours.
    pub(super) server: Option<Child>,
    /// Calls in a row that ran out of time.
    consecutive_timeouts: AtomicUsize,
    /// The number of calls that run at once.
    pub(super) concurrency: usize,
    /// Knowledge of whether the server answers each row as if it were alone, when nobody knows which version that is.
    pub(super) row_independence: Arc<RowIndependence>,
    /// The reason why the server is not to be called any more.
    pub(super) broken: OnceLock<Fault>,
}

impl Backend {
    /// Lists the backend's processes.
    pub(super) fn pids(&self) -> Vec<u32> {
        match self {
            Self::Hosts(pool) => pool.pids(),
            Self::Server(backend) => backend.server.as_ref().map(Child::pid).into_iter().collect(),
        }
    }

    /// Returns the reason why the backend answers no longer, when that is so.
    pub(super) fn broken(&self) -> Option<&Fault> {
        match self {
            Self::Hosts(pool) => pool.broken(),
            Self::Server(backend) => backend.broken(),
        }
    }

    /// Ends the backend's processes, and waits until they have gone. The caller sees to it that no lease is held.
    pub(super) async fn stop(&self) {
        match self {
            Self::Hosts(pool) => pool.stop().await,
            Self::Server(backend) => {
                if let Some(server) = &backend.server {
                    server.kill();
                    server.gone().await;
                }
            }
        }
    }
}

impl ServerBackend {
    pub(super) fn new(http: HttpBackend, concurrency: usize, server: Option<Child>) -> Self {
        Self {
            http,
            permits: Arc::new(Semaphore::new(concurrency)),
            server,
            consecutive_timeouts: AtomicUsize::new(0),
            concurrency,
            row_independence: Arc::default(),
            broken: OnceLock::new(),
        }
    }

    /// Posts a call, and reads at most `largest_answer` bytes of its answer. A server that no longer listens counts as
    /// crashed, even if the end of its process has not been reported yet.
    pub(super) async fn invoke(&self, call: &Call<'_>, largest_answer: usize) -> Result<Reply, CallFailure> {
        let answer = self.http.invoke(call.clone(), largest_answer).await;
        let timed_out = answer.as_ref().is_err_and(|failure| failure.fault.code == Code::DeadlineExceeded);
        let timeouts = if timed_out { self.consecutive_timeouts.fetch_add(1, Ordering::Relaxed) + 1 } else { 0 };
        if !timed_out {
            self.consecutive_timeouts.store(0, Ordering::Relaxed);
        } else if timeouts >= self.concurrency
            && let Some(server) = &self.server
        {
            // Each of the server's threads is stuck by now, and nothing else frees them.
            server.kill();
        }
        match answer {
            Ok(reply) => Ok(reply),
            Err(failure) => {
                let disconnected = failure.disconnected;
                let crashed = disconnected && self.has_ended().await;
                // The permit of this call itself is taken as well, hence the one.
                let in_company = crashed && self.permits.available_permits() + 1 < self.concurrency;
                Err(CallFailure { fault: failure.fault, crashed, in_company, disconnected })
            }
        }
    }

    /// Tells whether the server is ours and gone. A server that no longer listens is gone, even if the end of its
    /// process has not been reported yet.
    async fn has_ended(&self) -> bool {
        let Some(server) = &self.server else { return false };
        if !server.is_gone() && self.http.is_listening().await {
            return false;
        }
        server.kill();
        self.broken().is_some()
    }

    fn broken(&self) -> Option<&Fault> {
        if self.broken.get().is_none() && self.server.as_ref().is_some_and(Child::is_gone) {
            let _ = self.broken.set(unavailable("the model's server has ended"));
        }
        self.broken.get()
    }
}
