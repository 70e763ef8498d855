//! The answer of a service with Open Policy Agent's data API.

use serde::Deserialize;
use serde_json::Value;

/// The body `{"result": …}`. Without a result the document that was asked for is undefined.
#[derive(Deserialize)]
struct DataApiAnswer {
    result: Option<Value>,
}

/// Returns the alias in `{"result": "alias"}` or `{"result": {"route": "alias"}}`; none when the result is undefined.
///
/// # Errors
/// Fails when the body is anything else.
pub(super) fn alias_in(body: &[u8]) -> Result<Option<String>, String> {
    let answer: DataApiAnswer = serde_json::from_slice(body)
        .map_err(|_| "its answer is not the JSON of a data API, {\"result\": \"alias\"}".to_owned())?;
    let named = match answer.result {
        Some(Value::Object(mut rules)) => rules.remove("route"),
        result => result,
    };
    match named {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(alias)) => Ok(Some(alias)),
        Some(_) => Err("its result is neither an alias nor {\"route\": \"alias\"}".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alias_in_reads_route_no_opinion_or_error() {
        let alias = |body: &str| alias_in(body.as_bytes());
        for body in [r#"{"result": "fast"}"#, r#"{"result": {"route": "fast", "why": 1}, "decision_id": "x"}"#] {
            assert_eq!(alias(body), Ok(Some("fast".to_owned())), "{body}");
        }
        for body in ["{}", r#"{"result": null}"#, r#"{"result": {}}"#, r#"{"result": {"route": null}}"#] {
            assert_eq!(alias(body), Ok(None), "{body}");
        }
        for body in ["", "fast", "[]", r#"{"result": true}"#, r#"{"result": ["fast"]}"#, r#"{"result": {"route": 1}}"#]
        {
            assert!(alias(body).is_err(), "{body}");
        }
    }
}
