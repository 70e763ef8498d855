//! The invocation API: `POST /invocations` and its aliases, from a call's first byte to its answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tracing::debug;
use uuid::Uuid;

use super::answer;
use super::body::{self, BodyProblem};
use super::call_metrics::CallMetrics;
use super::endpoints::{BoundEndpoint, EndpointDirectory};
use super::pending::PendingCalls;
use super::request_producer::{OutgoingRequest, RequestProducer};
use crate::callers::ReplyResult;
use crate::message::{Code, Fault, Stage, wall_clock};
use crate::telemetry::FaultKind;

/// Header that names the endpoint where the path does not.
const ENDPOINT: &str = "x-endpoint";

/// Header with which a caller waits for less than the endpoint's timeout, in milliseconds.
const TIMEOUT: &str = "x-timeout-ms";

/// Part of a caller's waiting time that is kept for the way back of the reply. The request's deadline is that much
/// earlier: a router that gives up at the deadline knows better than the shim what took so long, and its fault should
/// arrive in time.
const WAY_BACK: Duration = Duration::from_millis(250);

/// Serves calls: produces each as a request record and waits for its reply.
pub(super) struct InvocationApi {
    pub(super) endpoints: Arc<EndpointDirectory>,
    pub(super) pending: Arc<PendingCalls>,
    pub(super) producer: RequestProducer,
    pub(super) max_body: usize,
}

/// Builds the routes on which an endpoint can be called.
pub(super) fn routes(api: InvocationApi) -> Router {
    Router::new()
        .route("/invocations", post(by_header))
        .route("/endpoints/{name}/invocations", post(by_path))
        .route("/gateway/{name}/invocations", post(by_path))
        .with_state(Arc::new(api))
}

async fn by_header(State(api): State<Arc<InvocationApi>>, request: Request) -> Response {
    let named = request.headers().get(ENDPOINT).map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned());
    api.call(named.as_deref(), request).await
}

async fn by_path(State(api): State<Arc<InvocationApi>>, Path(name): Path<String>, request: Request) -> Response {
    api.call(Some(&name), request).await
}

impl InvocationApi {
    async fn call(&self, named: Option<&str>, request: Request) -> Response {
        let correlation = Uuid::now_v7();
        let endpoint = match self.endpoints.find(named) {
            Ok(endpoint) => endpoint,
            Err(fault) => {
                self.note("", &fault);
                return answer::of_fault(correlation, None, &fault);
            }
        };
        let call_metrics = CallMetrics::start(endpoint.clone(), self.endpoints.metrics.clone());
        let answer = match self.exchange(correlation, &endpoint, request).await {
            Ok(reply) => answer::of_reply(correlation, &endpoint.name, reply),
            Err(fault) => {
                debug!(%correlation, endpoint = endpoint.name, %fault, "a call got no reply");
                self.note(&endpoint.name, &fault);
                answer::of_fault(correlation, Some(&endpoint.name), &fault)
            }
        };
        call_metrics.finish(answer.status());
        answer
    }

    /// Notes a fault that no reply tells of.
    fn note(&self, endpoint: &str, fault: &Fault) {
        let (code, stage) = (fault.code, fault.stage.name());
        let kind = FaultKind { endpoint, route: "", code: code.name(), status: code.status(), stage };
        self.endpoints.metrics.faults.record(kind, fault.reason());
    }

    /// Produces the request and waits for its reply. Once this future has ended, or was dropped because the caller hung
    /// up, nothing waits under the correlation id any more.
    async fn exchange(&self, correlation: Uuid, endpoint: &BoundEndpoint, request: Request) -> ReplyResult {
        let (head, body) = request.into_parts();
        let wait = wait(&head.headers, endpoint.timeout)?;
        let deadline = Instant::now() + wait;
        let record_deadline = wall_clock() + wait.saturating_sub(WAY_BACK.min(wait / 20));

        // The slot comes before the body: a call that may not wait is refused before its body is read.
        let slot = self.pending.admit()?;
        let body = match timeout_at(deadline, body::read(body, self.max_body)).await {
            Ok(body) => body.map_err(|problem| self.unreadable(problem))?,
            Err(_) => return Err(late(format!("the body of the call had not arrived in full after {wait:?}"))),
        };
        let target = request_line(&head.method, &head.uri);
        let request = OutgoingRequest {
            correlation,
            endpoint: &endpoint.name,
            deadline: record_deadline,
            target: &target,
            http_headers: &head.headers,
            body: &body,
        };
        // The caller waits before the request is produced: the reply may be faster than the return of `send`.
        let mut waiter = slot.wait(correlation, request.size())?;
        self.producer.send(&request)?;
        // The producer's queue has a copy of the body, so this one need not stay in memory during the wait.
        drop::<Bytes>(body);

        match timeout_at(deadline, waiter.answer()).await {
            Ok(answer) => answer,
            Err(_) => Err(late(format!("no reply came within {wait:?}"))),
        }
    }

    fn unreadable(&self, problem: BodyProblem) -> Fault {
        match problem {
            BodyProblem::TooLarge => {
                let message =
                    format!("the body is larger than the {} bytes that server.max_body allows", self.max_body);
                Fault::permanent(Code::PayloadTooLarge, Stage::Route, message)
            }
            BodyProblem::Broken(error) => {
                Fault::permanent(Code::BadRequest, Stage::Route, format!("the body cannot be read: {error}"))
            }
        }
    }
}

/// Computes the waiting time of a caller: the endpoint's timeout, or less.
fn wait(headers: &HeaderMap, endpoint_timeout: Duration) -> Result<Duration, Fault> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(endpoint_timeout) };
    let milliseconds = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
    match milliseconds {
        Some(milliseconds) => Ok(endpoint_timeout.min(Duration::from_millis(milliseconds))),
        None => {
            let message = format!("the header {TIMEOUT} must be a whole number of milliseconds above 0");
            Err(Fault::permanent(Code::BadRequest, Stage::Route, message))
        }
    }
}

fn late(message: String) -> Fault {
    Fault::passing(Code::DeadlineExceeded, Stage::Publish, message)
}

/// Formats the request line, such as `POST /invocations?a=b`.
fn request_line(method: &Method, uri: &Uri) -> String {
    format!("{method} {}", uri.path_and_query().map_or("/", |target| target.as_str()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn wait_is_endpoint_timeout_or_less() {
        let wait = |text: &'static str| {
            let headers = HeaderMap::from_iter([("x-timeout-ms".parse().unwrap(), HeaderValue::from_static(text))]);
            super::wait(&headers, Duration::from_secs(1))
        };
        assert_eq!(super::wait(&HeaderMap::new(), Duration::from_secs(1)).unwrap(), Duration::from_secs(1));
        assert_eq!(wait("20").unwrap(), Duration::from_millis(20));
        assert_eq!(wait("5000").unwrap(), Duration::from_secs(1));
        for wrong in ["", "0", "-1", "1.5", "soon"] {
            assert_eq!(wait(wrong).unwrap_err().code.status(), 400, "{wrong}");
        }
    }

    #[test]
    fn request_line_has_method_path_and_query() {
        let uri = Uri::from_static("http://host/gateway/a%20b/invocations?a=b");
        assert_eq!(request_line(&Method::POST, &uri), "POST /gateway/a%20b/invocations?a=b");
    }
}
