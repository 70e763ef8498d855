//! The request as Flask has it: what counts as JSON, and what happens where there is none.

use super::*;

fn evaluate_as(source: &str, content_type: &str, body: &str) -> Result<bool, ConditionError> {
    let request = Arc::new(Request {
        headers: Headers::from_pairs([("Content-Type", content_type.as_bytes())]),
        ..(*request(body)).clone()
    });
    let (conditions, id) = add(source).unwrap_or_else(|problem| panic!("{source}: {problem}"));
    assert_eq!(conditions.way(id), Way::Compiled, "{source}");
    conditions.evaluation(&request, None).holds(id)
}

#[test]
fn json_is_refused_when_content_type_is_another() {
    for content_type in
        ["text/csv", "text/plain; charset=utf-8", "application/xml", "", "application/jsonp", "text/json"]
    {
        for source in ["request.json['a'] == 1", "request.json()['a'] == 1", "len(request.get_json()) == 1"] {
            let error = evaluate_as(source, content_type, "{\"a\": 1}").unwrap_err();
            assert!(
                error.to_string().contains("415 Unsupported Media Type: Did not attempt"),
                "{content_type}: {error}"
            );
        }
        for source in [
            "request.get_json(force=True)['a'] == 1",
            "request.get_json(silent=True) is None",
            "(request.get_json(silent=True) or {}).get('a') is None",
            "request.get_json(force=True, silent=True)['a'] == 1",
            "not request.is_json",
        ] {
            assert_eq!(evaluate_as(source, content_type, "{\"a\": 1}"), Ok(true), "{source} as {content_type}");
        }
    }
}

#[test]
fn json_is_read_when_content_type_says_so() {
    for content_type in
        ["application/json", "APPLICATION/JSON; charset=utf-8", "application/problem+json", " application/json "]
    {
        for source in ["request.json['a'] == 1 and request.is_json", "request.get_json(silent=True)['a'] == 1"] {
            assert_eq!(evaluate_as(source, content_type, "{\"a\": 1}"), Ok(true), "{source} as {content_type}");
        }
    }
    let source = "request.mimetype == 'application/json' and request.content_type == 'Application/JSON; charset=x'";
    assert_eq!(evaluate_as(source, "Application/JSON; charset=x", ""), Ok(true));
}

#[test]
fn body_that_is_no_json_fails_or_is_none() {
    for body in ["", "{", "{\"a\": 1} x", "nope"] {
        let error = evaluate_as("len(request.json) == 1", "application/json", body).unwrap_err();
        assert!(error.to_string().contains("400 Bad Request: the body"), "{error}");
        for source in ["request.get_json(silent=True) is None", "(request.get_json(silent=True) or {'a': 2})['a'] == 2"]
        {
            assert_eq!(evaluate_as(source, "application/json", body), Ok(true), "{source} on {body}");
        }
        assert!(evaluate_as("request.get_json(silent=True)['a'] == 1", "application/json", body).is_err());
    }
    let deep = ["[", "]"].map(|bracket| bracket.repeat(501)).concat();
    evaluate_as("request.get_json(silent=True) is None", "application/json", &deep).unwrap_err();
}

#[test]
fn record_is_shown_beside_flask() {
    holds("request.offset == 17 and request.timestamp is None and request.partition == 3");
    holds("request.content_length == len(request.get_data(as_text=True).replace('ü', 'xx').replace('ï', 'xx'))");
    holds("request.is_json and request.mimetype == 'application/json'");
}
