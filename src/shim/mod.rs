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

pub use error::ShimError;
pub use operations::{canary_routes, evaluator_routes, model_routes};
pub(crate) use request_producer::carried;
pub use server::HttpServer;
pub(crate) use server::bind as listen;
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
use self::reply_partition::ReplyPartition;
use self::request_producer::RequestProducer;
use crate::broker::{BrokerError, ClientThread, Cluster};
use crate::callers::Callers;
use crate::config::{self, Config};
use crate::telemetry::{Metrics, Readiness, ReadinessPart};

/// Limit of the bytes of unanswered requests on the embedded broker. That broker drops old records in silence at 5 MiB
/// of a partition, so no request that a caller waits for is lost even if all of them share one partition.
const EMBEDDED_BACKLOG: usize = 4 * 1024 * 1024;

/// Serves HTTP calls until it is shut down.
pub struct Shim {
    server: HttpServer,
    replies: ClientThread,
    pending: Arc<PendingCalls>,
    part: ReadinessPart,
    endpoints: Arc<EndpointDirectory>,
}

impl Shim {
    /// Listens, and starts to read replies. Calls are refused with 503 until the reply consumer stands at the end of
    /// its partition; then the part `shim` of `readiness` is ready. The topics exist already. `operations` are the
    /// operators' pages of this process beside the shim's own; `callers` are shared with the replies, so that an answer
    /// made in this process finds its caller.
    ///
    /// # Errors
    /// When the port is taken, no broker answers, or the replies topic has no such partition.
    pub async fn start(
        config: &Config,
        cluster: &Arc<Cluster>,
        readiness: &Readiness,
        metrics: &Metrics,
        operations: Router,
        callers: Callers,
    ) -> Result<Self, ShimError> {
        let Config { server, kafka, model_endpoints: endpoints, .. } = config;
        let part = readiness.part("shim");
        // The port is taken first: a busy port is found before anything is asked of the broker.
        let listener = server::bind(server).await?;
        let limits =
            PendingLimits { calls: server.max_pending, bytes: cluster.is_embedded().then_some(EMBEDDED_BACKLOG) };
        let pending = Arc::new(PendingCalls::new(limits, callers.clone(), metrics.shim_pending.clone()));
        // The longest timeout bounds how long the producer tries to deliver a request.
        let longest_timeout = endpoints.iter().map(|endpoint| endpoint.timeout).max().unwrap_or_default();
        let max_body = usize::try_from(server.max_body.as_u64()).unwrap_or(usize::MAX);

        // Kafka clients block while they are made and while they ask the broker, so this runs on a blocking thread.
        let broker_side = {
            let (part, metrics, flow) = (part.clone(), metrics.clone(), part.flow("requests to be published"));
            let (cluster, kafka, configured) = (cluster.clone(), kafka.clone(), server.reply_partition);
            move || {
                let count = cluster.partitions(&kafka.replies_topic)?;
                let partition = ReplyPartition::choose(&kafka.replies_topic, count, configured, Uuid::new_v4())?;
                let producer = RequestProducer::new(
                    &cluster,
                    &kafka,
                    &partition,
                    callers.clone(),
                    longest_timeout,
                    max_body,
                    flow,
                )?;
                let number = partition.partition;
                let replies = reply_consumer::start(&cluster, &kafka, partition, callers, part, &metrics)?;
                Ok::<_, ShimError>((producer, replies, number))
            }
        };
        let (producer, replies, reply_partition) =
            tokio::task::spawn_blocking(broker_side).await.map_err(|_| BrokerError::Interrupted)??;

        // The server starts last, when there are a producer and a reply consumer to serve calls with.
        let endpoints = Arc::new(EndpointDirectory::new(endpoints, metrics));
        let routes = status::listing(endpoints.clone())
            .merge(status_routes(readiness.clone(), metrics.clone()))
            .merge(operations)
            .merge(invocations::routes(InvocationApi {
                endpoints: endpoints.clone(),
                pending: pending.clone(),
                producer,
                max_body,
            }));
        let server = HttpServer::start(listener, routes)?;
        info!(address = %server.address(), reply_partition, "the HTTP shim listens");
        Ok(Self { server, replies, pending, part, endpoints })
    }

    /// Returns the address that the shim listens on.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Replaces the endpoints that may be called. Calls under way go on as they began.
    pub fn set_endpoints(&self, endpoints: &[config::Endpoint]) {
        self.endpoints.set(endpoints);
    }

    /// Stops accepting calls, lets waiting callers finish within `grace`, then answers the remaining ones with 503.
    pub async fn shutdown(self, grace: Duration) {
        self.part.waits_for("nothing any more: it is shutting down");
        let pending = self.pending;
        self.server.shutdown(grace, || pending.close()).await;
        pending.close();
        self.replies.stop().await;
        info!("the HTTP shim has stopped");
    }
}
