//! Signalbox: a message-queue driven inference router for MLflow models.
//!
//! # Layout
//!
//! A process is started and wired:
//!
//! - [`cli`]: the command line, one file for each command
//! - [`config`]: the configuration as it is written, key by key; imports nothing that runs
//! - [`check`]: the checks that the types of a configuration cannot express, and its reload
//! - [`app`]: the wiring of all parts of a process, their start and their shutdown
//!
//! A request travels:
//!
//! - [`message`]: what travels, a request and then a reply or a fault, with the names of all headers
//! - [`broker`]: the clients of Kafka, its topics, and the embedded broker
//! - [`shim`]: the HTTP side, which writes each call as a request and waits for its reply
//! - [`callers`]: the HTTP callers that wait for a reply
//! - [`intake`]: the consumer, which reads requests, limits those in flight and commits their offsets
//! - [`pipeline`]: the steps of one request, from the deadline to the answer, and the live state of each route
//! - [`routing`]: the choice of a route by conditions, shares and decision services
//! - [`canary`]: the canaries, whose shares move by themselves
//! - [`evaluators`]: the Python processes that evaluate the conditions which are not compiled
//! - [`models`]: the models, resolved, loaded into hosts, kept in memory and unloaded
//! - [`invocation`]: the call of a model, by MLflow's scoring protocol, and the policies of breakers and retries
//! - [`replies`]: the publishing of replies, dead letters and parked requests, at least once or exactly once
//!
//! Operators see and mend:
//!
//! - [`telemetry`]: the metrics, the log, and the readiness of a process
//! - [`page`]: the status page, and the JSON that it shows
//! - [`doctor`]: the examination of all that a configuration needs, before it is started
//! - [`batch`]: the rows of a file, asked about over Kafka and written with their answers
//! - [`redrive`]: the way of dead letters back to the topic that they came from

pub mod app;
pub mod batch;
pub mod broker;
pub mod callers;
pub mod canary;
pub mod check;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod evaluators;
pub mod intake;
pub mod invocation;
pub mod message;
pub mod models;
pub mod page;
pub mod pipeline;
pub mod redrive;
pub mod replies;
pub mod routing;
pub mod shim;
pub mod telemetry;
