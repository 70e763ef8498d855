//! The references of a file to the environment: `${NAME}`, `${NAME:-default}` and the escape `$${`.
//!
//! References are replaced twice. Before the YAML is parsed each becomes a stand-in of the same length, made of
//! characters that mean nothing to YAML: so every line and column stays what the author sees, and a value can neither
//! break the syntax nor add keys. After the parse the stand-ins in each scalar become the values.

use super::report::Position;

/// Reads a variable of the process's environment; none when it is not set, or no Unicode.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A reference `${…}` of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// Name of the variable.
    pub(super) name: String,
    /// Value for a variable that is unset or empty.
    pub(super) default: Option<String>,
    /// Position of the `$`.
    pub(super) at: Position,
}

/// The text of a file with stand-ins for its references.
pub(super) struct Masked {
    /// Masked text, as long as the original, line by line.
    pub(super) text: String,
    /// References behind the stand-ins.
    pub(super) references: Vec<Reference>,
}

/// A scalar in which values have replaced the stand-ins.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expanded {
    /// Text of the scalar.
    pub(super) text: String,
    /// Text as it stands in the file, with its references.
    pub(super) written: String,
    /// True if a part of `text` came from the environment.
    pub(super) secret: bool,
    /// True if there was any reference, even one that its default answered.
    pub(super) referred: bool,
    /// Indices of the references that have no value and no default.
    pub(super) missing: Vec<usize>,
}

// Stand-ins come from a private plane of Unicode, which YAML takes as plain letters. A reference has at least four
// characters, `${X}`: a mark, two digits of its index, and fillers up to its length.
const REFERENCE: char = '\u{F0000}';
const ESCAPE: char = '\u{F0001}';
const FILLER: char = '\u{F0002}';
const DIGIT_ZERO: u32 = 0xF1000;
const BASE: usize = 0x1000;

/// Puts stand-ins in the place of references and escapes.
pub(super) fn mask(text: &str) -> Masked {
    let mut masked = Masked { text: String::with_capacity(text.len()), references: Vec::new() };
    for (index, line) in text.split_inclusive('\n').enumerate() {
        mask_line(line, index + 1, &mut masked);
    }
    masked
}

/// Names the variables that a text refers to.
pub(super) fn names(text: &str) -> Vec<String> {
    mask(text).references.into_iter().map(|reference| reference.name).collect()
}

fn mask_line(line: &str, line_number: usize, masked: &mut Masked) {
    let mut rest = line;
    let mut column = 1;
    while let Some(next) = rest.chars().next() {
        if rest.starts_with("$${") {
            masked.text.extend([ESCAPE, FILLER, FILLER]);
            rest = &rest[3..];
            column += 3;
        } else if let Some((length, name, default)) = reference(rest) {
            let characters = rest[..length].chars().count();
            let position = Position { line: line_number, column };
            let (high, low) = (masked.references.len() / BASE, masked.references.len() % BASE);
            masked.text.extend([REFERENCE, digit(high), digit(low)]);
            masked.text.extend(std::iter::repeat_n(FILLER, characters - 3));
            masked.references.push(Reference { name, default, at: position });
            rest = &rest[length..];
            column += characters;
        } else {
            masked.text.push(next);
            rest = &rest[next.len_utf8()..];
            column += 1;
        }
    }
}

/// Returns the reference that `text` starts with: its length in bytes, its name and its default.
fn reference(text: &str) -> Option<(usize, String, Option<String>)> {
    let inner = text.strip_prefix("${")?;
    let inner = &inner[..inner.find(['}', '\n'])?];
    if !text[2 + inner.len()..].starts_with('}') {
        return None;
    }
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default.to_owned())),
        None => (inner, None),
    };
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let is_name = starts_well && name.chars().all(|other| other.is_ascii_alphanumeric() || other == '_');
    is_name.then(|| (inner.len() + 3, name.to_owned(), default))
}

fn digit(value: usize) -> char {
    u32::try_from(value).ok().and_then(|value| char::from_u32(DIGIT_ZERO + value)).unwrap_or(FILLER)
}

fn digit_value(digit: Option<char>) -> Option<usize> {
    usize::try_from(u32::from(digit?).checked_sub(DIGIT_ZERO)?).ok().filter(|value| *value < BASE)
}

/// Puts values in the place of the stand-ins of one scalar.
pub(super) fn expand(masked: &str, references: &[Reference], env: &dyn Fn(&str) -> Option<String>) -> Expanded {
    let mut expanded = Expanded::default();
    let mut characters = masked.chars();
    while let Some(character) = characters.next() {
        match character {
            FILLER => {}
            ESCAPE => {
                expanded.text.push_str("${");
                expanded.written.push_str("$${");
            }
            REFERENCE => {
                let (high, low) = (digit_value(characters.next()), digit_value(characters.next()));
                let index = high.zip(low).map(|(high, low)| high * BASE + low);
                if let Some((index, reference)) = index.and_then(|index| Some((index, references.get(index)?))) {
                    expanded.put(index, reference, env(&reference.name));
                }
            }
            other => {
                expanded.text.push(other);
                expanded.written.push(other);
            }
        }
    }
    expanded
}

impl Expanded {
    fn put(&mut self, index: usize, reference: &Reference, value: Option<String>) {
        self.referred = true;
        self.written.push_str(&reference.written());
        match (value, &reference.default) {
            // An empty variable counts as unset where there is a default: the shell reads `:-` in the same way.
            (Some(value), default) if !value.is_empty() || default.is_none() => {
                self.secret = true;
                self.text.push_str(&value);
            }
            (_, Some(default)) => self.text.push_str(default),
            (_, None) => self.missing.push(index),
        }
    }
}

impl Reference {
    /// Formats the reference as it stands in the file.
    pub(super) fn written(&self) -> String {
        match &self.default {
            Some(default) => format!("${{{}:-{default}}}", self.name),
            None => format!("${{{}}}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("kafka-1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn expanded(text: &str) -> Expanded {
        let masked = mask(text);
        assert_eq!(masked.text.chars().count(), text.chars().count(), "the stand-ins are as long as what they replace");
        expand(&masked.text, &masked.references, &env)
    }

    #[test]
    fn expand_handles_values_defaults_and_escapes() {
        for (text, wanted, secret) in [
            ("${HOST}:9092", "kafka-1:9092", true),
            ("${HOST}${HOST}", "kafka-1kafka-1", true),
            ("${NOBODY:-a: b, {c}", "a: b, {c", false),
            ("${NOBODY:-}", "", false),
            ("${EMPTY:-default}", "default", false),
            ("${EMPTY}", "", true),
            ("$${HOST} costs $5", "${HOST} costs $5", false),
            ("é${HOST:-ü}é", "ékafka-1é", true),
            ("${}${1}${a b}${HOST", "${}${1}${a b}${HOST", false),
        ] {
            let found = expanded(text);
            assert_eq!((found.text.as_str(), found.secret, found.written.as_str()), (wanted, secret, text));
            assert!(found.missing.is_empty());
        }
    }

    #[test]
    fn expand_reports_place_when_variable_is_missing() {
        let masked = mask("a: 1\nbé: x ${NOBODY}\n");
        assert_eq!(expand(&masked.text, &masked.references, &env).missing, [0]);
        assert_eq!(masked.references[0].at, Position { line: 2, column: 7 });
    }

    #[test]
    fn expand_finds_reference_when_index_needs_two_digits() {
        let text = "${HOST}".repeat(BASE + 1);
        assert_eq!(expanded(&text).text, "kafka-1".repeat(BASE + 1));
    }
}
