//! Credentials by which a tracking server learns who is asking.

use std::fmt;
use std::path::Path;

use reqwest::RequestBuilder;

/// Credentials by which a tracking server learns who is asking.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Access {
    Open,
    Basic { username: String, password: Option<String> },
    Bearer(String),
}

impl Access {
    /// Reads the credentials as MLflow's own client does: a username and password win over a token, and the environment
    /// over `~/.mlflow/credentials`.
    pub(super) fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let given = |name| env(name).filter(|value| !value.is_empty());
        let file = given("HOME")
            .and_then(|home| std::fs::read_to_string(Path::new(&home).join(".mlflow/credentials")).ok())
            .unwrap_or_default();
        let username = given("MLFLOW_TRACKING_USERNAME").or_else(|| entry(&file, "mlflow_tracking_username"));
        if let Some(username) = username {
            let password = given("MLFLOW_TRACKING_PASSWORD").or_else(|| entry(&file, "mlflow_tracking_password"));
            return Self::Basic { username, password };
        }
        given("MLFLOW_TRACKING_TOKEN").map_or(Self::Open, Self::Bearer)
    }

    pub(super) fn add_to(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Open => request,
            Self::Basic { username, password } => request.basic_auth(username, password.as_deref()),
            Self::Bearer(token) => request.bearer_auth(token),
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Open => "Open",
            Self::Basic { .. } => "Basic",
            Self::Bearer(_) => "Bearer",
        })
    }
}

/// Reads the value of a key in section `[mlflow]` of MLflow's credentials file.
fn entry(file: &str, key: &str) -> Option<String> {
    let section = file.lines().map(str::trim).skip_while(|line| *line != "[mlflow]").skip(1);
    section
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case(key))
        .map(|(_, value)| value.trim().to_owned())
        .filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_wins_over_credentials_file() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".mlflow")).unwrap();
        let file = "[other]\nmlflow_tracking_username = eve\n[mlflow]\nmlflow_tracking_username = ann\n\
                    mlflow_tracking_password = a=b\n";
        std::fs::write(home.path().join(".mlflow/credentials"), file).unwrap();
        let home = home.path().to_str().unwrap();
        let access = |known: &[(&str, &str)]| {
            let known: Vec<_> = known.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Access::from_env(&|name| known.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
        };
        let basic = |username: &str, password: Option<&str>| Access::Basic {
            username: username.into(),
            password: password.map(Into::into),
        };
        let (user, token) = (("MLFLOW_TRACKING_USERNAME", "bob"), ("MLFLOW_TRACKING_TOKEN", "t"));
        assert_eq!(access(&[("HOME", home), token]), basic("ann", Some("a=b")));
        assert_eq!(access(&[("HOME", home), user]), basic("bob", Some("a=b")));
        assert_eq!(access(&[user, token]), basic("bob", None));
        assert_eq!(access(&[token]), Access::Bearer("t".into()));
        assert_eq!(access(&[("HOME", "/nowhere")]), Access::Open);
        assert!(!format!("{:?}", access(&[token])).contains('t'));
    }
}
