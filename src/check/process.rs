//! Checks of what a process has once: `server`, `registry`, `models` and `conditions`.

use super::validator::{KeyPath, Validator, is_served_elsewhere};
use crate::config::Config;

impl Validator<'_> {
    pub(super) fn process(&mut self, config: &Config) {
        let (server, registry, models) =
            (KeyPath::default().key("server"), KeyPath::default().key("registry"), KeyPath::default().key("models"));
        self.require(config.server.max_body.as_u64() >= 1, &server.key("max_body"), "must be at least 1");
        let max_value = config.kafka.limits.value;
        if config.server.max_body > max_value {
            let message = format!("a body is the value of a record, of which kafka.limits.value allows {max_value}");
            self.error(&server.key("max_body"), message, "lower it, or raise kafka.limits.value");
        }
        self.require(config.server.max_pending >= 1, &server.key("max_pending"), "must be at least 1");
        let partition = config.server.reply_partition;
        self.require(partition.is_none_or(|it| it >= 0), &server.key("reply_partition"), "must be 0 or more");
        if let Some(uri) = &config.registry.tracking_uri
            && !is_tracking_uri(uri)
        {
            let at = registry.key("tracking_uri");
            // The message leaves out the value: an address may hold a password.
            let help = "such as http://127.0.0.1:5001, sqlite:////srv/mlflow.db, /srv/mlruns or databricks";
            self.error(&at, "not a tracking URI of MLflow", help);
        }
        self.positive(config.registry.refresh, &registry.key("refresh"));
        self.require(!config.models.python.is_empty(), &models.key("python"), "must name an interpreter");
        self.positive(config.models.load_timeout, &models.key("load_timeout"));
        let some_memory = config.models.memory_limit.is_none_or(|limit| limit.as_u64() > 0);
        self.require(some_memory, &models.key("memory_limit"), "must be more than nothing");
        self.require(config.models.concurrent_loads >= 1, &models.key("concurrent_loads"), "must be at least 1");
        let conditions = KeyPath::default().key("conditions");
        self.require(config.conditions.evaluators >= 1, &conditions.key("evaluators"), "must be at least 1");
        self.positive(config.conditions.timeout, &conditions.key("timeout"));
        let some_memory = config.conditions.max_memory.as_u64() > 0;
        self.require(some_memory, &conditions.key("max_memory"), "must be more than nothing");
        for (key, uris) in [("preload", &config.models.preload), ("pin", &config.models.pin)] {
            for (index, uri) in uris.iter().enumerate() {
                let at = models.key(key).index(index);
                self.model_uri(uri, &at);
                if is_served_elsewhere(uri) {
                    self.error(&at, "nothing is loaded for what is served elsewhere", "leave it out");
                }
            }
        }
    }
}

/// Tells whether MLflow takes a text for a tracking URI. A text without a scheme is one: a directory, or the name of a
/// plugin such as `databricks`.
fn is_tracking_uri(text: &str) -> bool {
    match reqwest::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => url.has_host(),
        Ok(_) => true,
        Err(_) => !text.is_empty() && !text.contains("://"),
    }
}
