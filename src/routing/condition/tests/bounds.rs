//! Bounds of conditions: work, depth and stack, and random texts.

use super::*;

#[test]
fn condition_is_exceeded_when_beyond_budget() {
    let long = format!("[{}0]", "1,".repeat(300_000));
    for (source, body) in [
        ("len('a' * 10 ** 9) > 1", "{}"),
        ("len('a' * 9223372036854775807) > 1", "{}"),
        ("len([1] * 10 ** 9) > 1", "{}"),
        ("len('a' * 1000000 + 'b' * 7000000 + 'c' * 7000000) > 1", "{}"),
        ("len(('a' * 100000).replace('a', 'b' * 100000)) > 1", "{}"),
        ("any(x in request.json() for x in request.json() if x == 2)", long.as_str()),
        ("all(0 in request.json() for x in request.json())", long.as_str()),
    ] {
        assert!(matches!(evaluate_on(source, body), Err(ConditionError::Exceeded(_))), "{source}");
    }
    assert_eq!(evaluate_on("request.json()[-1] == 0 and 0 in request.json()", &long), Ok(true));
}

#[test]
fn condition_holds_when_payload_has_large_texts() {
    let body = format!("{{\"a\": \"{}\"}}", "x".repeat(5 << 20));
    assert_eq!(
        evaluate_on("request.json()['a'].startswith('xx') and len(request.json()['a']) == 5242880", &body),
        Ok(true)
    );
    assert_eq!(
        evaluate_on("request.json()['a'].upper().endswith('X') and 'y' not in request.json()['a']", &body),
        Ok(true)
    );
    assert_eq!(evaluate_on("rhai: request.json()[\"a\"].starts_with(\"xx\")", &body), Ok(true));
}

#[test]
fn condition_fails_when_nesting_is_too_deep() {
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("-", ""),
        ("not ", ""),
        ("1 if 1 else ", ""),
        ("2 ** ", ""),
        ("len(", ")"),
        ("{1: ", "}"),
        ("lambda: ", ""),
        ("x[", "]"),
    ] {
        for depth in [20, 23, 100, 1_500] {
            let source = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            if let Ok((conditions, id)) = add(&source) {
                let _ = conditions.evaluation(&request(BODY), None).holds(id);
            }
            let native = format!("rhai: {source}");
            if let Ok((conditions, id)) = add(&native) {
                let _ = conditions.evaluation(&request(BODY), None).holds(id);
            }
        }
    }
    for chain in [" + 1", ".a", "[0]", " and 1", " < 1", ".get(1)", " or 'x'", "()", " * -1"] {
        for length in [20, 2_000] {
            if let Ok((conditions, id)) = add(&format!("request.json(){}", chain.repeat(length))) {
                let _ = conditions.evaluation(&request(BODY), None).holds(id);
            }
        }
    }
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    for body in [deep.clone(), format!("{{\"a\": {deep}, \"b\": 1}}"), "{\"a\":".repeat(100_000)] {
        assert!(evaluate_on("request.json()['c'] == 1", &body).is_err());
        assert!(evaluate_on("len(request.json()) == 1", &body).is_err());
    }
    assert_eq!(evaluate_on("request.json()['b'] == 1", &format!("{{\"a\": {deep}, \"b\": 1}}")), Ok(true));
}

#[test]
fn deep_values_compare() {
    let body = format!("{{\"a\": {0}1{1}, \"b\": {0}1{1}}}", "[".repeat(120), "]".repeat(120));
    assert_eq!(evaluate_on("request.json()['a'] == request.json()['b']", &body), Ok(true));
}

proptest::proptest! {
    #[test]
    fn condition_does_not_panic_when_text_and_payload_are_random(source in ".{0,60}", body in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
        let request = Arc::new(Request { payload: Some(body.into()), ..(*request("")).clone() });
        for source in [source.clone(), format!("rhai:{source}"), format!("request.json(){source}")] {
            if let Ok((conditions, id)) = add(&source) {
                let _ = conditions.evaluation(&request, None).holds(id);
            }
        }
    }

    /// Conditions that are nearly right: with something cut out, repeated, or put in.
    #[test]
    fn condition_does_not_panic_when_damaged(
        source in proptest::sample::select(vec![
            "request.json()['dataframe_split']['data'][0][0].startswith('Domain') and not request.headers.get('x', 'y') == 'z'",
            "any(row[1] * 2 ** 3 > -1.5e3 for row in request.json().get('data', [])[::2] if isinstance(row, (list, tuple)))",
            "{'a': [1, (2,), {3}]}['a'][0:1] + [None] < [\"ü\\n\\x41\"] if 1 < 2 <= 3 else 'x' not in ('x' * 3).split('x')",
        ]),
        cut in 0..120usize, length in 0..8usize, put in ".{0,4}", body in "[\\[\\]{}:,0-9a\" .eNTrunl-]{0,40}",
    ) {
        let characters: Vec<char> = source.chars().collect();
        let at = cut.min(characters.len());
        let end = (at + length).min(characters.len());
        let before: String = characters[..at].iter().collect();
        for rest in [&characters[end..], &characters[at.saturating_sub(length)..]] {
            let source = format!("{before}{put}{}", rest.iter().collect::<String>());
            if let Ok((conditions, id)) = add(&source) {
                let _ = conditions.evaluation(&request(&body), None).holds(id);
            }
        }
    }

    #[test]
    fn condition_does_not_panic_when_text_is_python_like(tokens in proptest::collection::vec(proptest::sample::select(vec![
        "request", ".json", "()", "['a']", "[0]", "[-1]", "[1:]", ".get", "('a')", "(", ")", "[", "]", " and ", " or ", " not ", " in ",
        " is ", "None", "True", "'a'", "1", "-1", "0", "2.5", " < ", " == ", " + ", " * ", " ** ", " // ", " % ", ",", " if ", " else ",
        " for ", "x", "any", "all", "len", "str", "int", ".split", ".upper()", "{", "}", ":", ".headers", "10**9",
    ]), 0..14), body in "[\\[\\]{}:,0-9a\" .e-]{0,40}") {
        let source = tokens.concat();
        if let Ok((conditions, id)) = add(&source) {
            let _ = conditions.evaluation(&request(&body), None).holds(id);
        }
    }
}

/// Reaches the deepest text that compiles.
#[test]
fn deepest_conditions_run_on_small_stack() {
    let run = || {
        let mut accepted = 0;
        for width in [1, 3, 8, 23] {
            for depth in 1..24 {
                let open = format!("('' or {}", "0 or ".repeat(width));
                let source = format!("{}'x'{} == 'x'", open.repeat(depth), ")".repeat(depth));
                let compared = format!("{}1{}", "(1 if 0 < ".repeat(depth), " < 3 else 2)".repeat(depth));
                let searched = format!(
                    "{source} and any({compared} and {source} for x in [1] if any(all({source} for z in 'a') for y in (2,)))"
                );
                for source in [source, compared, searched] {
                    if let Ok((conditions, id)) = add(&source)
                        && conditions.way(id) == Way::Compiled
                    {
                        accepted += 1;
                        assert_eq!(conditions.evaluation(&request(BODY), None).holds(id), Ok(true), "{source}");
                    }
                }
            }
        }
        assert!(accepted > 30, "{accepted}");
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}
