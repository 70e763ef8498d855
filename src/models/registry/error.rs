//! Errors of the registry.

/// Error for which the registry at a tracking URI cannot be used at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The text is not an address.
    #[error("the tracking URI `{0}` ({1}) is not an address: {2}")]
    NotAnAddress(String, &'static str, String),
    /// No HTTP client can be made.
    #[error("no HTTP client for the registry can be made: {0}")]
    Client(String),
}
