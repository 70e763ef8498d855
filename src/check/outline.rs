//! The outline of a checked configuration, in words that may be printed.

use crate::routing::condition::Language;

/// An endpoint in words that may be printed: with `${NAME}` where the environment gave the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointOutline {
    /// Its name.
    pub name: String,
    /// In the order of the file.
    pub routes: Vec<RouteOutline>,
}

/// A route in words that may be printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteOutline {
    /// What people call it.
    pub alias: String,
    /// What answers.
    pub model_uri: String,
    /// The language its condition is read as, and the condition.
    pub condition: Option<(Language, String)>,
}
