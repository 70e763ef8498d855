//! Client of MLflow's own Python API, as processes (`mlflow_client.py`), for calls that have no REST form.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::address::RegistryAddresses;
use super::call::{RegistryAnswer, RegistryCall};
use super::rest::first_line;
use crate::invocation::in_words;
use crate::message::Fault;
use crate::models::faults::{not_found, unavailable};
use crate::models::host::{Child, Lost, Task, Template};
use crate::models::uri::redacted;

/// Longest time that MLflow's client may take for one call. It tries again after failures, for minutes if it is let.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Error code of the client when there is no store at the address that it was given.
const NO_STORE: &str = "NO_STORE";

/// Client of MLflow's own Python API, as processes that are forked from a template.
#[derive(Debug)]
pub(super) struct PythonClient {
    template: Arc<Template>,
    addresses: RegistryAddresses,
    /// The process that is kept for everyday calls, while no call is using it.
    lasting: Mutex<Option<Child>>,
}

/// Message to the process: the call itself, and the addresses that it goes to.
#[derive(Serialize)]
struct ClientCall<'a, Q> {
    tracking_uri: &'a str,
    registry_uri: Option<&'a str>,
    #[serde(flatten)]
    call: Q,
}

/// Downloads everything at `uri`, as this directory.
#[derive(Serialize)]
#[serde(tag = "operation", rename = "download")]
struct DownloadCall<'a> {
    uri: &'a str,
    directory: &'a Path,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ClientOutcome {
    Answer(Box<RegistryAnswer>),
    /// An exception of MLflow's client.
    Error {
        error_code: String,
        message: String,
    },
}

impl PythonClient {
    pub(super) fn new(template: Arc<Template>, addresses: RegistryAddresses) -> Self {
        Self { template, addresses, lasting: Mutex::default() }
    }

    /// Makes a call by the lasting process, one call after the other. A process that does not answer in time is killed,
    /// and so is one whose answer nobody waits for any longer; the next call gets a new one.
    pub(super) async fn ask(&self, call: RegistryCall<'_>) -> Result<RegistryAnswer, Fault> {
        let what = || format!("the registry at {} cannot be read", self.addresses.registry().shown());
        let asked = timeout(TIMEOUT, async {
            let mut lasting = self.lasting.lock().await;
            // A process is put back only after an answer, so that one that is lost while it is asked is never used
            // again.
            if let Some(mut process) = lasting.take().filter(|process| !process.is_gone())
                && let Ok(outcome) = self.ask_this(&mut process, &call).await
            {
                *lasting = Some(process);
                return outcome.into_result(what);
            }
            // The lasting process was gone, or was lost by this call: one new process gets the call once more.
            let mut process = self.fork(what).await?;
            let outcome = self.ask_this(&mut process, &call).await.map_err(|lost| failed(what, &lost))?;
            *lasting = Some(process);
            outcome.into_result(what)
        });
        asked.await.unwrap_or_else(|_| Err(failed(what, &format!("no answer within {}", in_words(TIMEOUT)))))
    }

    /// Downloads the artifacts at this URI as `directory`, which does not exist yet, by a process of its own.
    pub(super) async fn download(&self, uri: &str, directory: &Path) -> Result<(), Fault> {
        let what = || format!("the artifacts at {} cannot be downloaded", redacted(uri));
        let mut process = self.fork(what).await?;
        let outcome = self.ask_this(&mut process, &DownloadCall { uri, directory }).await;
        outcome.map_err(|lost| failed(what, &lost))?.into_result(what).map(|_| ())
    }

    async fn fork(&self, what: impl Fn() -> String) -> Result<Child, Fault> {
        self.template.fork(&Task::Clerk).await.map_err(|error| failed(what, &error))
    }

    async fn ask_this(&self, process: &mut Child, call: &impl Serialize) -> Result<ClientOutcome, Lost> {
        let errand = ClientCall {
            tracking_uri: &self.addresses.tracking.text,
            registry_uri: self.addresses.registry.as_ref().map(|registry| registry.text.as_str()),
            call,
        };
        let answer = process.ask(&errand, &[]).await?;
        serde_json::from_slice(&answer.head).map_err(|error| Lost::Garbled(error.to_string()))
    }
}

impl ClientOutcome {
    /// Converts an exception to a fault: an exception that would be a 400 or a 404 over REST will not come right by
    /// itself.
    fn into_result(self, what: impl Fn() -> String) -> Result<RegistryAnswer, Fault> {
        match self {
            Self::Answer(answer) => Ok(*answer),
            Self::Error { error_code, message } => Err(match error_code.as_str() {
                "RESOURCE_DOES_NOT_EXIST" | "INVALID_PARAMETER_VALUE" | "NOT_FOUND" => {
                    not_found(message.trim().to_owned())
                }
                NO_STORE => failed(
                    what,
                    &format!("{message}; check registry.tracking_uri (or MLFLOW_TRACKING_URI and MLFLOW_REGISTRY_URI)"),
                ),
                _ => failed(what, &format!("{error_code}: {}", first_line(&message))),
            }),
        }
    }
}

fn failed(what: impl Fn() -> String, why: &dyn fmt::Display) -> Fault {
    unavailable(format!("{} by MLflow's own client: {why}", what()))
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::message::Code;
    use crate::models::host::TemplateSpec;

    /// An address without a store says nothing about the model, and only the address can be mended.
    #[tokio::test]
    #[ignore = "needs MLflow; tests/run starts it"]
    async fn client_fault_names_the_setting_when_the_store_is_missing() {
        let python = crate::config::environment("SIGNALBOX_TEST_PYTHON").unwrap();
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let template = Template::new(TemplateSpec { python, ..Default::default() }, tasks.clone(), &closing);
        for (uri, why) in [
            ("foo://ann:secret@bar", "MLflow knows no such kind of store"),
            ("sqlite:////nowhere/mlflow.db", "there is no database /nowhere/mlflow.db"),
            ("/nowhere/mlruns", "there is no directory /nowhere/mlruns"),
        ] {
            let client = PythonClient::new(template.clone(), RegistryAddresses::read(Some(uri), &|_| None).unwrap());
            let fault = client.ask(RegistryCall::Model { name: "a" }).await.map(|_| ()).unwrap_err();
            assert_eq!((fault.code, fault.retryable), (Code::TemporarilyUnavailable, true), "{fault}");
            assert!(fault.message.contains(why) && fault.message.contains("registry.tracking_uri"), "{fault}");
            assert!(!fault.message.contains("secret"), "{fault}");
        }
        closing.cancel();
        tasks.close();
        tasks.wait().await;
    }

    /// A process that is gone, or that nobody waits for any longer, is replaced; each call gets its own answer.
    #[tokio::test]
    #[ignore = "needs MLflow; tests/run starts it"]
    async fn client_process_is_replaced_when_lost() {
        let store = tempfile::tempdir().unwrap();
        let python = crate::config::environment("SIGNALBOX_TEST_PYTHON").unwrap();
        let tasks = TaskTracker::new();
        let closing = CancellationToken::new();
        let template = Template::new(TemplateSpec { python, ..Default::default() }, tasks.clone(), &closing);
        let addresses = RegistryAddresses::read(store.path().to_str(), &|_| None).unwrap();
        let client = PythonClient::new(template, addresses);
        let ask = async |name: &str| {
            let fault = client.ask(RegistryCall::Model { name }).await.map(|_| ()).unwrap_err();
            assert_eq!((fault.code, fault.retryable), (Code::ResourceDoesNotExist, false), "{fault}");
            assert!(fault.message.contains(name), "{fault}");
        };
        let pid = async || client.lasting.lock().await.as_ref().map(Child::pid).unwrap();
        ask("first").await;
        let kept = pid().await;
        tokio::join!(ask("one"), ask("two"), ask("three"));
        assert_eq!(pid().await, kept);
        let killed = std::process::Command::new("kill").args(["-9", &kept.to_string()]).status();
        assert!(killed.unwrap().success());
        ask("after a kill").await;
        let kept = pid().await;
        tokio::select! {
            biased;
            () = ask("nobody waits") => panic!("it was answered at once"),
            () = std::future::ready(()) => {}
        }
        assert!(client.lasting.lock().await.is_none());
        ask("after that").await;
        assert_ne!(pid().await, kept);
        closing.cancel();
        tasks.close();
        tasks.wait().await;
    }
}
