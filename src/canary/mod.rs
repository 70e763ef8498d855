//! Routes whose share moves up by itself while they do well, and back to nothing when they do not.
//!
//! Instances agree on where each canary stands in a compacted topic. Each decides by what it has seen itself, and writes;
//! what has been read there holds, for the one that wrote it as for all others, and after a restart.

mod ledger;
mod policy;
mod statistics;
mod watch;

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

pub use policy::{Phase, Standing};
pub use statistics::Statistics;
use watch::{Order, Watch};

use crate::broker::Cluster;
use crate::config::{self, Kafka};
use crate::routing::CanaryShare;
use crate::telemetry::Metrics;

/// Looks after every canary. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Canaries {
    orders: mpsc::UnboundedSender<Order>,
}

/// A canary, and what it takes to look after it.
#[derive(Debug)]
pub struct Subject {
    /// The endpoint's name.
    pub endpoint: Arc<str>,
    /// The route's alias.
    pub route: Arc<str>,
    /// What the route calls: another model is another canary.
    pub model_uri: Arc<str>,
    /// How its share moves.
    pub canary: config::Canary,
    /// Where its share is read by those who decide. Nothing, until it is known where the canary stands.
    pub share: Arc<CanaryShare>,
    /// What became of its requests.
    pub own: Arc<Statistics>,
    /// What became of those of the routes that it is compared with.
    pub others: Vec<Arc<Statistics>>,
}

/// What there is to know of a canary.
#[derive(Debug, Clone, Serialize)]
pub struct CanaryReport {
    /// The endpoint's name.
    pub endpoint: Arc<str>,
    /// The route's alias.
    pub route: Arc<str>,
    /// Its share of what no condition takes, in percent.
    pub share: f64,
    /// Its shares one after the other, in percent.
    pub steps: Vec<f64>,
    /// Where it stands; none as long as that is not known.
    pub standing: Option<Standing>,
    /// Requests that this instance has seen since then.
    pub calls: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Within which time 95 of 100 of them were answered, in milliseconds.
    pub p95_ms: f64,
    /// The same of the routes that it is compared with.
    pub others_p95_ms: f64,
}

/// What an operator may want of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// From its first step again.
    Restart,
    /// Back to nothing.
    Abort,
}

impl Canaries {
    /// Nothing is read or written as long as there is no canary.
    pub fn start(cluster: &Arc<Cluster>, config: &Kafka, metrics: &Metrics) -> Self {
        let (orders, receiver) = mpsc::unbounded_channel();
        let watch = Watch::new(Arc::clone(cluster), config.clone(), metrics.clone());
        tokio::spawn(watch.run(receiver));
        Self { orders }
    }

    /// From now on, these are all the canaries there are. One that was there before goes on as it was.
    pub fn set(&self, subjects: Vec<Subject>) {
        // The other end goes only when we stop.
        let _ = self.orders.send(Order::Set(subjects));
    }

    /// Where each of them stands.
    pub async fn report(&self) -> Vec<CanaryReport> {
        let (sender, receiver) = oneshot::channel();
        let _ = self.orders.send(Order::Report(sender));
        receiver.await.unwrap_or_default()
    }

    /// Waits until what was decided last is written, and the topic is closed.
    pub async fn shutdown(&self) {
        let (sender, receiver) = oneshot::channel();
        let _ = self.orders.send(Order::Close(sender));
        let _ = receiver.await;
    }

    /// Asks something of one of them; false when there is none of this name, or it is not known yet where it stands.
    pub async fn ask(&self, endpoint: &str, route: &str, wish: Wish) -> bool {
        let (sender, receiver) = oneshot::channel();
        let _ = self.orders.send(Order::Ask(endpoint.to_owned(), route.to_owned(), wish, sender));
        receiver.await.unwrap_or_default()
    }
}
