//! Compares payloads that Signalbox joins with their parts: MLflow's own parsing reads both alike.

use bytes::Bytes;
use serde_json::json;
use signalbox::invocation::body::{Payload, Signature};

use crate::support::{Dice, Mlflow, fresh_directory};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/joined.py");

/// Number of payloads that are written.
const CASES: usize = 6_000;

/// Values that readers are known to disagree about.
const VALUES: &[&str] = &[
    "1",
    "-7",
    "0",
    "123456789012345",
    "1234567890123456",
    "123456789012345678",
    "12345678901234567890",
    "1.0",
    "2.5",
    "-0.0",
    "1e3",
    "1e400",
    "NaN",
    "Infinity",
    "-Infinity",
    "null",
    "true",
    "false",
    "\"\"",
    "\"a\"",
    "\"1\"",
    "\"2024-01-01\"",
    "\"NaN\"",
    "\"\\u00e9\\ud83d\\ude00\"",
    "\"longer than the others\"",
    "[]",
    "[1]",
    "[2, 3]",
    "[0.5, 1]",
    "[[1, 2]]",
    "[\"x\"]",
    "{}",
    "{\"k\": 1}",
    "[null]",
    "[{\"k\": 1}]",
];
const FIELDS: &[&str] =
    &["1", "-2", "007", "2.5", "10.0", "x", "nan", "True", "", "a b", "1e5", "Łódź", "NA", "inf", "2024-01-01", "none"];

struct Writer(Dice);

impl Writer {
    fn pick<'a>(&mut self, among: &[&'a str]) -> &'a str {
        among[self.0.below(among.len())]
    }

    /// Writes a payload with one or two columns, of mostly one or two of these values.
    fn json(&mut self) -> String {
        let palette: Vec<&str> = (0..1 + self.0.below(3)).map(|_| self.pick(VALUES)).collect();
        let width = 1 + self.0.below(2);
        let rows = 1 + self.0.below(3);
        let names = &["\"a\"", "\"b\""][..width];
        let table: Vec<Vec<&str>> = (0..rows).map(|_| (0..width).map(|_| self.pick(&palette)).collect()).collect();
        let lists = table.iter().map(|row| format!("[{}]", row.join(", "))).collect::<Vec<_>>().join(", ");
        let record = |row: &Vec<&str>| {
            let members: Vec<_> = names.iter().zip(row).map(|(name, value)| format!("{name}: {value}")).collect();
            format!("{{{}}}", members.join(", "))
        };
        let records = table.iter().map(record).collect::<Vec<_>>().join(", ");
        let values = table.iter().map(|row| row[0]).collect::<Vec<_>>().join(", ");
        let columns: Vec<_> = (0..width)
            .map(|column| {
                format!("{}: [{}]", names[column], table.iter().map(|row| row[column]).collect::<Vec<_>>().join(", "))
            })
            .collect();
        match self.0.below(8) {
            0 => format!(r#"{{"dataframe_split": {{"columns": [{}], "data": [{lists}]}}}}"#, names.join(", ")),
            1 => format!(r#"{{"dataframe_split": {{"data": [{lists}]}}}}"#),
            2 => format!(r#"{{"dataframe_records": [{records}]}}"#),
            3 => format!(r#"{{"inputs": [{records}]}}"#),
            4 => format!(r#"{{"inputs": [{values}]}}"#),
            5 => format!(r#"{{"inputs": {{{}}}}}"#, columns.join(", ")),
            6 => format!(r#"{{"instances": [{records}]}}"#),
            _ => format!(r#"{{"instances": [{lists}]}}"#),
        }
    }

    fn csv(&mut self) -> String {
        let palette: Vec<&str> = (0..1 + self.0.below(2)).map(|_| self.pick(FIELDS)).collect();
        let width = 1 + self.0.below(2);
        let line = |writer: &mut Self| (0..width).map(|_| writer.pick(&palette)).collect::<Vec<_>>().join(",");
        let lines: Vec<_> = (0..1 + self.0.below(3)).map(|_| line(self)).collect();
        format!("{}\n{}\n", &["a", "a,b"][width - 1], lines.join("\n"))
    }
}

#[test]
#[ignore = "needs MLflow; tests/run installs it"]
fn joined_payloads_parse_like_their_parts() {
    let mut writer = Writer(Dice::new(5));
    let mut cases = Vec::new();
    let mut pairs = 0;
    for (content_type, floats) in
        [("application/json", None), ("application/json", Some(vec!["a", "b"])), ("text/csv", None)]
    {
        let signature = floats.as_ref().map(|floats| Signature::new(floats.iter().map(|&name| name.to_owned()), false));
        let mut alike = std::collections::HashMap::<_, Vec<(String, Payload)>>::new();
        for _ in 0..CASES {
            let text = if content_type == "text/csv" { writer.csv() } else { writer.json() };
            let Some(payload) = Payload::read(content_type, &Bytes::from(text.clone())) else { continue };
            let Some(key) = payload.key(content_type, signature.as_ref(), false) else { continue };
            alike.entry(key).or_default().push((text, payload));
        }
        for group in alike.values() {
            for members in group.chunks(5).filter(|members| members.len() > 1) {
                let payloads: Vec<_> = members.iter().map(|(_, payload)| payload).collect();
                let joined = String::from_utf8(Payload::join(&payloads).to_vec()).unwrap();
                let alone: Vec<_> = members.iter().map(|(text, _)| text).collect();
                pairs += alone.len();
                cases.push(json!({"content_type": content_type, "floats": floats, "alone": alone, "joined": joined}));
            }
        }
    }
    let file = fresh_directory("joined").join("cases.json");
    std::fs::write(&file, json!(cases).to_string()).unwrap();
    let output = std::process::Command::new(Mlflow::python()).arg(SCRIPT).arg(&file).output().unwrap();
    let (differences, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}");
    println!("{} payloads in {} joined ones", pairs, cases.len());
    let shown: String = differences.lines().take(60).collect::<Vec<_>>().join("\n");
    assert!(differences.is_empty(), "{} lines:\n{shown}", differences.lines().count());
    assert!(pairs > 2_000, "{pairs}");
}
