//! The values that are never shown: passwords, tokens, and what stands before the `@` of an address.

use crate::config::document::PathStep;
use crate::models::redacted;

/// Value that stands for a secret. It is a text that any key of text takes.
const MASK: &str = "***";

/// Parts of names, of properties and of variables, whose values are secrets.
const SECRET: [&str; 8] =
    ["password", "passphrase", "secret", "token", "credential", "key.pem", "api_key", "oauthbearer.config"];

/// Parts of names whose values are none, though their names have one of the above.
const PUBLIC: [&str; 3] = ["token.endpoint", "credentials.client.id", "token.method"];

/// Returns what is shown of a value that has a secret in it; none when all of it may be shown. `variables` are those of
/// the environment that it came from.
pub(super) fn masked(path: &[PathStep], text: &str, variables: &[String]) -> Option<String> {
    let property = match path {
        [PathStep::Key(kafka), PathStep::Key(properties), PathStep::Key(name)]
            if kafka == "kafka" && properties == "properties" =>
        {
            Some(name.as_str())
        }
        _ => None,
    };
    let names = property.into_iter().chain(variables.iter().map(String::as_str));
    if !text.is_empty() && names.into_iter().any(is_secret) {
        return Some(MASK.to_owned());
    }
    let shown = redacted(text);
    (shown != text).then(|| shown.into_owned())
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|part| name.contains(part)) && !PUBLIC.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property(name: &str) -> Vec<PathStep> {
        ["kafka", "properties", name].map(|key| PathStep::Key(key.to_owned())).to_vec()
    }

    #[test]
    fn secrets_are_masked_and_nothing_else() {
        for (name, is_masked) in [
            ("sasl.password", true),
            ("ssl.key.password", true),
            ("ssl.key.pem", true),
            ("sasl.oauthbearer.client.secret", true),
            ("sasl.oauthbearer.config", true),
            ("sasl.oauthbearer.token.endpoint.url", false),
            ("sasl.username", false),
            ("ssl.ca.location", false),
        ] {
            assert_eq!(masked(&property(name), "hunter2", &[]).as_deref(), is_masked.then_some("***"), "{name}");
        }
        let uri = [PathStep::Key("registry".to_owned()), PathStep::Key("tracking_uri".to_owned())];
        assert_eq!(masked(&uri, "https://ann:hunter2@host/a", &[]).as_deref(), Some("https://***@host/a"));
        assert_eq!(masked(&uri, "https://host/a@b", &[]), None);
        assert_eq!(masked(&uri, "hunter2", &["MLFLOW_TOKEN".to_owned()]).as_deref(), Some("***"));
        assert_eq!(masked(&uri, "http://host", &["MLFLOW_HOST".to_owned()]), None);
    }
}
