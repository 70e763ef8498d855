//! Moves the share of a canary route up by itself while the route does well, and back to nothing when it does not.
//!
//! Instances agree on the state of each canary through a compacted topic, the state topic. Each instance decides by
//! what it has seen itself, and writes; a state holds once it has been read from the topic, for the instance that wrote
//! it as for all others, and after a restart.

mod policy;
mod report;
mod state_topic;
mod statistics;
mod subject;
mod watcher;

use std::sync::Arc;

use parking_lot::Mutex;

pub use policy::{CanaryPhase, CanaryState};
pub use report::{CanaryReport, OperatorAction};
pub use statistics::RouteStatistics;
pub use subject::CanarySubject;

use state_topic::StateTopic;
use watcher::CanaryWatcher;

use crate::broker::{ClientThread, Cluster};
use crate::config::Kafka;
use crate::telemetry::Metrics;

/// Watches all canaries. Cheap to clone.
#[derive(Clone)]
pub struct Canaries(Arc<SharedCanaries>);

struct SharedCanaries {
    cluster: Arc<Cluster>,
    config: Kafka,
    /// The watcher, which is locked for moments: by the thread, by operators and by a reload, never by a request.
    watcher: Arc<Mutex<CanaryWatcher>>,
    /// The thread that reads and writes the state topic; none until there is a canary.
    thread: Mutex<Option<ClientThread>>,
}

impl Canaries {
    /// Creates the watcher. Nothing is read or written as long as there is no canary.
    pub fn new(cluster: &Arc<Cluster>, config: &Kafka, metrics: &Metrics) -> Self {
        Self(Arc::new(SharedCanaries {
            cluster: cluster.clone(),
            config: config.clone(),
            watcher: Arc::new(Mutex::new(CanaryWatcher::new(metrics.clone()))),
            thread: Mutex::default(),
        }))
    }

    /// Replaces the set of canaries. A canary that was in the set before goes on as it was.
    pub fn set(&self, subjects: Vec<CanarySubject>) {
        let SharedCanaries { cluster, config, watcher, thread } = &*self.0;
        let mut thread = thread.lock();
        // The topic is opened with the first canary, so a config without canaries needs no topic.
        if thread.is_none() && !subjects.is_empty() {
            let topic = StateTopic { cluster: cluster.clone(), config: config.clone(), watcher: watcher.clone() };
            match ClientThread::start("canaries", move |stop| topic.run(stop)) {
                Ok(started) => *thread = Some(started),
                Err(error) => tracing::error!(%error, "canaries are not watched: their thread cannot be started"),
            }
        }
        watcher.lock().set(subjects);
    }

    /// Reports the state of each canary.
    pub fn report(&self) -> Vec<CanaryReport> {
        self.0.watcher.lock().report()
    }

    /// Waits until the last decision is written and the state topic is closed.
    pub async fn shutdown(&self) {
        let thread = self.0.thread.lock().take();
        if let Some(thread) = thread {
            thread.stop().await;
        }
    }

    /// Applies an operator's action to one canary; false when no canary has this name, or its state is not known yet.
    pub fn act(&self, endpoint: &str, route: &str, action: OperatorAction) -> bool {
        self.0.watcher.lock().act(endpoint, route, action)
    }
}
