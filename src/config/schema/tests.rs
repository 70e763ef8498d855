//! The schema against the structs: what one takes the other takes, value by value of the reference.

use boon::{Compiler, Schemas};
use serde_yaml::Value as Yaml;

use super::*;
use crate::config::document::Document;
use crate::config::{fit, unsupported};

const FILE: &str = include_str!("../../../config/schema.json");
const REFERENCE_FILE: &str = include_str!("../../../config/reference.yaml");

/// Validates values by the schema.
struct Validator {
    schemas: Schemas,
    index: boon::SchemaIndex,
}

impl Validator {
    fn new() -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("schema.json", schema()).unwrap();
        let index = compiler.compile("schema.json", &mut schemas).unwrap();
        Self { schemas, index }
    }

    fn takes(&self, value: &Yaml) -> bool {
        self.schemas.validate(&serde_json::to_value(value).unwrap(), self.index).is_ok()
    }
}

/// Tells whether the structs take a text, whatever the checks say of its values.
fn is_read(text: &str) -> bool {
    let (document, mut problems) = Document::parse(text, &|_| None);
    let mut document = document.unwrap();
    problems.extend(unsupported::check(&document));
    fit::fit(&mut document, &mut problems).is_some() && problems.is_empty()
}

/// Lists the value with each of its parts replaced in turn by what `others` makes of it, and where that is.
fn variants(value: &Yaml, others: &dyn Fn(&Yaml) -> Vec<Yaml>) -> Vec<(String, Yaml)> {
    let mut all: Vec<_> = others(value).into_iter().map(|other| (String::new(), other)).collect();
    match value {
        Yaml::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                for (path, other) in variants(item, others) {
                    let mut items = items.clone();
                    items[index] = other;
                    all.push((format!("[{index}]{path}"), Yaml::Sequence(items)));
                }
            }
        }
        Yaml::Mapping(entries) => {
            for (key, entry) in entries {
                for (path, other) in variants(entry, others) {
                    let mut entries = entries.clone();
                    entries.insert(key.clone(), other);
                    all.push((format!(".{}{path}", key.as_str().unwrap()), Yaml::Mapping(entries)));
                }
            }
        }
        _ => {}
    }
    all
}

fn reference() -> Yaml {
    // A canary, which the reference has as a comment only, and a section `tests`.
    let text = format!(
        "{}\ntests: [{{name: a, headers: {{x: y}}, key: k, body: {{a: [1]}}, route: fast}}]\n",
        REFERENCE_FILE.replace("${MLFLOW_TRACKING_URI:-http://127.0.0.1:5001}", "http://127.0.0.1:5001").replace(
            "alias: candidate\n",
            "alias: candidate\n        canary: {steps: [1, 5.5], every: 10m, abort_if: {error_share: 0.1}}\n"
        )
    );
    serde_yaml::from_str(&text).unwrap()
}

fn text(value: &Yaml) -> String {
    serde_yaml::to_string(value).unwrap()
}

#[test]
fn file_is_what_the_structs_make() {
    let made = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    assert!(FILE == made, "write it anew: cargo run -- config schema > config/schema.json");
}

#[test]
fn schema_takes_the_reference_and_is_named_in_it() {
    let (validator, reference) = (Validator::new(), reference());
    assert!(is_read(&text(&reference)), "{}", text(&reference));
    assert!(validator.takes(&reference));
    assert!(REFERENCE_FILE.starts_with("# yaml-language-server: $schema=schema.json\n"));
}

#[test]
fn schema_refuses_unknown_keys_wherever_the_structs_do() {
    let validator = Validator::new();
    let with_key = |value: &Yaml| match value {
        Yaml::Mapping(entries) => {
            let mut entries = entries.clone();
            entries.insert("surplus".into(), "1".into());
            vec![Yaml::Mapping(entries)]
        }
        _ => Vec::new(),
    };
    let all = variants(&reference(), &with_key);
    assert!(all.len() > 20, "{}", all.len());
    for (path, changed) in &all {
        assert_eq!(validator.takes(changed), is_read(&text(changed)), "{path}");
    }
    assert!(all.iter().filter(|(_, changed)| !validator.takes(changed)).count() > 15);
}

#[test]
fn schema_and_structs_take_the_same_values() {
    let validator = Validator::new();
    let others = ["words", "7", "-1", "1.5", "true", "off", "[]", "{}", "null", "10s", "4MiB", "weighted", "'7'"];
    let (mut differing, mut tried) = (Vec::new(), 0);
    for other in others {
        let value: Yaml = serde_yaml::from_str(other).unwrap();
        for (path, changed) in variants(&reference(), &|_| vec![value.clone()]) {
            let (taken, read) = (validator.takes(&changed), is_read(&text(&changed)));
            // The reader takes nothing, and an empty mapping, for an empty list, and the other way about. The schema need
            // not: editors would offer it.
            let is_lenient = matches!(other, "[]" | "{}" | "null") && read;
            if taken != read && !is_lenient {
                differing.push(format!("{path}: {other}: the schema {taken}, the structs {read}"));
            }
            tried += 1;
        }
    }
    assert!(tried > 1000, "{tried}");
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn schema_takes_references_to_the_environment() {
    let validator = Validator::new();
    for value in ["7", "10s", "true"] {
        let reference_to = Yaml::from(format!("${{NOBODY:-{value}}}"));
        for (path, changed) in variants(&reference(), &|_| vec![reference_to.clone()]) {
            // A text with a colon needs quotes, and a text in quotes is no number: the file has it without.
            let text = text(&changed).replace(&format!("'${{NOBODY:-{value}}}'"), &format!("${{NOBODY:-{value}}}"));
            assert!(validator.takes(&changed) || !is_read(&text), "{path}: {value}");
        }
    }
}

#[test]
fn descriptions_are_plain_words() {
    let text = schema().to_string();
    assert!(!text.contains("[`") && !text.contains("::"), "a comment of a struct has a link that only Rust knows");
}
