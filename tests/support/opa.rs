//! Runs Open Policy Agent itself, on the binary that `tests/run` builds.

use std::path::PathBuf;
use std::time::Duration;

use super::{Process, free_port, fresh_directory, installed, signal, wait_until};

const READY_WITHIN: Duration = Duration::from_secs(60);

/// Owns an OPA server with one policy.
pub(crate) struct Opa {
    directory: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl Opa {
    /// Starts a server whose policy is this Rego.
    pub(crate) fn start(policy: &str) -> Self {
        let directory = fresh_directory("opa");
        std::fs::write(directory.join("policy.rego"), policy).unwrap();
        let mut opa = Self { directory, port: free_port(), process: None };
        opa.start_again();
        opa
    }

    /// Returns the address of a document of OPA's data API, such as `routing/route`.
    pub(crate) fn url(&self, document: &str) -> String {
        format!("http://127.0.0.1:{}/v1/data/{document}", self.port)
    }

    /// Starts the server again after [`Self::kill`], on its port.
    pub(crate) fn start_again(&mut self) {
        let binary = installed("SIGNALBOX_TEST_OPA", "opa/bin/opa");
        let address = format!("127.0.0.1:{}", self.port);
        let command = [binary.to_str().unwrap(), "run", "--server", "--skip-version-check", "--log-level", "info"];
        let command = command.into_iter().chain(["--addr", &address, "policy.rego"]);
        self.process = Some(Process::start("opa", &self.directory, &[], command));
        let log = || self.process.as_ref().unwrap().log();
        wait_until("OPA to listen", READY_WITHIN, || {
            std::net::TcpStream::connect(&address).ok().or_else(|| {
                assert!(!log().contains("error:"), "{}", log());
                None
            })
        });
    }

    /// Ends the server on the spot.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Suspends the server: its connections stay open, and nothing is answered.
    pub(crate) fn stand_still(&self) {
        signal("STOP", self.process.as_ref().expect("it runs").pid());
    }

    /// Resumes the server after [`Self::stand_still`].
    pub(crate) fn go_on(&self) {
        signal("CONT", self.process.as_ref().expect("it runs").pid());
    }
}
