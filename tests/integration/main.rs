//! The tests that run against a real Apache Kafka, a real MLflow and the real binary; `tests/run` installs the first
//! two. One line a module.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "../support/mod.rs"]
#[cfg(test)]
mod support;

mod binary;
mod quickstart;
mod services;
mod crash;
mod faults;
mod outage;
mod routing;
