//! Signalbox: a message-queue driven inference router for MLflow models.
//!
//! A request travels through the modules in this order:

pub mod cli; // what is typed: one file a command
pub mod app; // the wiring
pub mod config; // what the user writes
pub mod check; // what the types cannot say
pub mod message; // what travels: request, reply, fault
pub mod broker; // Kafka itself: clients, topics, the embedded broker
pub mod shim; // the HTTP door
pub mod callers; // who waits there
pub mod intake; // requests in
pub mod pipeline; // the path of one request, step by step
pub mod routing; // which route
pub mod canary; // whose share moves by itself
pub mod models; // what a route points at
pub mod invocation; // calling it
pub mod replies; // results out
pub mod redrive; // dead letters back in
pub mod telemetry; // what operators see
