//! The HTTP side of Signalbox: calls that want their answer at once, and the pages for operators.
//!
//! A call chooses no route and no model here: it becomes a request record like any other producer's. Its reply is read
//! from one partition of the replies topic, unless this very process has made the reply and hands it to the caller
//! directly. Every instance reads a partition of its own choice without a consumer group, so no rebalance can lose a
//! reply, and two instances on one partition only ignore each other's.
//!
//! Operators see the process under `/ready` and `/metrics`, load and unload models under `/models`, and restart and
//! abort canaries under `/canaries`; a process without the shim serves those pages as well.

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
pub use operations::{canary_routes, evaluator_routes, model_routes};
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
use crate::telemetry::{Metrics, Readiness, ReadinessPart};

/// Limit of the bytes of unanswered requests on the embedded broker. That broker drops old records in silence at 5 MiB
/// of a partition, so no request that a caller waits for is lost even if all of them share one partition.
const EMBEDDED_BACKLOG: usize = 4 * 1024 * 1024;

/// Holds everything that the shim is built from.
pub struct ShimParts {
    /// The address to listen on, and the limits of calls.
    pub server: config::Server,
    /// The names of the topics.
    pub kafka: config::Kafka,
    /// The endpoints that may be called.
    pub endpoints: Vec<ShimEndpoint>,
    /// The brokers; the topics exist already.
    pub cluster: Arc<Cluster>,
    /// The readiness that `GET /ready` reports; the shim adds its own part.
    pub readiness: Readiness,
    /// The metrics that `GET /metrics` reports.
    pub metrics: Metrics,
    /// The operators' pages of this process beside the shim's own.
    pub operations: Router,
    /// The waiting callers, shared with the replies so that an answer made in this process finds its caller.
    pub callers: Callers,
}

/// Serves HTTP calls until it is shut down.
pub struct Shim {
    server: HttpServer,
    consumer: ReplyConsumer,
    pending: Arc<PendingCalls>,
    part: ReadinessPart,
    endpoints: EndpointDirectory,
}

impl Shim {
    /// Listens, and starts to read replies. Calls are refused with 503 until the reply consumer stands at the end of
    /// its partition; then the part `shim` of `readiness` is ready.
    ///
    /// # Errors
    /// When the port is taken, no broker answers, or the replies topic has no such partition.
    pub async fn start(parts: ShimParts) -> Result<Self, ShimError> {
        let ShimParts { server, kafka, endpoints, cluster, readiness, metrics, operations, callers } = parts;
        let part = readiness.part("shim");
        // The port is taken first: a busy port is found before anything is asked of the broker.
        let listener = server::bind(&server).await?;
        let limits =
            PendingLimits { calls: server.max_pending, bytes: cluster.is_embedded().then_some(EMBEDDED_BACKLOG) };
        let pending = Arc::new(PendingCalls::new(limits, callers.clone(), metrics.shim_pending.clone()));
        // The longest timeout bounds how long the producer tries to deliver a request.
        let longest_timeout = endpoints.iter().map(|endpoint| endpoint.timeout).max().unwrap_or_default();
        let max_body = usize::try_from(server.max_body.as_u64()).unwrap_or(usize::MAX);

        // Kafka clients block while they are made and while they ask the broker, so this runs on a blocking thread.
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

        // The server starts last, when there are a producer and a reply consumer to serve calls with.
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

    /// Returns the address that the shim listens on.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Replaces the endpoints that may be called. Calls under way go on as they began.
    pub fn set_endpoints(&self, endpoints: Vec<ShimEndpoint>) {
        self.endpoints.set(endpoints);
    }

    /// Stops accepting calls, lets waiting callers finish within `grace`, then answers the remaining ones with 503.
    pub async fn shutdown(self, grace: Duration) {
        self.part.waits_for("nothing any more: it is shutting down");
        let pending = self.pending;
        self.server.shutdown(grace, || pending.close()).await;
        pending.close();
        self.consumer.stop().await;
        info!("the HTTP shim has stopped");
    }
}
