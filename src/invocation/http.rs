//! The HTTP backend: a model's server, called by MLflow's scoring protocol.

use std::error::Error;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, Response, StatusCode, Url};

use tokio::net::TcpStream;

use super::call::{Call, Failure};
use super::exceptions::ExceptionLog;
use super::meaning::meaning_of;
use crate::message::{Code, Fault, Reply, Stage, header};

/// Bytes of the largest answer that is taken where no other limit is given: an answer is held in memory as a whole.
pub(crate) const LARGEST_REPLY: usize = 64 << 20;

/// Bytes of an error's body that are read; the rest of a longer one is left unread.
const LONGEST_ERROR: usize = 1 << 20;

/// Calls a server that speaks MLflow's scoring protocol, over a pool of connections.
#[derive(Debug)]
pub struct HttpBackend {
    client: Client,
    invocations: Url,
    /// Model URI, as configured, by which messages name the model.
    model: Arc<str>,
    exceptions: ExceptionLog,
    owner: ServerOwner,
}

/// Names the owner of the server at an address, on whom depends how long an idle connection is kept, and how an error
/// is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerOwner {
    /// Signalbox runs the server, which keeps idle connections longer than we do.
    Signalbox,
    /// Others run the server. Servers close idle connections of their own accord (uvicorn after five seconds), and a
    /// request sent at that moment is lost; so such connections are given up before.
    Others,
}

impl HttpBackend {
    /// Prepares calls of the server that takes requests at this URL. Nothing is connected yet.
    pub fn new(invocations: Url, model: Arc<str>, owner: ServerOwner, connections: usize) -> Result<Self, Fault> {
        let idle = match owner {
            ServerOwner::Signalbox => Duration::from_secs(60),
            ServerOwner::Others => Duration::from_secs(4),
        };
        let builder = http_client(&invocations)
            .connect_timeout(Duration::from_secs(3))
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(connections)
            .pool_idle_timeout(idle);
        let client = builder.build().map_err(|error| {
            let message = format!("no HTTP client for {model} can be made: {}", root_cause(&error));
            Fault::permanent(Code::InternalError, Stage::Load, message)
        })?;
        Ok(Self { client, invocations, exceptions: ExceptionLog::new(Arc::clone(&model)), model, owner })
    }

    /// Pings the server (`GET /ping`, beside `/invocations`), and tells whether it says that it is up.
    pub async fn ping(&self) -> bool {
        let Ok(url) = self.invocations.join("ping") else { return false };
        let answer = self.client.get(url).timeout(Duration::from_secs(2)).send().await;
        answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
    }

    /// Tells whether anything accepts connections at the address: a server that is merely busy does.
    pub async fn is_listening(&self) -> bool {
        let (Some(host), Some(port)) = (self.invocations.host_str(), self.invocations.port_or_known_default()) else {
            return false;
        };
        !matches!(TcpStream::connect((host, port)).await, Err(error) if error.kind() == ErrorKind::ConnectionRefused)
    }

    /// Posts the payload, and waits for the whole answer, of no more bytes than `largest_answer`.
    pub async fn invoke(&self, call: Call<'_>, largest_answer: usize) -> Result<Reply, Failure> {
        let limit = call.timeout;
        tokio::time::timeout(limit, self.post(call, largest_answer)).await.unwrap_or_else(|_| {
            let message = format!("{} did not answer within {}", self.model, in_words(limit));
            Err(Fault::passing(Code::DeadlineExceeded, Stage::Invoke, message).into())
        })
    }

    async fn post(&self, call: Call<'_>, largest: usize) -> Result<Reply, Failure> {
        let headers = headers_of(&call)?;
        let request = self.client.post(self.invocations.clone()).headers(headers).body(call.payload);
        let answer = request.send().await.map_err(|error| self.broken(&error))?;
        let status = answer.status();
        let content_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or("application/json").to_owned();
        let retry_after = retry_after(answer.headers());
        if status.is_success() {
            let body = read_body(answer, largest).await.map_err(|error| self.broken(&error))?;
            let body = body.ok_or_else(|| too_large(&self.model, largest))?;
            return Ok(Reply { content_type, body });
        }
        let body = read_body(answer, LONGEST_ERROR).await.map_err(|error| self.broken(&error))?.unwrap_or_default();
        let meaning = meaning_of(status.as_u16(), retry_after, &body);
        if let Some(traceback) = &meaning.traceback {
            self.exceptions.log(&meaning.fault, traceback);
        }
        // MLflow's own server failed over the request itself: it cannot read the payload, or not write the model's answer.
        // Only its log says which.
        let is_uncaught = status == StatusCode::INTERNAL_SERVER_ERROR && body == "Internal Server Error";
        if self.owner == ServerOwner::Signalbox && is_uncaught {
            let message = "MLflow's server could not read the payload, or not write the model's answer as JSON; the log \
                           says why";
            return Err(Fault::permanent(Code::ModelError, Stage::Invoke, message).into());
        }
        Err(meaning.fault.into())
    }

    /// Makes the failure of a connection that cannot be made, or that broke.
    fn broken(&self, error: &reqwest::Error) -> Failure {
        let address = self.invocations.origin().ascii_serialization();
        let cause = root_cause(error);
        let message = if error.is_connect() {
            format!("{} cannot be reached at {address}: {cause}", self.model)
        } else {
            format!("the connection to {} at {address} broke before it answered: {cause}", self.model)
        };
        Failure { fault: Fault::passing(Code::TemporarilyUnavailable, Stage::Invoke, message), disconnected: true }
    }
}

/// Reads a body, which is copied only if it comes in several pieces. None when the body is larger than `largest`; then no
/// more of it is read.
pub(crate) async fn read_body(mut answer: Response, largest: usize) -> Result<Option<Bytes>, reqwest::Error> {
    let announced = usize::try_from(answer.content_length().unwrap_or(0)).unwrap_or(usize::MAX);
    if announced > largest {
        return Ok(None);
    }
    let first = answer.chunk().await?.unwrap_or_default();
    let Some(second) = answer.chunk().await? else { return Ok(Some(first).filter(|first| first.len() <= largest)) };
    let mut body = BytesMut::with_capacity(announced.max(first.len() + second.len()));
    body.extend_from_slice(&first);
    body.extend_from_slice(&second);
    while body.len() <= largest {
        match answer.chunk().await? {
            Some(piece) => body.extend_from_slice(&piece),
            None => return Ok(Some(body.freeze())),
        }
    }
    Ok(None)
}

/// Makes the fault of an answer of more bytes than may travel, or be held in memory.
pub(crate) fn too_large(model: &str, largest: usize) -> Fault {
    let size = match largest >> 20 {
        mebibytes if mebibytes << 20 == largest => format!("{mebibytes} MiB"),
        _ => format!("{largest} bytes"),
    };
    let message = format!(
        "the answer of {model} is larger than {size}, the most that a reply may have; ask for fewer rows, or raise \
         message.max.bytes of the broker and in kafka.properties"
    );
    Fault::permanent(Code::PayloadTooLarge, Stage::Invoke, message)
}

/// Begins a client for this address, with the settings of all our clients. A loopback address is never reached by a proxy.
pub fn http_client(url: &Url) -> ClientBuilder {
    let builder = Client::builder().tcp_nodelay(true).user_agent(concat!("signalbox/", env!("CARGO_PKG_VERSION")));
    if is_loopback(url) { builder.no_proxy() } else { builder }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Collects the content type, which MLflow's server cannot do without, and the carried headers. A header that HTTP
/// cannot carry is left out, except the content type: without it the payload means something else.
fn headers_of(call: &Call<'_>) -> Result<HeaderMap, Fault> {
    let content_type = HeaderValue::from_str(call.content_type).map_err(|_| {
        let message = format!("the content type {:?} holds characters that HTTP cannot carry", call.content_type);
        Fault::permanent(Code::UnsupportedMediaType, Stage::Invoke, message)
    })?;
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, content_type);
    for (name, value) in call.headers.iter().filter(|(name, _)| header::is_carried(name)) {
        let Some(value) = value else { continue };
        match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            (Ok(name), Ok(value)) => drop(headers.append(name, value)),
            _ => tracing::debug!(header = name, "a header is not passed on to the model: HTTP cannot carry it"),
        }
    }
    Ok(headers)
}

/// Reads `Retry-After` in its usual form, seconds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Finds the root cause of an error: `Connection refused`, not `error sending request`. The text never shows the URL.
pub(crate) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if cause.is::<reqwest::Error>() {
        return if error.is_timeout() { "it took too long".to_owned() } else { "the request failed".to_owned() };
    }
    cause.to_string()
}

/// Writes a duration as people do: in whole milliseconds, if it has any.
pub(crate) fn in_words(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1000.0;
    if milliseconds < 1.0 {
        return format!("{duration:?}");
    }
    format!("{:?}", Duration::try_from_secs_f64(milliseconds.round() / 1000.0).unwrap_or(duration))
}

#[cfg(test)]
mod tests;
