//! The processes that hold models, and the one that they are forked from.
//!
//! ```text
//! signalbox ── template ─┬─ host: one version of one model, on some threads   (forked)
//!     one per interpreter ├─ clerk: MLflow's own client, for what has no REST   (forked)
//!                         └─ server: `mlflow models serve`                      (forked, then executed)
//! ```
//!
//! A *template* has imported MLflow and the configured libraries once, so that what is forked from it has them at once
//! and shares their memory. It ends when its end of a socket pair closes, and takes its children with it, so that none
//! of them outlives Signalbox, however that ends. Children are spoken to over socket pairs as well: none of these sockets
//! has a name, so none can be stale.

mod child;
mod control;
mod environment;
mod frame;
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
pub(crate) use load::{Example, HostSpec, LoadReport, Phases, Proof};
pub(crate) use model_host::ModelHost;
pub(crate) use output_log::OutputLog;
pub(crate) use server::{Server, ServerSpec};
pub(crate) use template::{Task, Template, TemplateSpec};
pub(crate) use threads::Late;

#[cfg(test)]
mod tests;
