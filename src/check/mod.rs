//! The checks of a configuration: the rules that its types cannot express, and the file that may change while it is in
//! use.
//!
//! `config` holds what is written, and imports nothing that runs. These checks stand above `routing`, `models` and
//! `replies`, because a condition is checked by compiling it and a route test by deciding its request.

mod batch;
mod canary;
mod decision;
mod listing;
mod endpoint;
mod file;
mod hosting;
mod kafka;
mod load;
mod outline;
mod process;
mod properties;
mod recovery;
mod reload;
mod route_tests;
mod secrets;
mod shares;
mod validator;

#[cfg(test)]
mod tests;

pub use file::{ConfigFile, load};
pub use listing::effective;
pub use load::{CheckedConfig, parse};
pub use outline::{EndpointOutline, ExpressionOutline, RouteOutline};
pub use reload::Reloader;
