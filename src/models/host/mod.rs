//! Runs the processes that hold models, and the template that they are forked from.
//!
//! ```text
//! signalbox ── template ──┬─ host: one version of one model, on some threads            (forked)
//!     one per interpreter ├─ client: MLflow's own client, for stores without REST       (forked)
//!                         ├─ evaluator: conditions that need Python, of `evaluators`    (forked)
//!                         └─ server: `mlflow models serve`                              (forked, then executed)
//! ```
//!
//! A *template* is a fork server (a zygote): it has imported MLflow and the configured libraries once, so that each
//! child that is forked from it has the imports at once and shares their memory. A template ends when Signalbox's end
//! of its socket pair closes, and takes its children with it, so that no child outlives Signalbox, however Signalbox
//! ends. Signalbox speaks to children over socket pairs as well: none of these sockets has a name, so none can be
//! stale.

mod child;
mod control;
mod environment;
pub(crate) mod frame;
mod interpreter;
mod load;
mod model_host;
mod output;
mod output_log;
mod process;
mod protocol;
mod server;
mod template;
mod threads;

pub(crate) use child::{Child, Lost};
pub(crate) use interpreter::{ENVIRONMENT_FILES, EnvironmentFiles, Interpreter};
pub(crate) use load::{ExampleResult, HostSpec, LoadReport, Phases, WarmUpResult};
pub(crate) use model_host::ModelHost;
pub(crate) use output_log::OutputLog;
pub(crate) use server::ServerSpec;
pub(crate) use template::{Task, Template, TemplateSpec};
pub(crate) use threads::Late;

#[cfg(test)]
mod tests;
