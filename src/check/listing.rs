//! The effective configuration: every key with its value, and the origin of each value, as a file that can be loaded
//! again.

use serde_json::Value as Json;
use serde_yaml::Value;

use super::load::CheckedConfig;
use super::secrets;
use crate::config::document::{Document, PathStep};
use crate::config::{self, Config};
use crate::models::{TrackingOrigin, tracking_uri};

/// Column up to which values are filled up, so that their origins stand below each other.
const LONGEST_VALUE: usize = 72;

/// Writes each key of a configuration with its value, and behind it where that came from: a line of the file, a variable
/// of the environment, or the default. Secrets are masked. `env` gives the values of variables.
///
/// # Errors
/// Fails when a value cannot be written, which is a defect.
pub fn effective(checked: &CheckedConfig, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut config = checked.config.clone();
    // What these keys stand for is decided where they are used; the reader wants to know what comes of it.
    config.kafka.delivery = Some(config.kafka.delivery());
    let (address, origin) = tracking_uri(config.registry.tracking_uri.as_deref(), env);
    config.registry.tracking_uri = Some(address);
    let value = serde_yaml::to_value::<Config>(config).map_err(|error| error.to_string())?;
    let mut listing = Listing {
        document: &checked.document,
        file: &checked.warnings.file,
        tracking: origin,
        path: Vec::new(),
        lines: Vec::new(),
    };
    listing.add(&value, "", &config::schema());
    Ok(listing.text())
}

/// The lines that are written, and the way to the value that comes next.
struct Listing<'a> {
    document: &'a Document,
    file: &'a str,
    tracking: TrackingOrigin,
    path: Vec<PathStep>,
    /// Each line, with the origin of the value in it.
    lines: Vec<(String, String)>,
}

impl Listing<'_> {
    /// Adds a mapping or a list that has something in it, each line after this indentation.
    fn add(&mut self, value: &Value, indent: &str, schema: &Json) {
        match value {
            Value::Mapping(entries) => {
                for (key, entry) in entries {
                    let key = key.as_str().unwrap_or_default();
                    self.path.push(PathStep::Key(key.to_owned()));
                    let (lead, below) = (format!("{indent}{}:", word(key)), property(schema, key));
                    if has_lines(entry) {
                        self.lines.push((lead, String::new()));
                        self.add(entry, &format!("{indent}  "), below);
                    } else {
                        self.add_leaf(&lead, entry, below);
                    }
                    self.path.pop();
                }
            }
            Value::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.path.push(PathStep::Index(index));
                    let below = &schema["items"];
                    if has_lines(item) {
                        let first = self.lines.len();
                        self.add(item, &format!("{indent}  "), below);
                        // The first line of the item has the dash in its indentation.
                        if let Some((line, _)) = self.lines.get_mut(first) {
                            line.replace_range(indent.len()..indent.len() + 1, "-");
                        }
                    } else {
                        self.add_leaf(&format!("{indent}-"), item, below);
                    }
                    self.path.pop();
                }
            }
            _ => {}
        }
    }

    /// Adds a line with a value.
    fn add_leaf(&mut self, lead: &str, value: &Value, schema: &Json) {
        let (shown, is_masked) = match value {
            Value::Sequence(items) => {
                let of_item = |(index, item)| {
                    self.path.push(PathStep::Index(index));
                    let shown = self.shown(item);
                    self.path.pop();
                    shown
                };
                let shown: Vec<_> = items.iter().enumerate().map(of_item).collect();
                let texts: Vec<_> = shown.iter().map(|(text, _)| text.as_str()).collect();
                (format!("[{}]", texts.join(", ")), shown.iter().any(|(_, is_masked)| *is_masked))
            }
            value => self.shown(value),
        };
        let mut origin = self.origin(value, schema);
        if is_masked {
            origin += ", masked";
        }
        self.lines.push((format!("{lead} {shown}"), origin));
    }

    /// Writes the value at the path, and tells whether it is masked.
    fn shown(&self, value: &Value) -> (String, bool) {
        let masked = value.as_str().and_then(|text| secrets::masked(&self.path, text, &self.variables()));
        match masked {
            Some(masked) => (scalar(&Value::String(masked)), true),
            None => (scalar(value), false),
        }
    }

    /// Names the variables of the environment that the value at the path has come from.
    fn variables(&self) -> Vec<String> {
        self.document.find(&self.path).node.map(|node| node.variables()).unwrap_or_default()
    }

    /// Says where the value at the path came from.
    fn origin(&self, value: &Value, schema: &Json) -> String {
        let variables = self.variables();
        let located = self.document.find(&self.path);
        let line = |at: usize| format!("{}:{at}", self.file);
        match located.node.filter(|node| !node.is_nothing()) {
            Some(node) if variables.is_empty() => line(node.at.line),
            Some(node) => {
                let word = if variables.len() == 1 { "variable" } else { "variables" };
                format!("environment {word} {} ({})", variables.join(", "), line(node.at.line))
            }
            None if self.is_at(&["registry", "tracking_uri"]) && self.tracking == TrackingOrigin::Environment => {
                "environment variable MLFLOW_TRACKING_URI".to_owned()
            }
            None if value.is_null() => match default_in_words(schema) {
                Some(words) => format!("default: {words}"),
                None => "default".to_owned(),
            },
            None => "default".to_owned(),
        }
    }

    fn is_at(&self, keys: &[&str]) -> bool {
        let are_same = |(step, key): (&PathStep, &&str)| matches!(step, PathStep::Key(step) if step == key);
        self.path.len() == keys.len() && self.path.iter().zip(keys).all(are_same)
    }

    fn text(&self) -> String {
        let widths = self.lines.iter().filter(|(_, origin)| !origin.is_empty()).map(|(line, _)| line.chars().count());
        let width = widths.filter(|width| *width <= LONGEST_VALUE).max().unwrap_or_default();
        let mut text = String::new();
        for (line, origin) in &self.lines {
            match origin.as_str() {
                "" => text.push_str(line),
                origin => text.push_str(&format!("{line:width$}  # {origin}")),
            }
            text.push('\n');
        }
        text
    }
}

/// Tells whether a value takes lines of its own. A list of scalars stands in one line.
fn has_lines(value: &Value) -> bool {
    match value {
        Value::Mapping(entries) => !entries.is_empty(),
        Value::Sequence(items) => items.iter().any(|item| item.is_mapping() || item.is_sequence()),
        _ => false,
    }
}

/// Writes a value that is no list, in one line.
fn scalar(value: &Value) -> String {
    match value {
        // The file's own language has references in texts; `$${` stands for the characters themselves.
        Value::String(text) => word(&text.replace("${", "$${")),
        Value::Bool(is_so) => is_so.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Mapping(_) => "{}".to_owned(),
        _ => "null".to_owned(),
    }
}

/// Writes a text plainly where that means the same, and in quotes elsewhere.
fn word(text: &str) -> String {
    let is_plain = text.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-/@+".contains(letter))
        && text.starts_with(|first: char| first.is_ascii_alphanumeric() || "./_".contains(first))
        && serde_yaml::from_str::<Value>(text).is_ok_and(|read| read == Value::String(text.to_owned()));
    // A text of JSON is one of YAML as well.
    if is_plain { text.to_owned() } else { Json::from(text).to_string() }
}

/// Finds the schema of a key.
fn property<'a>(schema: &'a Json, key: &str) -> &'a Json {
    let direct = std::iter::once(schema);
    let choices = schema["anyOf"].as_array().into_iter().flatten();
    direct.chain(choices).find_map(|schema| schema["properties"].get(key)).unwrap_or(&Json::Null)
}

/// Returns what a key's comment says of its default.
fn default_in_words(schema: &Json) -> Option<&str> {
    let (_, words) = schema["description"].as_str()?.split_once("Default: ")?;
    Some(words.trim_end_matches('.'))
}
