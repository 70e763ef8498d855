//! The fit of a document into the structs of [`Config`], with a problem for each misfit. The only file that reads
//! by `serde_yaml`.

use serde_path_to_error::Segment;
use serde_yaml::Value;

use super::Config;
use super::document::{Document, Entry, Node, NodeContent, NodeState, PathStep, Scalar, push_step};
use super::explain::{self, Misfit};
use super::report::Problem;

/// Most misfits that one check reports; the rest show once these are mended.
const MAX_MISFITS: usize = 500;

/// Reads the document into structs, in as many attempts as it takes, since each attempt stops at the first misfit.
pub(crate) fn fit(document: &mut Document, problems: &mut Vec<Problem>) -> Option<Config> {
    let mut misfits = 0;
    // The loop ends, since an attempt that reports nothing still marks a node.
    while misfits < MAX_MISFITS {
        let error = match serde_path_to_error::deserialize::<_, Config>(to_yaml(&document.root)) {
            Ok(config) => return Some(config),
            Err(error) => error,
        };
        let steps = steps(error.path());
        let before = problems.len();
        let misfit = Misfit::read(&error.into_inner().to_string());
        if record_misfit(document, &steps, misfit, problems).is_none() {
            if problems.is_empty() {
                problems.push(Problem::error(document.root.at, document.find(&steps).path, "this cannot be read"));
            }
            return None;
        }
        misfits += problems.len() - before;
    }
    problems.push(Problem::error(
        None,
        "",
        format!("more than {MAX_MISFITS} problems: the rest show once these are mended"),
    ));
    None
}

/// Reports a misfit and marks its node, so that the next attempt gets past it. None when nothing more of the document can
/// be read.
fn record_misfit(
    document: &mut Document,
    steps: &[PathStep],
    misfit: Misfit,
    problems: &mut Vec<Problem>,
) -> Option<()> {
    let path = document.find(steps).path;
    match misfit {
        Misfit::UnknownKey { valid } => {
            let (PathStep::Key(key), parent) = steps.split_last()? else { return None };
            let parent_path = document.find(parent).path;
            let entry = document.node_mut(parent).and_then(|node| node.entry_mut(key))?;
            // The next attempt leaves the key out.
            entry.value.state = NodeState::Dropped;
            let help = explain::help_for_key(&parent_path, key, &valid);
            problems.push(Problem::error(entry.at, path, format!("unknown key '{key}'")).with_help(help));
        }
        Misfit::MissingKey(key) => {
            let node = document.node_mut(steps)?;
            let mut missing = |at| {
                let mut path = path.clone();
                push_step(&mut path, &PathStep::Key(key.clone()));
                problems.push(Problem::error(at, path, format!("missing key '{key}'")));
            };
            let at = node.at;
            match node.entry_mut(&key) {
                Some(entry) => {
                    if entry.value.state == NodeState::Absent {
                        missing(entry.at);
                    }
                    // A blank text stands in, so that the rest of the mapping can be read.
                    entry.value.state = NodeState::BlankText;
                }
                None => {
                    missing(at);
                    let NodeContent::Mapping(entries) = &mut node.content else { return None };
                    let value = Node { at, content: NodeContent::List(Vec::new()), state: NodeState::BlankText };
                    entries.push(Entry { key, at, value });
                }
            }
        }
        Misfit::UnknownValue { .. } | Misfit::Unexpected { .. } | Misfit::Other(_) => {
            let is_root = steps.is_empty();
            let is_value_of_key = matches!(steps.last(), Some(PathStep::Key(_)));
            let node = document.node_mut(steps)?;
            match node.state {
                // The stand-in did not fit as a text: it is tried as a list, and then its parent is given up.
                NodeState::BlankText => node.state = NodeState::BlankList,
                NodeState::BlankList => {
                    let parent = steps.split_last().map_or(steps, |(_, parent)| parent);
                    document.node_mut(parent)?.state = NodeState::Dropped;
                }
                _ if is_value_of_key && node.is_nothing() => node.state = NodeState::Absent,
                _ => {
                    node.state = NodeState::Dropped;
                    problems.push(misfit_problem(node, path, misfit));
                }
            }
            // Nothing is left to try without a root, or with a root that was dropped.
            return (!is_root && document.root.counts()).then_some(());
        }
    }
    Some(())
}

/// Makes the problem of a value that does not fit.
fn misfit_problem(node: &Node, path: String, misfit: Misfit) -> Problem {
    let shown = node.shown();
    match misfit {
        Misfit::UnknownValue { valid } => {
            let (written, message) = match node.is_secret() {
                true => ("", format!("{shown} is unknown")),
                false => (shown.trim_matches('\''), format!("unknown value {shown}")),
            };
            let help = explain::help_for_value(written, &valid);
            Problem::error(node.at, path, message).with_help(help)
        }
        Misfit::Unexpected { expected } => Problem::error(node.at, path, format!("expected {expected}, found {shown}")),
        Misfit::Other(_) if node.is_secret() => Problem::error(node.at, path, format!("{shown} is not valid here")),
        Misfit::Other(message) => Problem::error(node.at, path, format!("{shown}: {message}")),
        Misfit::UnknownKey { .. } | Misfit::MissingKey(_) => Problem::error(node.at, path, "not valid here"),
    }
}

fn steps(path: &serde_path_to_error::Path) -> Vec<PathStep> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(PathStep::Index(*index)),
            Segment::Map { key } => Some(PathStep::Key(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// Converts a node to what serde reads, without what is marked as unreadable.
fn to_yaml(node: &Node) -> Value {
    match (&node.state, &node.content) {
        (NodeState::BlankText, _) => Value::String(String::new()),
        (NodeState::BlankList, _) => Value::Sequence(Vec::new()),
        (_, NodeContent::Scalar(scalar)) => scalar_to_yaml(scalar),
        (_, NodeContent::List(items)) => items.iter().filter(|item| item.counts()).map(to_yaml).collect(),
        (_, NodeContent::Mapping(entries)) => {
            let counting = entries.iter().filter(|entry| entry.value.counts());
            Value::Mapping(counting.map(|entry| (entry.key.as_str().into(), to_yaml(&entry.value))).collect())
        }
    }
}

/// Converts a scalar. Only a plain word can be anything but text, so nothing else is shown to the parser.
fn scalar_to_yaml(scalar: &Scalar) -> Value {
    let is_word = |text: &str| text.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-._~".contains(letter));
    let meant = match scalar.plain && is_word(&scalar.text) {
        true => serde_yaml::from_str(&scalar.text).ok(),
        false => None,
    };
    match meant {
        Some(value @ (Value::Null | Value::Bool(_) | Value::Number(_))) => value,
        _ => Value::String(scalar.text.clone()),
    }
}
