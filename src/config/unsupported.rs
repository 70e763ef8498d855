//! The keys that the schema knows and nothing acts on yet. They are refused by name, since a key that is silently ignored
//! is worse than one that is missing.

use super::document::{Document, NodeContent};
use super::report::Problem;

/// Keys that are not supported yet, each after its section. A feature that arrives deletes its line.
pub(crate) const NOT_YET: &[(&str, &str)] = &[("server", "auth"), ("server", "tls")];

/// Reports each use of what is not supported yet.
pub(crate) fn check(document: &Document) -> Vec<Problem> {
    let refusal = |&(section, key): &(&str, &str)| {
        let entry = document.root.entry(section)?.value.entry(key)?;
        // Empty values and empty lists ask for nothing, so they pass.
        let is_empty = matches!(&entry.value.content, NodeContent::List(items) if items.is_empty());
        let problem = Problem::error(entry.at, format!("{section}.{key}"), format!("`{key}` is not supported yet"));
        (!is_empty && !entry.value.is_nothing()).then(|| problem.with_help("leave it out"))
    };
    NOT_YET.iter().filter_map(refusal).collect()
}
