//! The outline of a checked configuration, in words that may be printed.

use crate::routing::condition::Language;

/// An endpoint in words that may be printed: with `${NAME}` where the environment gave the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointOutline {
    /// Name of the endpoint.
    pub name: String,
    /// Routes of the endpoint, in the order of the file.
    pub routes: Vec<RouteOutline>,
}

/// A route in words that may be printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteOutline {
    /// Alias of the route.
    pub alias: String,
    /// URI of the model that answers.
    pub model_uri: String,
    /// Language in which the condition is read, and the condition.
    pub condition: Option<(Language, String)>,
}
