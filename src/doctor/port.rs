//! The port that HTTP callers come to.

use std::time::Duration;

use super::finding::Finding;
use crate::config::Server;
use crate::shim::{ShimError, listen};

/// Longest wait for an answer of what listens on the port.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Tries to listen on the port, for a moment.
pub(super) async fn examine(server: &Server) -> Finding {
    let address = match server.port {
        0 => format!("a free one on {}", server.host),
        port => format!("{port} on {}", server.host),
    };
    match listen(server).await {
        Ok(_) => Finding::ok("port", format_args!("{address} can be listened on")),
        Err(ShimError::PortInUse { host, port }) if is_signalbox(&format!("http://{host}:{port}/ready")).await => {
            Finding::warning("port", format_args!("a Signalbox listens on {address} already; stop it before another"))
        }
        Err(error) => Finding::failed("port", error),
    }
}

async fn is_signalbox(url: &str) -> bool {
    let Ok(client) = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build() else { return false };
    let Ok(answer) = client.get(url).send().await else { return false };
    answer.text().await.is_ok_and(|body| body.contains("\"ready\":") && body.contains("\"parts\":"))
}
