//! Moves the share of a canary route up by itself while the route does well, and back to nothing when it does not.
//!
//! Instances agree on the state of each canary through a compacted topic, the state topic. Each instance decides by
//! what it has seen itself, and writes; a state holds once it has been read from the topic, for the instance that wrote
//! it as for all others, and after a restart.

mod command;
mod policy;
mod state_topic;
mod statistics;
mod subject;
mod watcher;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

pub use command::{CanaryReport, OperatorAction};
pub use policy::{CanaryPhase, CanaryState};
pub use statistics::RouteStatistics;
pub use subject::CanarySubject;

use command::Command;
use watcher::CanaryWatcher;

use crate::broker::Cluster;
use crate::config::Kafka;
use crate::telemetry::Metrics;

/// Commands the watcher of all canaries. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Canaries {
    commands: mpsc::UnboundedSender<Command>,
}

impl Canaries {
    /// Starts the watcher. Nothing is read or written as long as there is no canary.
    pub fn start(cluster: &Arc<Cluster>, config: &Kafka, metrics: &Metrics) -> Self {
        let (commands, receiver) = mpsc::unbounded_channel();
        let watcher = CanaryWatcher::new(Arc::clone(cluster), config.clone(), metrics.clone());
        tokio::spawn(watcher.run(receiver));
        Self { commands }
    }

    /// Replaces the set of canaries. A canary that was in the set before goes on as it was.
    pub fn set(&self, subjects: Vec<CanarySubject>) {
        // The watcher ends only when the process stops.
        let _ = self.commands.send(Command::Set(subjects));
    }

    /// Reports the state of each canary.
    pub async fn report(&self) -> Vec<CanaryReport> {
        let (sender, receiver) = oneshot::channel();
        let _ = self.commands.send(Command::Report(sender));
        receiver.await.unwrap_or_default()
    }

    /// Waits until the last decision is written and the state topic is closed.
    pub async fn shutdown(&self) {
        let (sender, receiver) = oneshot::channel();
        let _ = self.commands.send(Command::Close(sender));
        let _ = receiver.await;
    }

    /// Applies an operator's action to one canary; false when no canary has this name, or its state is not known yet.
    pub async fn act(&self, endpoint: &str, route: &str, action: OperatorAction) -> bool {
        let (sender, receiver) = oneshot::channel();
        let _ = self.commands.send(Command::Act(endpoint.to_owned(), route.to_owned(), action, sender));
        receiver.await.unwrap_or_default()
    }
}
