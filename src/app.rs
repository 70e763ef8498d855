//! The application: the only place where parts are wired together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router as Routes;
use clap::ValueEnum;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::broker::{BrokerError, Cluster};
use crate::callers::Callers;
use crate::canary::Canaries;
use crate::check::{ConfigFile, Reloader};
use crate::config::{Config, Kafka};
use crate::evaluators::Evaluators;
use crate::intake::Intake;
use crate::models::{Models, RegistryError};
use crate::page::{PageParts, RouterParts, StatusPage};
use crate::pipeline::{Pipeline, PipelineParts, ShadowSender};
use crate::replies::{AllowedTopics, Publisher, ShadowPublisher};
use crate::routing::RoutingTable;
use crate::shim::{HttpServer, Shim, ShimError, canary_routes, evaluator_routes, model_routes, status_routes};
use crate::telemetry::{Metrics, Readiness};

/// Longest wait of the shim's callers once shutdown has begun; they get an error after it.
const SHIM_GRACE: Duration = Duration::from_secs(10);
/// Time between two looks at readiness while starting; `ready` is announced that much later at most.
const READY_POLL: Duration = Duration::from_millis(20);

/// The half of Signalbox that a process runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Both.
    #[default]
    All,
    /// Reads requests, calls models, publishes replies; over HTTP it only shows its state.
    Router,
    /// The HTTP door alone.
    Shim,
}

/// The addresses of a running Signalbox.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// Address of the HTTP side.
    pub http: SocketAddr,
    /// Addresses of the broker, `host:port[,…]`.
    pub broker: String,
}

/// The reason for which Signalbox did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The config was not checked before.
    #[error("the configuration cannot be used: {0}")]
    Config(String),
    /// The broker failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The models failed.
    #[error(transparent)]
    Models(#[from] RegistryError),
    /// The shim failed.
    #[error(transparent)]
    Shim(#[from] ShimError),
    /// A part cannot go on.
    #[error("{0}")]
    Failed(String),
}

/// All running parts of one process.
struct App {
    http: HttpSide,
    page: StatusPage,
    router: Option<Router>,
    cluster: Arc<Cluster>,
    /// Broker section of the config at the start, which does not change.
    kafka: Kafka,
    metrics: Metrics,
}

/// The HTTP side of each role.
enum HttpSide {
    /// The shim, which takes calls.
    Shim(Box<Shim>),
    /// A server that only shows the state of a router.
    Status(HttpServer),
}

/// The half that reads requests.
struct Router {
    intake: Intake,
    pipeline: Pipeline,
    models: Models,
    evaluators: Evaluators,
    canaries: Canaries,
    publisher: Publisher,
    shadows: ShadowSender,
    drain: Duration,
}

/// Builds all parts, calls `ready` once requests are served, runs until `stop` completes, and drains. Later changes of
/// `file` are put to use. `beside` starts side by side with the parts, and has to be done before requests are served.
///
/// # Errors
/// Fails when a part or `beside` cannot start, or a part cannot go on.
pub async fn run<E: From<AppError>>(
    stop: impl Future<Output = ()>,
    config: Config,
    file: Option<ConfigFile>,
    role: Role,
    beside: impl Future<Output = Result<(), E>>,
    ready: impl FnOnce(&Addresses),
) -> Result<(), E> {
    let failed = CancellationToken::new();
    tokio::pin!(stop);
    let reload = Reloader::new(file);
    let readiness = Readiness::default();
    let start = async { App::start(&config, role, &readiness, &failed).await.map_err(E::from) };
    let (app, ()) = tokio::select! {
        started = async { tokio::try_join!(start, beside) } => started?,
        () = &mut stop => return Ok(()),
    };
    let addresses = app.addresses();
    let announce = async {
        while !readiness.is_ready() {
            tokio::time::sleep(READY_POLL).await;
        }
        info!(http = %addresses.http, broker = addresses.broker, "ready");
        ready(&addresses);
        std::future::pending::<()>().await;
    };
    let result = tokio::select! {
        () = &mut stop => Ok(()),
        () = failed.cancelled() => Err(AppError::Failed("a part of signalbox cannot go on; see the log".to_owned())),
        () = announce => Ok(()),
        () = reload.run(&config, &app.metrics, async |config| app.reload(config).await) => Ok(()),
    };
    app.shutdown(result.is_ok()).await?;
    Ok(result?)
}

impl App {
    async fn start(
        config: &Config,
        role: Role,
        readiness: &Readiness,
        failed: &CancellationToken,
    ) -> Result<Self, AppError> {
        let metrics = Metrics::new().map_err(|error| AppError::Failed(error.to_string()))?;
        let (cluster, callers) = (connect(config, role).await?, Callers::default());
        let router = match role {
            Role::All | Role::Router => {
                Some(Router::start(config, &cluster, &callers, &metrics, readiness, failed).await?)
            }
            Role::Shim => None,
        };
        // Operators reach models, evaluators and canaries only where a router runs.
        let operations = router.as_ref().map_or_else(Routes::new, |router| {
            let models = model_routes(router.models.clone()).merge(evaluator_routes(router.evaluators.clone()));
            models.merge(canary_routes(router.canaries.clone()))
        });
        let page = StatusPage::start(
            config,
            PageParts {
                role: role.name(),
                metrics: metrics.clone(),
                readiness: readiness.clone(),
                router: router.as_ref().map(Router::shown),
            },
        );
        let operations = operations.merge(page.routes());
        let http = match role {
            Role::All | Role::Shim => {
                let shim = Shim::start(config, &cluster, readiness, &metrics, operations, callers).await?;
                HttpSide::Shim(Box::new(shim))
            }
            Role::Router => {
                let routes = status_routes(readiness.clone(), metrics.clone()).merge(operations);
                HttpSide::Status(HttpServer::bind(&config.server, routes).await?)
            }
        };
        Ok(Self { http, page, router, cluster, kafka: config.kafka.clone(), metrics })
    }

    /// Puts the endpoints of another checked config to use, from the models outwards: each call that the HTTP side lets
    /// in finds its route.
    async fn reload(&self, config: &Config) -> Result<(), String> {
        if let Some(router) = &self.router {
            self.ensure_topics(config).await;
            router.reload(config, &self.metrics).await.map_err(|error| error.to_string())?;
        }
        if let HttpSide::Shim(shim) = &self.http {
            shim.set_endpoints(&config.model_endpoints);
        }
        self.page.set_endpoints(&config.model_endpoints);
        Ok(())
    }

    /// Creates the topics that new endpoints need, such as the shadow topic for the first shadow. Without it nothing
    /// but a shadow's records is lost.
    async fn ensure_topics(&self, config: &Config) {
        let (cluster, config) = (Arc::clone(&self.cluster), Config { kafka: self.kafka.clone(), ..config.clone() });
        let ensured = blocking(move || cluster.ensure_topics(&config.kafka, &config.topics())).await;
        if let Err(error) = ensured.and_then(|ensured| ensured.map_err(AppError::from)) {
            warn!(%error, "not all topics of the new configuration are there");
        }
    }

    fn addresses(&self) -> Addresses {
        Addresses { http: self.http.address(), broker: self.cluster.bootstrap_servers().to_owned() }
    }

    /// Shuts down from the HTTP side inwards: no new callers, then no new requests, then the models, and the broker
    /// last. `can_finish` tells whether the requests under way can still be ended.
    async fn shutdown(self, can_finish: bool) -> Result<(), AppError> {
        info!("shutting down; a second signal ends it at once");
        let work = async {
            self.http.shutdown().await;
            // The page has handles of the router's parts, which end with their last.
            drop(self.page);
            if let Some(router) = self.router {
                router.shutdown(can_finish).await?;
            }
            // Clients and the embedded broker block while they close.
            let _ = spawn_blocking(move || drop(self.cluster)).await;
            info!("stopped");
            Ok(())
        };
        tokio::select! {
            result = work => result,
            () = stop_signal() => {
                warn!("stopped at once; requests under way will be answered again");
                Ok(())
            }
        }
    }
}

impl Role {
    /// Returns the role's name, as the command line has it.
    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Router => "router",
            Self::Shim => "shim",
        }
    }
}

impl HttpSide {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Shim(shim) => shim.address(),
            Self::Status(server) => server.address(),
        }
    }

    async fn shutdown(self) {
        match self {
            Self::Shim(shim) => shim.shutdown(SHIM_GRACE).await,
            Self::Status(server) => server.shutdown(SHIM_GRACE, || {}).await,
        }
    }
}

impl Router {
    async fn start(
        config: &Config,
        cluster: &Arc<Cluster>,
        callers: &Callers,
        metrics: &Metrics,
        readiness: &Readiness,
        failed: &CancellationToken,
    ) -> Result<Self, AppError> {
        let table = routing_table(config)?;
        let models = Models::start(&config.models, &config.registry, metrics)?;
        let evaluators = Evaluators::start(&config.conditions, &models, &config.models.python, metrics, readiness);
        if table.needs_python() {
            evaluators.begin();
        }
        let allowed = AllowedTopics::new(&config.kafka).map_err(|error| AppError::Config(error.to_string()))?;
        let publisher = {
            let (kafka, cluster, callers) = (config.kafka.clone(), cluster.clone(), callers.clone());
            let (metrics, readiness, failed) = (metrics.clone(), readiness.clone(), failed.clone());
            let start = move || Publisher::start(&kafka, &cluster, allowed, callers, &metrics, &readiness, failed);
            blocking(start).await??
        };
        let canaries = Canaries::new(cluster, &config.kafka, metrics);
        let shadows = ShadowSender::new(ShadowPublisher::start(&config.kafka, cluster)?);
        let parts = PipelineParts {
            models: &models,
            evaluators: evaluators.clone(),
            canaries: &canaries,
            publisher: publisher.clone(),
            shadows: shadows.clone(),
            callers: callers.clone(),
        };
        let pipeline =
            Pipeline::new(config, table, parts, metrics).map_err(|error| AppError::Config(error.to_string()))?;
        // Loads start before the first request is read.
        models.preload();

        let (kafka, cluster, metrics) = (config.kafka.clone(), cluster.clone(), metrics.clone());
        let (readiness, failed) = (readiness.clone(), failed.clone());
        let handler = Arc::new(pipeline.clone());
        let start = move || Intake::start(&kafka, &cluster, handler, &metrics, &readiness, move || failed.cancel());
        let intake = blocking(start).await??;
        // The publisher commits offsets, so it begins once the intake can hand them out.
        publisher.begin(intake.offsets())?;
        Ok(Self {
            intake,
            pipeline,
            models,
            evaluators,
            canaries,
            publisher,
            shadows,
            drain: config.kafka.drain_timeout,
        })
    }

    /// Returns the parts that the status page shows.
    fn shown(&self) -> RouterParts {
        RouterParts {
            pipeline: self.pipeline.clone(),
            partitions: self.intake.partitions(),
            models: self.models.clone(),
            canaries: self.canaries.clone(),
        }
    }

    async fn reload(&self, config: &Config, metrics: &Metrics) -> Result<(), AppError> {
        let owned = config.clone();
        let table = blocking(move || routing_table(&owned)).await??;
        if table.needs_python() {
            self.evaluators.begin();
        }
        let changed = self.pipeline.reload(config, table, &self.models, &self.canaries, metrics);
        changed.map_err(|error| AppError::Config(error.to_string()))
    }

    /// Shuts down the intake, then what serves it. `can_finish` tells whether the requests under way can still be
    /// ended.
    async fn shutdown(self, can_finish: bool) -> Result<(), AppError> {
        let Self { intake, pipeline, models, evaluators, canaries, publisher, shadows, drain } = self;
        drop(pipeline);
        let patience = if can_finish { drain } else { Duration::ZERO };
        let stopped = blocking(move || intake.stop(patience)).await?;
        shadows.shutdown().await;
        blocking(move || publisher.flush(drain)).await?;
        evaluators.shutdown().await;
        models.shutdown().await;
        canaries.shutdown().await;
        stopped.map_err(|error| AppError::Failed(error.to_string()))
    }
}

fn routing_table(config: &Config) -> Result<RoutingTable, AppError> {
    RoutingTable::build(config)
        .map_err(|problems| AppError::Config(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
}

/// Starts or finds the broker, and ensures that the topics are there.
async fn connect(config: &Config, role: Role) -> Result<Arc<Cluster>, AppError> {
    if config.kafka.is_embedded() {
        if role != Role::All {
            return Err(AppError::Config(
                "kafka.bootstrap_servers: embedded is a broker inside one process; --role router and --role shim need a \
                 real Kafka"
                    .to_owned(),
            ));
        }
        warn!("the embedded broker is for trying out: nothing is kept on disk, and it keeps no backlog");
    }
    let config = config.clone();
    let cluster = blocking(move || {
        let cluster = Cluster::new(&config.kafka)?;
        info!(servers = cluster.bootstrap_servers(), "looking for the broker and its topics");
        cluster.ensure_topics(&config.kafka, &config.topics())?;
        Ok::<_, BrokerError>(cluster)
    });
    Ok(Arc::new(cluster.await??))
}

/// Runs blocking work away from the runtime's workers.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AppError> {
    spawn_blocking(work).await.map_err(|error| AppError::Failed(error.to_string()))
}

/// Completes when the process is asked to end.
pub(crate) async fn stop_signal() {
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    match (interrupt, terminate) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        (Err(cause), _) | (_, Err(cause)) => {
            error!(%cause, "signals cannot be received; end the process by force");
            std::future::pending().await
        }
    }
}
