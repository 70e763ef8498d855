//! The oracle: the same conditions on the same payloads, here and in CPython.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::*;

/// Errors that are allowed here and not in Python, as the module's documentation says.
const NARROWER: [&str; 11] = [
    "beyond 64 bits",
    "are not compared here",
    "are not ordered here",
    "the order of a set",
    "'dict view'",
    "is not supported in conditions",
    "knows only the digits 0 to 9",
    "fewer than 0 digits",
    "a complex number",
    "half of a character",
    "nested deeper than 500 levels",
];

#[derive(Deserialize)]
struct Case {
    condition: String,
    /// Body in hexadecimal.
    body: String,
    outcome: PythonOutcome,
    /// True if Python can read the body.
    is_json: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PythonOutcome {
    Truth(bool),
    Raised(#[expect(dead_code, reason = "shown when outcomes differ")] String),
}

/// Longest time of one evaluation, compiled without optimisation and on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(2);

/// `SIGNALBOX_ORACLE_SEED` and `SIGNALBOX_ORACLE_CASES` choose others.
#[test]
#[ignore = "needs python3"]
fn conditions_agree_with_cpython() {
    let setting = |name: &str, default: &str| crate::config::environment(name).unwrap_or_else(|| default.to_owned());
    let (seed, cases) = (setting("SIGNALBOX_ORACLE_SEED", "1"), setting("SIGNALBOX_ORACLE_CASES", "10000"));
    let output = Command::new("python3")
        .args(["-c", include_str!("oracle.py")])
        .args([&seed, &cases])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success());
    let (mut differences, mut refused) = (Vec::new(), Vec::new());
    let (mut agreed, mut raised, mut beside, mut narrower) = (0, 0, 0, 0);
    let mut reasons = std::collections::BTreeMap::new();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let case: Case = serde_json::from_slice(line).unwrap();
        let payload = bytes(&case.body);
        let shown = String::from_utf8_lossy(&payload);
        let ours = match add(&case.condition) {
            Ok((conditions, id)) if conditions.way(id) == Way::Compiled => {
                let (begun, request) = (Instant::now(), oracle_request(&payload));
                let ours = conditions.evaluation(&request, None).holds(id);
                assert!(begun.elapsed() < LIMIT, "{:?}: {} on {shown}", begun.elapsed(), case.condition);
                ours
            }
            left => {
                let problem = left.map_or_else(
                    |problem| problem.to_string(),
                    |(conditions, id)| conditions.reason(id).map(ToString::to_string).unwrap_or_default(),
                );
                refused.push(format!("{problem}\n    {}\n    {:?}", case.condition, case.outcome));
                continue;
            }
        };
        match (&ours, &case.outcome) {
            (Ok(ours), PythonOutcome::Truth(truth)) if ours == truth => agreed += 1,
            (Err(ConditionError::Failed(_)), PythonOutcome::Raised(_)) => raised += 1,
            // The broken part may lie after the value that was read.
            (Ok(_), PythonOutcome::Raised(_)) if !case.is_json => beside += 1,
            (Err(error), PythonOutcome::Truth(_)) if NARROWER.iter().any(|known| error.to_string().contains(known)) => {
                narrower += 1;
                *reasons.entry(error.to_string()).or_insert(0) += 1;
            }
            _ => differences
                .push(format!("{}\n    on {shown}\n    here {ours:?}, in Python {:?}", case.condition, case.outcome)),
        }
    }
    println!("{agreed} agreed, {raised} raised in both, {narrower} documented as narrower, {} refused", refused.len());
    println!("{beside} were not JSON after the value that was read");
    println!("narrower: {reasons:#?}");
    for refused in refused.iter().take(15) {
        println!("refused: {refused}");
    }
    // The shortest differences show best what is wrong.
    differences.sort_by_key(String::len);
    assert!(
        differences.is_empty(),
        "with SIGNALBOX_ORACLE_SEED={seed} SIGNALBOX_ORACLE_CASES={cases}, {} differ, the shortest first:\n{}",
        differences.len(),
        differences[..differences.len().min(25)].join("\n")
    );
    assert!(refused.len() * 20 < agreed + raised, "too many were refused");
    assert!(agreed > raised, "too few give an answer at all");
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = hexadecimal.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn oracle_request(payload: &[u8]) -> Arc<Request> {
    Arc::new(Request {
        headers: Headers::from_pairs([
            ("x-tier", &b"gold"[..]),
            ("X-User-Id", b"42"),
            ("http-target", b"POST /invocations?a=1&b=x+y"),
        ]),
        ..(*request_of(payload)).clone()
    })
}
