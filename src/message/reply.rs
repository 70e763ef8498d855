//! Outcomes of a request: its reply or fault, and who made it.

use std::sync::Arc;

use bytes::Bytes;

use super::Fault;

/// Holds a model's answer, passed on byte for byte.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The media type of the body.
    pub content_type: String,
    /// The model's answer, `{"predictions": …}`.
    pub body: Bytes,
}

/// Names the route and the model that made an answer, or would have made it. Filled in as far as the request came.
#[derive(Debug, Clone, Default)]
pub struct ServedBy {
    /// The endpoint the request was for.
    pub endpoint: Option<Arc<str>>,
    /// The alias of the chosen route.
    pub route: Option<Arc<str>>,
    /// Tells whether the request asked for that route itself, and was allowed to.
    pub route_override: bool,
    /// The model URI of that route, as configured.
    pub model_uri: Option<Arc<str>>,
    /// The immutable version that the model URI stood for.
    pub model_version: Option<Arc<str>>,
    /// The alias of the route that was chosen first, when another had to take its place.
    pub fallback_from: Option<Arc<str>>,
    /// The number of model calls.
    pub attempts: u32,
}

/// Holds the end of a request, and who made it so.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The route and the model, as far as the request came to them.
    pub served_by: ServedBy,
    /// The answer.
    pub result: Result<Reply, Fault>,
}
