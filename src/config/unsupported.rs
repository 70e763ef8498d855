//! The keys and values that the schema knows and nothing acts on yet. They are refused by name, since a key that is
//! silently ignored is worse than one that is missing.

use super::document::{Document, Node, NodeContent};
use super::report::{Position, Problem};

/// Keys, and values of a key, that are not supported yet. A feature that arrives deletes its line.
pub(crate) const NOT_YET: &[(&str, &[&str])] = &[("server.auth", ANY), ("server.tls", ANY)];

const ANY: &[&str] = &[];

/// Tells whether a key is not supported yet. `path` may hold indices.
pub(crate) fn is_key(path: &str) -> bool {
    let pattern = pattern(path);
    NOT_YET.iter().any(|(key, values)| *key == pattern && values.is_empty())
}

/// Tells whether a value of a key is not supported yet. `path` may hold indices.
pub(crate) fn is_value(path: &str, value: &str) -> bool {
    let pattern = pattern(path);
    NOT_YET.iter().any(|(key, values)| *key == pattern && values.contains(&value))
}

/// Reports each use of what is not supported yet.
pub(crate) fn check(document: &Document) -> Vec<Problem> {
    let mut problems = Vec::new();
    walk(&document.root, "", &mut problems);
    problems
}

fn walk(node: &Node, path: &str, problems: &mut Vec<Problem>) {
    match &node.content {
        NodeContent::Scalar(_) => {}
        NodeContent::List(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, &format!("{path}[{index}]"), problems);
            }
        }
        NodeContent::Mapping(entries) => {
            for entry in entries {
                let separator = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{separator}{}", entry.key);
                match refusal(&path, &entry.key, entry.at, &entry.value) {
                    Some(problem) => problems.push(problem),
                    None => walk(&entry.value, &path, problems),
                }
            }
        }
    }
}

fn refusal(path: &str, key: &str, key_at: Position, value: &Node) -> Option<Problem> {
    let refused = |at, what| {
        let problem = Problem::error(at, path, format!("`{what}` is not supported yet"));
        Some(problem.with_help("leave it out"))
    };
    match &value.content {
        // Empty values and empty lists ask for nothing, so they pass.
        _ if value.is_nothing() => None,
        NodeContent::List(items) if items.is_empty() => None,
        _ if is_key(path) => refused(key_at, key.to_owned()),
        NodeContent::Scalar(scalar) if is_value(path, &scalar.text) => {
            refused(value.at, format!("{key}: {}", scalar.written))
        }
        _ => None,
    }
}

/// Turns the path `a[3].b` into the pattern `a[].b`.
fn pattern(path: &str) -> String {
    let mut inside = false;
    path.chars()
        .filter(|character| {
            inside = match character {
                '[' => true,
                ']' => false,
                _ => inside,
            };
            !inside || *character == '['
        })
        .collect()
}
