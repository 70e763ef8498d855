//! Configures a Signalbox that hosts models of a registry, as a rule without a Kafka.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;

use super::{Mlflow, Signalbox, fresh_directory};

/// Builds the config of a Signalbox that hosts models, with a cache directory of its own.
pub(crate) struct Hosting {
    endpoints: String,
    /// The section `kafka` of the config.
    pub(crate) kafka: String,
    registry: String,
    models: String,
    /// The directory of the artifacts.
    pub(crate) cache: PathBuf,
    environment: Vec<(&'static str, OsString)>,
}

impl Hosting {
    /// Hosts models of this registry; none yet.
    pub(crate) fn of(mlflow: &Mlflow) -> Self {
        Self::of_registry(&mlflow.tracking_uri())
    }

    /// Hosts models in directories of this machine, without a registry; none yet.
    pub(crate) fn of_directories() -> Self {
        Self::of_registry("http://127.0.0.1:9")
    }

    /// Hosts models of the registry at this address; none yet.
    pub(crate) fn of_registry(tracking_uri: &str) -> Self {
        Self {
            endpoints: String::new(),
            kafka: "{bootstrap_servers: embedded, partitions: 2}".to_owned(),
            registry: format!("tracking_uri: \"{tracking_uri}\""),
            models: String::new(),
            cache: fresh_directory("cache"),
            environment: vec![("PYTHONHASHSEED", "0".into())],
        }
    }

    /// Adds an endpoint whose only route leads to this model.
    pub(crate) fn endpoint(self, name: &str, model_uri: &str) -> Self {
        self.endpoint_with(name, model_uri, "60s", "")
    }

    /// Adds an endpoint with a timeout, and with more keys of the route (`, workers: 2`).
    pub(crate) fn endpoint_with(mut self, name: &str, model_uri: &str, timeout: &str, keys: &str) -> Self {
        let route = format!("{{model_uri: \"{model_uri}\", alias: only{keys}}}");
        writeln!(self.endpoints, "  - {{name: {name}, timeout: {timeout}, routes: [{route}]}}").unwrap();
        self
    }

    /// Adds a key of `models`, such as `memory_limit: 1GiB`.
    pub(crate) fn models(mut self, key: &str) -> Self {
        writeln!(self.models, "  {key}").unwrap();
        self
    }

    /// Adds a key of `registry`, such as `refresh: 200ms`.
    pub(crate) fn registry(mut self, key: &str) -> Self {
        write!(self.registry, ", {key}").unwrap();
        self
    }

    /// Adds a variable of the process's environment.
    pub(crate) fn variable(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Starts the Signalbox.
    pub(crate) fn start(&self) -> Signalbox {
        Signalbox::start_with(&self.config(), self.environment.clone())
    }

    /// Starts the Signalbox, and does not wait until it is ready.
    pub(crate) fn spawn(&self) -> Signalbox {
        Signalbox::spawn_with(&self.config(), self.environment.clone())
    }

    fn config(&self) -> String {
        format!(
            "model_endpoints:\n{}kafka: {}\nserver: {{port: 0}}\n\
             registry: {{{}}}\nmodels:\n  python: \"{}\"\n  cache: {{directory: \"{}\"}}\n{}",
            self.endpoints,
            self.kafka,
            self.registry,
            Mlflow::python().display(),
            self.cache.display(),
            self.models,
        )
    }
}
