//! RegistryAddresses of the registry: MLflow's tracking URI, and its registry's when that is another.

use reqwest::Url;

use super::error::RegistryError;
use crate::models::uri::{around_credentials, redacted};

/// Tracking URI when neither config nor environment names one.
const DEFAULT: &str = "http://127.0.0.1:5001";

/// MLflow's settings that only its own client can follow: signed requests, plugins that add credentials, a client
/// certificate. Any of them has all calls made by that client.
const ONLY_MLFLOW: [&str; 3] =
    ["MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_CLIENT_CERT_PATH"];

/// MLflow's tracking URI, and its registry URI: the same unless `MLFLOW_REGISTRY_URI` says otherwise.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::models) struct RegistryAddresses {
    pub(super) tracking: StoreAddress,
    /// The registry URI; none leaves it to MLflow: the tracking URI, or the URI that MLflow derives from it.
    pub(super) registry: Option<StoreAddress>,
}

/// Address of one of MLflow's stores, and whether it can be asked over REST.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct StoreAddress {
    /// The URI as MLflow is given it, with the password it may hold.
    pub text: String,
    /// The address of a tracking server, if it is one that Signalbox can ask itself.
    pub server: Option<Url>,
}

/// Origin of the tracking URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackingOrigin {
    /// `registry.tracking_uri`.
    Config,
    /// `MLFLOW_TRACKING_URI`.
    Environment,
    /// Neither of them.
    Default,
}

/// Returns the tracking URI that is used: the configured one, else `MLFLOW_TRACKING_URI`, else this machine's port 5001.
/// `env` reads an environment variable.
pub fn tracking_uri(configured: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> (String, TrackingOrigin) {
    match (configured, env("MLFLOW_TRACKING_URI").filter(|text| !text.is_empty())) {
        (Some(text), _) => (text.to_owned(), TrackingOrigin::Config),
        (None, Some(text)) => (text, TrackingOrigin::Environment),
        (None, None) => (DEFAULT.to_owned(), TrackingOrigin::Default),
    }
}

impl RegistryAddresses {
    /// Reads the configured tracking URI, else `MLFLOW_TRACKING_URI`, else this machine's port 5001; and
    /// `MLFLOW_REGISTRY_URI`. `env` reads an environment variable.
    pub(in crate::models) fn read(
        configured: Option<&str>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, RegistryError> {
        let given = |name| env(name).filter(|text: &String| !text.is_empty());
        let (text, origin) = tracking_uri(configured, env);
        let origin = match origin {
            TrackingOrigin::Config => "registry.tracking_uri",
            TrackingOrigin::Environment => "MLFLOW_TRACKING_URI",
            TrackingOrigin::Default => "the default of registry.tracking_uri",
        };
        let by_mlflow = ONLY_MLFLOW.into_iter().any(|name| given(name).is_some_and(|value| is_set(&value)));
        let registry =
            given("MLFLOW_REGISTRY_URI").map(|text| StoreAddress::read(text, "MLFLOW_REGISTRY_URI", by_mlflow));
        Ok(Self { tracking: StoreAddress::read(text, origin, by_mlflow)?, registry: registry.transpose()? })
    }

    /// Returns the environment by which a process's MLflow asks the same servers.
    pub(in crate::models) fn environment(&self) -> Vec<(String, String)> {
        let mut environment = vec![("MLFLOW_TRACKING_URI".to_owned(), self.tracking.text.clone())];
        environment.extend(self.registry.iter().map(|it| ("MLFLOW_REGISTRY_URI".to_owned(), it.text.clone())));
        environment
    }

    /// Returns the address that is asked about registered models.
    pub(super) fn registry(&self) -> &StoreAddress {
        self.registry.as_ref().unwrap_or(&self.tracking)
    }
}

impl StoreAddress {
    fn read(text: String, origin: &'static str, by_mlflow: bool) -> Result<Self, RegistryError> {
        if !text.starts_with("http://") && !text.starts_with("https://") {
            return Ok(Self { text, server: None });
        }
        let url = Url::parse(&text)
            .map_err(|error| RegistryError::NotAnAddress(redacted(&text).into_owned(), origin, error.to_string()))?;
        Ok(Self { text: text.trim_end_matches('/').to_owned(), server: (!by_mlflow).then_some(url) })
    }

    /// Tells whether the store hands out artifacts by the model's URI, as Databricks and Unity Catalog do.
    pub(super) fn has_own_way(&self) -> bool {
        matches!(self.text.split(':').next(), Some("databricks" | "databricks-uc" | "uc"))
    }

    /// Returns the address without credentials, so that it is the same whoever is asking.
    pub(super) fn without_credentials(&self) -> String {
        around_credentials(&self.text).map_or_else(|| self.text.clone(), |(scheme, rest)| format!("{scheme}{rest}"))
    }

    /// Returns the address with its credentials hidden, fit to be shown.
    pub(super) fn shown(&self) -> std::borrow::Cow<'_, str> {
        redacted(&self.text)
    }
}

impl std::fmt::Debug for RegistryAddresses {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let registry = self.registry.as_ref().map(StoreAddress::shown);
        formatter
            .debug_struct("Addresses")
            .field("tracking", &self.tracking.shown())
            .field("registry", &registry)
            .finish()
    }
}

/// Tells whether one of MLflow's switches is on; MLflow spells off as `false` or `0`.
fn is_set(value: &str) -> bool {
    !matches!(value.to_ascii_lowercase().as_str(), "false" | "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(configured: Option<&str>, env: &[(&str, &str)]) -> Result<RegistryAddresses, RegistryError> {
        let env: Vec<(String, String)> = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        RegistryAddresses::read(configured, &|name| {
            env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        })
    }

    #[test]
    fn config_wins_over_environment_and_default() {
        let tracking = ("MLFLOW_TRACKING_URI", "sqlite:///a.db");
        assert_eq!(read(Some("http://h:1/"), &[tracking]).unwrap().tracking.text, "http://h:1");
        assert_eq!(read(None, &[tracking]).unwrap().tracking.text, "sqlite:///a.db");
        assert_eq!(read(None, &[("MLFLOW_TRACKING_URI", "")]).unwrap().tracking.text, DEFAULT);
    }

    #[test]
    fn registry_uri_overrides_the_tracking_uri() {
        let both = read(Some("http://tracking"), &[("MLFLOW_REGISTRY_URI", "databricks-uc")]).unwrap();
        assert!(both.tracking.server.is_some() && both.registry().server.is_none());
        let environment = [("MLFLOW_TRACKING_URI", "http://tracking"), ("MLFLOW_REGISTRY_URI", "databricks-uc")];
        assert_eq!(both.environment(), environment.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let one = read(Some("http://tracking"), &[]).unwrap();
        assert_eq!((one.registry().text.as_str(), one.environment().len()), ("http://tracking", 1));
    }

    #[test]
    fn stores_without_http_are_left_to_mlflow() {
        for text in ["sqlite:///mlflow.db", "file:///mlruns", "/srv/mlruns", "mlruns", "databricks", "databricks://me"]
        {
            let tracking = read(Some(text), &[]).unwrap().tracking;
            assert!(tracking.server.is_none() && tracking.text == text);
        }
        for name in ONLY_MLFLOW {
            assert!(read(Some("https://h"), &[(name, "true")]).unwrap().tracking.server.is_none(), "{name}");
            assert!(read(Some("https://h"), &[(name, "False")]).unwrap().tracking.server.is_some(), "{name}");
        }
    }

    #[test]
    fn address_error_names_its_setting() {
        let error = read(Some("http://ann:secret@"), &[]).unwrap_err().to_string();
        assert!(error.contains("registry.tracking_uri") && !error.contains("secret"), "{error}");
        let error = read(None, &[("MLFLOW_REGISTRY_URI", "https://")]).unwrap_err().to_string();
        assert!(error.contains("MLFLOW_REGISTRY_URI"), "{error}");
        assert!(read(Some("databricks://me"), &[]).unwrap().tracking.has_own_way());
        let database = read(Some("postgresql://ann:secret@h/db"), &[]).unwrap();
        assert!(!database.tracking.has_own_way());
        assert_eq!(database.tracking.without_credentials(), "postgresql://h/db");
        let shown = format!("{database:?}");
        assert!(!shown.contains("secret") && shown.contains("@h/db"), "{shown}");
    }
}
