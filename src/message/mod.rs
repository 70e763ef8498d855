//! What travels: requests in, replies and faults out, and the headers that say which is which. No behaviour beyond
//! reading and writing them.

mod correlation;
mod fault;
mod headers;
mod parked;
mod reply;
mod request;

pub use correlation::{Correlation, Dialect};
pub use fault::{Code, Fault, Stage};
pub use headers::{Headers, HeadersBuilder};
pub use parked::{Added, Parked};
pub use reply::{Outcome, Reply, ServedBy};
pub use request::{Request, Source};

/// The names of the headers of the wire contract.
pub mod header {
    /// Which endpoint a request is for.
    pub const ENDPOINT: &str = "endpoint";
    /// Which request a reply answers: any bytes, echoed untouched.
    pub const CORRELATION_ID: &str = "kafka_correlationId";
    /// The topic that the reply goes to.
    pub const REPLY_TOPIC: &str = "kafka_replyTopic";
    /// The partition that the reply goes to: an int32 in big-endian bytes, or decimal text.
    pub const REPLY_PARTITION: &str = "kafka_replyPartition";
    /// What the bytes of a value are, on requests and replies.
    pub const CONTENT_TYPE: &str = "content-type";
    /// Unix time in milliseconds, as text, after which nobody wants the answer.
    pub const DEADLINE: &str = "deadline";
    /// The HTTP request line of a request that came through the shim: `POST /invocations?a=b`.
    pub const HTTP_TARGET: &str = "http-target";
    /// An HTTP status, as text.
    pub const STATUS: &str = "status";
    /// The alias of the route that answered.
    pub const ROUTE: &str = "route";
    /// The alias of the route that a request asks for, where its endpoint allows that.
    pub const ASKED_ROUTE: &str = "x-signalbox-route";
    /// On a reply, when the request asked for its route and got it: `true`.
    pub const ROUTE_OVERRIDE: &str = "route-override";
    /// The model URI of that route, as configured.
    pub const MODEL_URI: &str = "model-uri";
    /// The immutable version it stood for.
    pub const MODEL_VERSION: &str = "model-version";
    /// The alias of the route that was chosen first, when another had to take its place.
    pub const FALLBACK_FROM: &str = "fallback-from";
    /// On a shadow's record: the alias of the route whose answer the caller got.
    pub const SHADOW_OF: &str = "shadow-of";
    /// On a shadow's record: the status of what the caller got.
    pub const PRIMARY_STATUS: &str = "primary-status";
    /// On a shadow's record: the hash of what the caller got, as [`HASH`].
    pub const PRIMARY_HASH: &str = "primary-hash";
    /// On a shadow's record: how long the model took that answered the caller.
    pub const PRIMARY_LATENCY_MS: &str = "primary-latency-ms";
    /// On a shadow's record: the hash of its own value: XXH3 with 64 bits, as 16 hexadecimal digits.
    pub const HASH: &str = "hash";
    /// On a shadow's record: how long its model took, in milliseconds.
    pub const LATENCY_MS: &str = "latency-ms";
    /// How many times a model was called for the request.
    pub const ATTEMPTS: &str = "attempts";
    /// `topic/partition/offset` of the request.
    pub const SOURCE: &str = "source";
    /// Seconds, as text, after which a fault that passes may have passed.
    pub const RETRY_AFTER: &str = "retry-after";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
    /// W3C trace context.
    pub const TRACESTATE: &str = "tracestate";
    /// The prefix of headers that are carried through to the model and to the reply.
    pub const CARRIED_PREFIX: &str = "x-";

    /// Whether a request's header goes on to the model and the reply.
    pub fn is_carried(name: &str) -> bool {
        name == TRACEPARENT
            || name == TRACESTATE
            || name.get(..CARRIED_PREFIX.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(CARRIED_PREFIX))
    }
}
