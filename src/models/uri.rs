//! Model URIs: the values of a route's `model_uri`.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use reqwest::Url;

/// Stages of MLflow's registry. It compares them without regard to case.
const STAGES: [&str; 4] = ["None", "Staging", "Production", "Archived"];

/// Forms that a model URI can take, as every error about one lists them.
const FORMS: &str = "models:/name/Production (or another stage), models:/name/3, models:/name/latest, \
                     models:/name@alias, models:/m-… (a logged model's id), ./directory, /directory or file:///directory \
                     (a model on this machine), http(s)://host:port (something that serves MLflow's protocol)";

/// Value of a route's `model_uri`: the text as configured, and its meaning.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelUri {
    text: Arc<str>,
    target: ModelTarget,
}

/// Kinds of model that a URI can name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModelTarget {
    /// A model of the registry, and the pick of one of its versions.
    Registered {
        /// The registered model's name.
        name: String,
        /// The pick of a version.
        pick: VersionPick,
    },
    /// A model that a run has logged, by its id (`m-…`).
    Logged {
        /// The id, with its `m-`.
        model_id: String,
    },
    /// A model's directory on this machine, the one that holds `MLmodel`.
    Directory {
        /// The path: absolute, or relative to the directory that Signalbox was started in.
        path: PathBuf,
    },
    /// A server that already speaks MLflow's scoring protocol.
    Address {
        /// The address that requests are posted to; it ends in `/invocations`.
        invocations: Url,
    },
    /// `builtin:noop` answers `{"predictions": []}` inside this process, at once. It exists to measure the cost of
    /// everything around a model.
    Noop,
}

/// Pick of one version of a registered model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum VersionPick {
    /// The version with this number.
    Version(u64),
    /// The highest version.
    Latest,
    /// The highest version in this stage; in the registry's own spelling.
    Stage(&'static str),
    /// The version with this alias. Aliases differ by case.
    Alias(String),
}

/// Error for a text that is no model URI, with the forms that would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a model URI: {problem}. It can be {FORMS}")]
pub struct ModelUriError {
    /// The text, without any password.
    pub text: String,
    /// The problem with the text.
    pub problem: String,
}

impl ModelUri {
    /// Parses a model URI. Nothing is looked up.
    ///
    /// # Errors
    ///
    /// The text is none of the forms that a model URI can take.
    pub fn parse(text: &str) -> Result<Self, ModelUriError> {
        let target =
            parse_target(text).map_err(|problem| ModelUriError { text: redacted(text).into_owned(), problem })?;
        Ok(Self { text: text.into(), target })
    }

    /// Returns the text as configured.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Returns the kind of model that it names.
    pub fn target(&self) -> &ModelTarget {
        &self.target
    }
}

impl fmt::Display for ModelUri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

fn parse_target(text: &str) -> Result<ModelTarget, String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if text.chars().any(|character| character.is_control()) || text.trim() != text {
        return Err("it has a space at an end, or a control character".into());
    }
    match scheme_of(text) {
        Some("models") => parse_models(text),
        Some("http" | "https") => parse_address(text),
        Some("file") => parse_file(text),
        Some("builtin") if text == "builtin:noop" => Ok(ModelTarget::Noop),
        Some("builtin") => Err("the only model built in is builtin:noop".into()),
        Some("runs") => Err("a run's artifact is not served; register it, or take the id of the logged model".into()),
        Some(scheme) => Err(format!("`{scheme}:` is not a known scheme")),
        None if text.starts_with('.') || text.contains('/') => Ok(ModelTarget::Directory { path: text.into() }),
        None => Err(format!(
            "it could be a model's name (then write models:/{text}/Production) or a directory (then write ./{text})"
        )),
    }
}

/// Finds the scheme before the first colon, if the text there can be one. Paths may hold colons after their first
/// slash.
fn scheme_of(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|character| character.is_ascii_alphanumeric() || "+-.".contains(character));
    is_scheme.then_some(scheme)
}

fn parse_models(text: &str) -> Result<ModelTarget, String> {
    let rest = text.strip_prefix("models:/").ok_or("`models:` is followed by one slash")?;
    if rest.starts_with('/') {
        return Err(
            "`models:` is followed by one slash, not by a host; which registry is asked is `registry.tracking_uri`"
                .into(),
        );
    }
    let (name, pick) = match rest.split('/').collect::<Vec<_>>()[..] {
        [only] => match only.rsplit_once('@') {
            Some((_, "")) => return Err("the alias after `@` is empty".into()),
            Some((name, alias)) => (name, VersionPick::Alias(alias.to_owned())),
            None if only.len() > 2 && only.starts_with("m-") => {
                return Ok(ModelTarget::Logged { model_id: only.to_owned() });
            }
            None if only.is_empty() => return Err("the model's name is missing".into()),
            None => {
                return Err(format!("which version is missing (for example models:/{only}/Production)"));
            }
        },
        [name, pick] => (name, parse_pick(name, pick)?),
        _ => return Err("there is more than a name and a version or stage; names hold no slash".into()),
    };
    if name.is_empty() {
        return Err("the model's name is missing".into());
    }
    if name.contains(':') {
        return Err("a model's name holds no colon".into());
    }
    Ok(ModelTarget::Registered { name: name.to_owned(), pick })
}

fn parse_pick(name: &str, text: &str) -> Result<VersionPick, String> {
    if text.is_empty() {
        return Err("the version, or the stage, after the name is missing".into());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(VersionPick::Version).map_err(|_| format!("version {text} is too large a number"));
    }
    if text.eq_ignore_ascii_case("latest") {
        return Ok(VersionPick::Latest);
    }
    STAGES.iter().find(|stage| stage.eq_ignore_ascii_case(text)).map(|stage| VersionPick::Stage(stage)).ok_or_else(
        || {
            let stages = STAGES.join(", ");
            format!("`{text}` is not a stage; the stages are {stages} (an alias is written models:/{name}@{text})")
        },
    )
}

fn parse_address(text: &str) -> Result<ModelTarget, String> {
    let mut url = Url::parse(text).map_err(|error| error.to_string())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a name or password in the address would be shown on replies and in logs".into());
    }
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/');
    let path = if path.ends_with("/invocations") { path.to_owned() } else { format!("{path}/invocations") };
    url.set_path(&path);
    Ok(ModelTarget::Address { invocations: url })
}

fn parse_file(text: &str) -> Result<ModelTarget, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let path = url.to_file_path().map_err(|()| "the file is on another machine".to_owned())?;
    Ok(ModelTarget::Directory { path })
}

/// Hides the name and password that the text's address may hold.
pub(crate) fn redacted(text: &str) -> Cow<'_, str> {
    match around_credentials(text) {
        Some((scheme, rest)) => format!("{scheme}***@{rest}").into(),
        None => text.into(),
    }
}

/// Splits an address around its name and password: `https://`, and the text that follows their `@`; none without them.
pub(super) fn around_credentials(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_at(text.find("://")? + "://".len());
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    Some((scheme, &rest[authority.rfind('@')? + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(text: &str) -> ModelTarget {
        ModelUri::parse(text).unwrap_or_else(|error| panic!("{error}")).target
    }

    fn registered(name: &str, pick: VersionPick) -> ModelTarget {
        ModelTarget::Registered { name: name.into(), pick }
    }

    #[test]
    fn parse_reads_every_form() {
        assert_eq!(target("models:/sentiment/production"), registered("sentiment", VersionPick::Stage("Production")));
        assert_eq!(target("models:/a b/NONE"), registered("a b", VersionPick::Stage("None")));
        assert_eq!(target("models:/sentiment/12"), registered("sentiment", VersionPick::Version(12)));
        assert_eq!(target("models:/sentiment/Latest"), registered("sentiment", VersionPick::Latest));
        assert_eq!(
            target("models:/sentiment@Champion"),
            registered("sentiment", VersionPick::Alias("Champion".into()))
        );
        assert_eq!(target("models:/a@b@c"), registered("a@b", VersionPick::Alias("c".into())));
        assert_eq!(target("models:/a@b/3"), registered("a@b", VersionPick::Version(3)));
        assert_eq!(target("models:/m-c79f81"), ModelTarget::Logged { model_id: "m-c79f81".into() });
        assert_eq!(target("./model"), ModelTarget::Directory { path: "./model".into() });
        assert_eq!(target("models/a:b"), ModelTarget::Directory { path: "models/a:b".into() });
        assert_eq!(target("file:///srv/my%20model"), ModelTarget::Directory { path: "/srv/my model".into() });
        assert_eq!(target("builtin:noop"), ModelTarget::Noop);
    }

    #[test]
    fn address_ends_in_invocations() {
        let posted = |text| match target(text) {
            ModelTarget::Address { invocations } => invocations.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(posted("http://127.0.0.1:5000"), "http://127.0.0.1:5000/invocations");
        assert_eq!(posted("http://h/a/"), "http://h/a/invocations");
        assert_eq!(posted("https://h/a/invocations"), "https://h/a/invocations");
        assert_eq!(posted("https://h/a/invocations/?k=v#x"), "https://h/a/invocations?k=v");
    }

    #[test]
    fn parse_error_names_problem_and_forms() {
        for (text, problem) in [
            ("", "it is empty"),
            (" models:/a/1", "it has a space"),
            ("models:/", "name is missing"),
            ("models://host/a/1", "not by a host"),
            ("models:a/1", "one slash"),
            ("models:/a", "for example models:/a/Production"),
            ("models:/a/", "after the name is missing"),
            ("models:/a@", "the alias after `@` is empty"),
            ("models:/@champion", "name is missing"),
            ("models:/a/prod", "models:/a@prod"),
            ("models:/a/99999999999999999999", "too large"),
            ("models:/a/b/1", "names hold no slash"),
            ("models:/m-", "which version is missing"),
            ("sentiment", "models:/sentiment/Production"),
            ("runs:/0123/model", "register it"),
            ("s3://bucket/model", "not a known scheme"),
            ("builtin:echo", "builtin:noop"),
            ("http://", "host"),
            ("http://ann:secret@h/", "would be shown"),
            ("file://elsewhere/model", "another machine"),
        ] {
            let error = ModelUri::parse(text).unwrap_err();
            assert!(error.problem.contains(problem), "{error}");
            assert!(error.to_string().contains("models:/name@alias"), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn parse_never_panics_and_keeps_the_text(text in "(models:/|http://|file:|\\./)?\\PC{0,40}") {
            if let Ok(uri) = ModelUri::parse(&text) {
                prop_assert_eq!(uri.to_string(), text);
            }
        }

        #[test]
        fn parse_keeps_registered_names(name in "[a-zA-Z0-9_@. -]*[a-z0-9]", version in any::<u64>()) {
            let text = format!("models:/{name}/{version}");
            prop_assert_eq!(target(&text), registered(&name, VersionPick::Version(version)));
        }
    }
}
