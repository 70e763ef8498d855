//! The router that a batch asks: one that runs already, or one that is started for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use tokio_util::sync::CancellationToken;

use super::BatchArgs;
use crate::app::{self, AppError, Role};
use crate::batch::BatchError;
use crate::broker::Cluster;
use crate::check;
use crate::cli::failure::Failure;
use crate::config::{Config, Kafka};

/// Requests that the embedded broker is given at once, at most. It drops old records in silence at 5 MiB of a partition, and a
/// request may have half a megabyte.
const EMBEDDED_IN_FLIGHT: usize = 8;

/// The way to a router.
pub(super) enum Router {
    /// A router that runs behind these brokers.
    Running(Box<Kafka>),
    /// A router that is started with this config, and ends with the batch.
    Started(Box<Config>, Arc<AtomicBool>),
}

impl Router {
    /// Finds the way by the command line. `stop` becomes true when a router that is started ends by itself.
    ///
    /// # Errors
    /// When the config cannot be used, or has no such endpoint.
    pub(super) fn find(args: &BatchArgs, stop: &Arc<AtomicBool>) -> Result<Self, Failure> {
        let Some(path) = &args.config else {
            return Ok(Self::Running(Box::new(Kafka {
                bootstrap_servers: args.brokers.clone().unwrap_or_default(),
                requests_topic: args.requests_topic.clone(),
                replies_topic: args.replies_topic.clone(),
                properties: args.properties.iter().cloned().collect(),
                ..Kafka::default()
            })));
        };
        let mut config = check::load(path)?.config;
        let names: Vec<_> = config.model_endpoints.iter().map(|endpoint| &*endpoint.name).collect();
        let wrong = match &args.endpoint {
            Some(name) => !names.contains(&name.as_str()),
            None => names.len() > 1,
        };
        if wrong {
            let message = format!("--endpoint: {} has {}", path.display(), names.join(", "));
            return Err(BatchError::Usage(message).into());
        }
        if args.attach && config.kafka.is_embedded() {
            let message = format!(
                "--attach: {} has kafka.bootstrap_servers: embedded, a broker inside the process that runs; give the \
                 address that it prints with --brokers",
                path.display()
            );
            return Err(BatchError::Usage(message).into());
        }
        if args.attach {
            return Ok(Self::Running(Box::new(config.kafka)));
        }
        // Nobody calls this router over HTTP, and another may have the port.
        config.server.port = 0;
        Ok(Self::Started(Box::new(config), Arc::clone(stop)))
    }

    /// Returns how many requests may be under way, where the broker sets a limit.
    pub(super) fn most_in_flight(&self) -> Option<usize> {
        match self {
            Self::Started(config, _) if config.kafka.is_embedded() => Some(EMBEDDED_IN_FLIGHT),
            Self::Started(..) | Self::Running(_) => None,
        }
    }

    /// Runs some work beside the router.
    pub(super) fn with<T>(
        self,
        work: impl FnOnce(&Arc<Cluster>, &Kafka) -> Result<T, BatchError>,
    ) -> Result<T, Failure> {
        match self {
            Self::Running(kafka) => Ok(work(&Arc::new(Cluster::new(&kafka).map_err(BatchError::from)?), &kafka)?),
            Self::Started(config, stop) => beside(*config, &stop, work),
        }
    }
}

/// Starts a router, runs the work once requests are served, and ends the router.
fn beside<T>(
    config: Config,
    stop: &AtomicBool,
    work: impl FnOnce(&Arc<Cluster>, &Kafka) -> Result<T, BatchError>,
) -> Result<T, Failure> {
    let role = if config.kafka.is_embedded() { Role::All } else { Role::Router };
    let mut kafka = config.kafka.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("signalbox").build();
    let runtime = runtime.map_err(|error| Failure::software(format_args!("the runtime cannot start: {error}")))?;
    let (token, (ready, addresses)) = (CancellationToken::new(), channel());
    thread::scope(|scope| {
        let (until, is_wanted) = (token.clone(), token.clone());
        let router = scope.spawn(move || {
            let ready = |found: &app::Addresses| {
                // When nobody listens any more, the work has ended.
                let _ = ready.send(found.clone());
            };
            let nothing = std::future::ready(Ok(()));
            let running = app::run::<AppError>(until.cancelled(), config, None, role, nothing, ready);
            let result = runtime.block_on(running);
            if !is_wanted.is_cancelled() {
                stop.store(true, Ordering::Relaxed);
            }
            runtime.shutdown_background();
            result
        });
        let done = addresses.recv().ok().map(|addresses| {
            kafka.bootstrap_servers = addresses.broker;
            let cluster = Arc::new(Cluster::new(&kafka).map_err(BatchError::from)?);
            work(&cluster, &kafka)
        });
        token.cancel();
        let ended = router.join().map_err(|_| Failure::software("the router has ended by a defect"))?;
        match (done, ended) {
            (Some(Ok(done)), _) => Ok(done),
            (_, Err(error)) => Err(error.into()),
            (Some(Err(error)), Ok(())) => Err(error.into()),
            (None, Ok(())) => Err(BatchError::Unfinished("stopped before the router was ready".to_owned()).into()),
        }
    })
}
