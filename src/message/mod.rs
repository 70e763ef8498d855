//! Messages: requests in, replies and faults out, the headers that say which is which, and the deadline of a request. No
//! behaviour beyond reading, writing and timing them.

mod correlation;
mod deadline;
mod fault;
mod headers;
mod parked;
mod reply;
mod request;
mod wall_clock;

pub use correlation::{Correlation, Dialect};
pub use deadline::{Deadline, Step};
pub use fault::{Code, Fault, Stage};
pub use headers::{Headers, HeadersBuilder};
pub use parked::{Added, Parked};
pub use reply::{Outcome, Reply, ServedBy};
pub use request::{Request, Source};
pub use wall_clock::{since_1970, unix_milliseconds, wall_clock};

/// Names the headers of the wire contract.
pub mod header {
    /// The endpoint that a request is for.
    pub const ENDPOINT: &str = "endpoint";
    /// The id by which a reply is matched to its request: any bytes, echoed untouched.
    pub const CORRELATION_ID: &str = "kafka_correlationId";
    /// The topic that the reply goes to.
    pub const REPLY_TOPIC: &str = "kafka_replyTopic";
    /// The partition that the reply goes to: an int32 in big-endian bytes, or decimal text.
    pub const REPLY_PARTITION: &str = "kafka_replyPartition";
    /// The media type of a value, on requests and replies.
    pub const CONTENT_TYPE: &str = "content-type";
    /// The time after which nobody wants the answer: Unix time in milliseconds, as text.
    pub const DEADLINE: &str = "deadline";
    /// The HTTP request line of a request that came through the shim: `POST /invocations?a=b`.
    pub const HTTP_TARGET: &str = "http-target";
    /// The HTTP status of a reply, as text.
    pub const STATUS: &str = "status";
    /// The alias of the route that answered.
    pub const ROUTE: &str = "route";
    /// The alias of the route that a request asks for, where its endpoint allows that.
    pub const ASKED_ROUTE: &str = "x-signalbox-route";
    /// A mark on the reply to a request that asked for its route and got it: `true`.
    pub const ROUTE_OVERRIDE: &str = "route-override";
    /// The model URI of that route, as configured.
    pub const MODEL_URI: &str = "model-uri";
    /// The immutable version that the model URI stood for.
    pub const MODEL_VERSION: &str = "model-version";
    /// The alias of the route that was chosen first, when another had to take its place.
    pub const FALLBACK_FROM: &str = "fallback-from";
    /// The alias of the route whose answer the caller got, on a shadow's record.
    pub const SHADOW_OF: &str = "shadow-of";
    /// The status of the answer that the caller got, on a shadow's record.
    pub const PRIMARY_STATUS: &str = "primary-status";
    /// The hash of the answer that the caller got, computed as [`HASH`], on a shadow's record.
    pub const PRIMARY_HASH: &str = "primary-hash";
    /// The time that the model took which answered the caller, in milliseconds, on a shadow's record.
    pub const PRIMARY_LATENCY_MS: &str = "primary-latency-ms";
    /// The hash of the value of a shadow's record: XXH3 with 64 bits, as 16 hexadecimal digits.
    pub const HASH: &str = "hash";
    /// The time that a shadow's model took, in milliseconds.
    pub const LATENCY_MS: &str = "latency-ms";
    /// The number of calls of a model for the request.
    pub const ATTEMPTS: &str = "attempts";
    /// The request's place, as `topic/partition/offset`.
    pub const SOURCE: &str = "source";
    /// The time after which a passing fault may have passed: seconds, as text.
    pub const RETRY_AFTER: &str = "retry-after";
    /// The `traceparent` of the W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
    /// The `tracestate` of the W3C trace context.
    pub const TRACESTATE: &str = "tracestate";
    /// The prefix of headers that are carried through to the model and to the reply.
    pub const CARRIED_PREFIX: &str = "x-";

    /// Tells whether a request's header goes on to the model and the reply.
    pub fn is_carried(name: &str) -> bool {
        name == TRACEPARENT
            || name == TRACESTATE
            || name.get(..CARRIED_PREFIX.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(CARRIED_PREFIX))
    }
}
