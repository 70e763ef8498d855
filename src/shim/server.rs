//! The HTTP server: listens, and stops without cutting anyone off.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::error::ShimError;
use super::status::JSON;
use crate::config;

/// Longest time that callers may take to read the answer that says the process stops; after it they are cut off.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Owns a running HTTP server, whose connections are cut off when this is dropped.
pub struct HttpServer {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Binds the port.
///
/// # Errors
/// When the port is taken already, or may not be listened on.
pub(crate) async fn bind(config: &config::Server) -> Result<TcpListener, ShimError> {
    let (host, port) = (config.host, config.port);
    TcpListener::bind((host, port)).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ShimError::PortInUse { host, port },
        _ => ShimError::Listen { host, port, source },
    })
}

impl HttpServer {
    /// Listens on the address of the config, and serves these routes. The answer for any other path is MLflow's 404.
    ///
    /// # Errors
    /// When the port is taken already, or may not be listened on.
    pub async fn bind(config: &config::Server, routes: Router) -> Result<Self, ShimError> {
        Self::start(bind(config).await?, routes)
    }

    pub(super) fn start(listener: TcpListener, routes: Router) -> Result<Self, ShimError> {
        let address = listener.local_addr().map_err(ShimError::Address)?;
        let routes = routes.fallback(not_found).method_not_allowed_fallback(method_not_allowed);
        let stop = CancellationToken::new();
        // Nagle's algorithm is off: a small answer must not wait for the acknowledgement of another.
        let listener = listener.tap_io(|connection| {
            let _ = connection.set_nodelay(true);
        });
        let serving = axum::serve(listener, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
        let task = tokio::spawn(async move {
            // Serving never fails: axum retries errors of accepting.
            let _ = serving.await;
        });
        Ok(Self { address, stop, task })
    }

    /// Returns the address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting and waits up to `grace` for calls under way. Then `give_up` is called, which should make them
    /// end, and their answers have [`DRAIN_TIME`] to be read.
    pub async fn shutdown(mut self, grace: Duration, give_up: impl FnOnce()) {
        self.stop.cancel();
        if timeout(grace, &mut self.task).await.is_err() {
            give_up();
            // A caller that has not read its answer by then is cut off.
            let _ = timeout(DRAIN_TIME, &mut self.task).await;
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

async fn not_found() -> impl IntoResponse {
    (StatusCode::NOT_FOUND, JSON, r#"{"detail":"Not Found"}"#)
}

async fn method_not_allowed() -> impl IntoResponse {
    (StatusCode::METHOD_NOT_ALLOWED, JSON, r#"{"detail":"Method Not Allowed"}"#)
}
