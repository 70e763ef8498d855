//! The explanation of a misfit, in words for the person who wrote the file.
//!
//! The messages of serde are read for their kind and never passed on: they quote values, and a value may be a secret.

use super::unsupported::NOT_YET;

/// A misfit of a node, as serde found it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// A key that the struct does not have, and those it has. The error's path names the key.
    UnknownKey { valid: Vec<String> },
    /// A key that the struct must have.
    MissingKey(String),
    /// A name that is not among the possible ones.
    UnknownValue { valid: Vec<String> },
    /// A value of another kind than the expected one.
    Unexpected { expected: String },
    /// Words of a type that checks its own text.
    Other(String),
}

impl Misfit {
    /// Reads one of serde's own messages.
    pub(super) fn read(message: &str) -> Self {
        // A quoted value may hold backticks and `expected` itself, so the last `expected` counts: what follows it is
        // serde's.
        let expected = message.rsplit_once(", expected ").map(|(_, expected)| expected);
        let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        match (message, expected) {
            _ if message.starts_with("unknown field") => {
                Self::UnknownKey { valid: expected.map(quoted).unwrap_or_default() }
            }
            _ if message.starts_with("unknown variant") => {
                Self::UnknownValue { valid: expected.map(quoted).unwrap_or_default() }
            }
            _ if message.starts_with("missing field") => Self::MissingKey(quoted(message).concat()),
            _ if message == IP_ADDRESS => Self::Unexpected { expected: kind(message) },
            (_, Some(expected)) if message.starts_with("invalid") => Self::Unexpected { expected: kind(expected) },
            _ => Self::Other(message.to_owned()),
        }
    }
}

/// The message of the standard library about a text that is no IP address.
const IP_ADDRESS: &str = "invalid IP address syntax";

/// Translates the names that serde and the types have for what they expect.
fn kind(expected: &str) -> String {
    let kind = match expected {
        "a string" | "string" => "text (put it in quotes if it looks like a number)",
        "a boolean" => "true or false",
        "u16" => "a whole number from 0 to 65535",
        "usize" | "u64" => "a whole number, 0 or more",
        "i32" | "i64" => "a whole number",
        "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "a mapping",
        "a duration" => "a duration such as 250ms, 10s or 5m",
        "an integer or string" | "parsable string" | "integer overflow" => "a size such as 512KiB or 4GiB",
        "IP address" | IP_ADDRESS => "an IP address such as 127.0.0.1 or ::1",
        other if other.starts_with("struct ") => "a mapping of keys",
        other => other,
    };
    kind.to_owned()
}

/// Writes advice for an unknown key of the mapping at `parent`.
pub(super) fn help_for_key(parent: &str, key: &str, valid: &[String]) -> String {
    let supported = valid.iter().filter(|key| !NOT_YET.contains(&(parent, key)));
    advice(key, valid, supported, "valid keys")
}

/// Writes advice for an unknown value.
pub(super) fn help_for_value(value: &str, valid: &[String]) -> String {
    advice(value, valid, valid.iter(), "valid values")
}

fn advice<'a>(
    written: &str,
    all: &'a [String],
    supported: impl Iterator<Item = &'a String>,
    what: &'static str,
) -> String {
    let list = supported.map(String::as_str).collect::<Vec<_>>().join(", ");
    match closest(written, all) {
        Some(near) => format!("did you mean '{near}'? {what}: {list}"),
        None => format!("{what}: {list}"),
    }
}

/// Returns the candidate that was probably meant.
pub(super) fn closest<'a>(written: &str, candidates: &'a [String]) -> Option<&'a str> {
    let written = normalized(written);
    let distance = |candidate: &str| {
        let candidate = normalized(candidate);
        let abbreviates = written.len() >= 4 && candidate.contains(&written);
        if abbreviates { 1 } else { strsim::osa_distance(&written, &candidate) }
    };
    let limit = (written.chars().count() / 3).max(1);
    let (distance, candidate) =
        candidates.iter().map(|candidate| (distance(candidate), candidate)).min_by_key(|(distance, _)| *distance)?;
    (distance <= limit).then_some(candidate.as_str())
}

/// Normalizes a name, since `modelUri`, `model-uri` and `model_uri` are the same slip.
fn normalized(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closest_offers_name_when_near_and_none_when_far() {
        let keys = ["weight", "alias", "model_uri", "model_request_condition"].map(str::to_owned);
        for (written, wanted) in [
            ("weigth", Some("weight")),
            ("modelUri", Some("model_uri")),
            ("condition", Some("model_request_condition")),
            ("ailas", Some("alias")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(closest(written, &keys), wanted, "{written}");
        }
    }
}
