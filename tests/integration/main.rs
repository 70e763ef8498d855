//! The tests that run against a real Apache Kafka, a real MLflow and the real binary; `tests/run` installs the first
//! two. One line a module.

#[path = "../support/mod.rs"]
#[cfg(test)]
mod support;

mod services;
