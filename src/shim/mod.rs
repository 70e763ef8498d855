//! The HTTP door: a caller who wants the answer now.
//!
//! It knows no routes and calls no model. A call becomes a request record like any other producer's. Its reply is read
//! from one partition of the replies topic, unless this very process has made it and answers the caller itself. Every instance reads a partition of its own choice without a consumer
//! group, so no rebalance can lose a reply, and two instances on one partition only ignore each other's.

mod answer;
mod body;
mod endpoints;
mod error;
mod invocations;
mod operations;
mod pending;
mod reply_consumer;
mod reply_partition;
mod request_producer;
mod server;
mod status;
mod call_metrics;
#[cfg(test)]
mod tests;

pub use endpoints::{ShimEndpoint, ShimRoute};
pub use error::ShimError;
pub use operations::{canary_routes, model_routes};
pub use server::HttpServer;
pub use status::status_routes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tracing::info;
use uuid::Uuid;

use self::endpoints::EndpointDirectory;
use self::invocations::InvocationApi;
use self::pending::{PendingCalls, PendingLimits};
use self::reply_consumer::ReplyConsumer;
use self::reply_partition::ReplyPartition;
use self::request_producer::RequestProducer;
use crate::broker::Cluster;
use crate::callers::Callers;
use crate::config;
use crate::telemetry::{Metrics, Part, Readiness};

/// Bytes of unanswered requests on the embedded broker. It drops old records in silence at 5 MiB of a partition, so
/// even if all of these share one partition, nothing that is waited for is lost.
const EMBEDDED_BACKLOG: usize = 4 * 1024 * 1024;

/// What the shim is made of.
pub struct ShimParts {
    /// Where to listen, and how much to take.
    pub server: config::Server,
    /// The names of the topics.
    pub kafka: config::Kafka,
    /// What may be called.
    pub endpoints: Vec<ShimEndpoint>,
    /// The brokers; the topics exist.
    pub cluster: Arc<Cluster>,
    /// Where the shim says when it can take calls, and what `GET /ready` reports.
    pub readiness: Readiness,
    /// What `GET /metrics` reports.
    pub metrics: Metrics,
    /// What else this process shows of itself.
    pub operations: Router,
    /// Those who wait, so that whoever has their answers can find them.
    pub callers: Callers,
}

/// The running shim.
pub struct Shim {
    server: HttpServer,
    consumer: ReplyConsumer,
    pending: Arc<PendingCalls>,
    part: Part,
    endpoints: EndpointDirectory,
}

impl Shim {
    /// Listens, and starts to read replies. Calls are refused with 503 until the reply partition is positioned, which
    /// is when the part `shim` of `readiness` is ready.
    ///
    /// # Errors
    /// When the port is taken, no broker answers, or the replies topic has no such partition.
    pub async fn start(parts: ShimParts) -> Result<Self, ShimError> {
        let ShimParts { server, kafka, endpoints, cluster, readiness, metrics, operations, callers } = parts;
        let part = readiness.part("shim");
        let listener = server::bind(&server).await?;
        let limits =
            PendingLimits { calls: server.max_pending, bytes: cluster.is_embedded().then_some(EMBEDDED_BACKLOG) };
        let pending = Arc::new(PendingCalls::new(limits, callers.clone(), metrics.shim_pending.clone()));
        let longest_timeout = endpoints.iter().map(|endpoint| endpoint.timeout).max().unwrap_or_default();
        let max_body = usize::try_from(server.max_body.as_u64()).unwrap_or(usize::MAX);

        // Clients are made, and ask the broker things, on a thread that may block.
        let broker_side = {
            let (part, metrics, flow) = (part.clone(), metrics.clone(), part.flow("requests to be published"));
            move || {
                let count = cluster.partitions(&kafka.replies_topic)?;
                let partition =
                    ReplyPartition::choose(&kafka.replies_topic, count, server.reply_partition, Uuid::new_v4())?;
                let callers_of_requests = callers.clone();
                let producer = RequestProducer::new(
                    &cluster,
                    &kafka,
                    &partition,
                    callers_of_requests,
                    longest_timeout,
                    max_body,
                    flow,
                )?;
                let consumer = ReplyConsumer::start(&cluster, &kafka, partition, callers, part, &metrics)?;
                Ok::<_, ShimError>((producer, consumer))
            }
        };
        let (producer, consumer) =
            tokio::task::spawn_blocking(broker_side).await.map_err(|_| ShimError::Interrupted)??;

        let endpoints = EndpointDirectory::new(endpoints, &metrics);
        let routes = status::listing(endpoints.clone())
            .merge(status_routes(readiness, metrics))
            .merge(operations)
            .merge(invocations::routes(InvocationApi {
                endpoints: endpoints.clone(),
                pending: pending.clone(),
                producer,
                max_body,
            }));
        let server = HttpServer::start(listener, routes)?;
        info!(address = %server.address(), reply_partition = consumer.partition(), "the HTTP shim listens");
        Ok(Self { server, consumer, pending, part, endpoints })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// From now on these may be called, and no others. Calls under way go on as they began.
    pub fn set_endpoints(&self, endpoints: Vec<ShimEndpoint>) {
        self.endpoints.set(endpoints);
    }

    /// Stops accepting, lets the callers who wait finish within `grace`, then answers those who are left with 503.
    pub async fn shutdown(self, grace: Duration) {
        self.part.waits_for("nothing any more: it is shutting down");
        let pending = self.pending;
        self.server.shutdown(grace, || pending.close()).await;
        pending.close();
        self.consumer.stop().await;
        info!("the HTTP shim has stopped");
    }
}
