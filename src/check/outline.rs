//! The outline of a checked configuration, in words that may be printed.

use crate::routing::condition::Way;

/// An endpoint in words that may be printed: with `${NAME}` where the environment gave the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointOutline {
    /// Name of the endpoint.
    pub name: String,
    /// Routes of the endpoint, in the order of the file.
    pub routes: Vec<RouteOutline>,
    /// Other expressions of the endpoint, each with its key.
    pub expressions: Vec<(String, ExpressionOutline)>,
}

/// A route in words that may be printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteOutline {
    /// Alias of the route.
    pub alias: String,
    /// URI of the model that answers.
    pub model_uri: String,
    /// Condition of the route.
    pub condition: Option<ExpressionOutline>,
}

/// An expression in words that may be printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpressionOutline {
    /// Text of the expression.
    pub text: String,
    /// Way in which it is evaluated.
    pub way: Way,
    /// The part that keeps it from being compiled, where Python evaluates it, and what could be written instead.
    pub reason: Option<String>,
}
