//! Signalbox: a message-queue driven inference router for MLflow models.
//!
//! A request travels through the modules in this order:

pub mod config; // what the user writes
pub mod message; // what travels: request, reply, fault
pub mod broker; // Kafka itself: clients, topics, the embedded broker
pub mod intake; // requests in
pub mod replies; // results out
pub mod telemetry; // what operators see
