//! Random files: each gets an answer, and the answer is about a place in that file.

use proptest::prelude::*;

use super::{CONDITIONAL, GATEWAY, REFERENCE, env};
use crate::check::parse;

/// Files a slip or two away from a valid one.
fn slips() -> impl Strategy<Value = String> {
    let bases = prop::sample::select(vec![GATEWAY, CONDITIONAL, REFERENCE]);
    let pieces = prop::sample::select(vec![
        "",
        ":",
        "- ",
        "  ",
        "\n",
        "[",
        "]",
        "{",
        "}",
        "'",
        "\"",
        "${PORT}",
        "${X",
        "$${",
        "&a ",
        "*a",
        "<<: ",
        "!t ",
        "|",
        ">-\n",
        "é",
        "\u{F0000}",
        "\u{F1001}",
        "null",
        "99999999999999999999",
        "-1",
        ".inf",
        "? ",
        "# ",
        "\t",
        "\r",
        "\0",
        "---\n",
        "%YAML 1.2\n",
    ]);
    (bases, prop::collection::vec((any::<prop::sample::Index>(), 0..40_usize, pieces), 1..6)).prop_map(
        |(base, slips)| {
            let mut characters: Vec<char> = base.chars().collect();
            for (place, removed, inserted) in slips {
                let from = place.index(characters.len() + 1).min(characters.len());
                let to = (from + removed).min(characters.len());
                characters.splice(from..to, inserted.chars());
            }
            characters.into_iter().collect()
        },
    )
}

/// Checks that each problem of a text is about a place inside it.
fn check_any(text: &str) -> Result<(), TestCaseError> {
    let problems = match parse(text, "any.yaml", &env) {
        Ok(loaded) => loaded.warnings.problems,
        Err(report) => {
            prop_assert!(report.errors() > 0);
            report.problems
        }
    };
    let lines = text.split(['\n', '\r']).count();
    for problem in problems {
        let message = problem.to_string();
        prop_assert!(!message.contains("hunter2"), "{}", message);
        prop_assert!(problem.at.is_none_or(|at| at.line >= 1 && at.line <= lines && at.column >= 1), "{}", message);
    }
    Ok(())
}

proptest! {
    #[test]
    fn parse_answers_when_text_is_random(text in "(?s).{0,200}") {
        check_any(&text)?;
    }

    #[test]
    fn parse_answers_when_text_is_yaml_like(text in r"([a-z]{1,3}|[-:?&*!|>'\x22{}\[\],# \n$~]|: |- |\n  |\$\{SECRET\}|\$\{A:-b\}|<<: |model_endpoints: |kafka: ){0,60}") {
        check_any(&text)?;
    }

    #[test]
    fn parse_answers_when_file_has_slips(text in slips()) {
        check_any(&text)?;
    }
}
