//! What a request ends in.

use std::sync::Arc;

use bytes::Bytes;

use super::Fault;

/// A model's answer, passed on byte for byte.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The media type of the body.
    pub content_type: String,
    /// What the model said, `{"predictions": …}`.
    pub body: Bytes,
}

/// Who made an answer, or would have made it. Filled in as far as the request came.
#[derive(Debug, Clone, Default)]
pub struct ServedBy {
    /// The endpoint the request was for.
    pub endpoint: Option<Arc<str>>,
    /// The alias of the chosen route.
    pub route: Option<Arc<str>>,
    /// Whether the request asked for that route itself, and was allowed to.
    pub route_override: bool,
    /// That route's model URI, as configured.
    pub model_uri: Option<Arc<str>>,
    /// The immutable version it stood for.
    pub model_version: Option<Arc<str>>,
    /// The alias of the route that was chosen first, when another had to take its place.
    pub fallback_from: Option<Arc<str>>,
    /// How many times a model was called.
    pub attempts: u32,
}

/// What a request ends in, and who made it so.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How far the request came.
    pub served_by: ServedBy,
    /// The answer.
    pub result: Result<Reply, Fault>,
}
