//! The builder of the tree, from the parser's events one after the other.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use super::{Entry, Node, NodeContent, NodeState, PathStep, Scalar, ScalarLayout, push_step};
use crate::config::env::{self, Masked};
use crate::config::report::{Position, Problem};

/// Most levels of lists and mappings; deeper files are refused. The schema needs six.
const MAX_DEPTH: usize = 64;
/// Most nodes once aliases are replaced by what they stand for; files with more are refused.
const MAX_NODES: usize = 100_000;

/// A list or mapping whose end has not come yet.
struct OpenNode {
    anchor: usize,
    node: Node,
    key: Option<(String, Position)>,
}

/// Builds the tree of a document.
pub(super) struct Builder<'a> {
    masked: &'a Masked,
    env: &'a dyn Fn(&str) -> Option<String>,
    /// Problems that did not end the parse.
    pub(super) problems: Vec<Problem>,
    open: Vec<OpenNode>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    /// End of the text's last line.
    end: Position,
    /// Top-level node, once it is complete.
    pub(super) root: Option<Node>,
}

impl<'a> Builder<'a> {
    /// Makes a builder for a text whose references to `env` are masked.
    pub(super) fn new(masked: &'a Masked, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            masked,
            env,
            problems: Vec::new(),
            open: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            end: end_of(&masked.text),
            root: None,
        }
    }

    /// Parses the whole text, or as much as there is before its syntax breaks.
    pub(super) fn run(&mut self) -> Result<(), Problem> {
        let masked = self.masked;
        for event in Parser::new_from_str(&masked.text) {
            let (event, span) = event.map_err(|error| {
                let message = format!("broken YAML: {}", self.plain_words(error.info()));
                Problem::error(self.position(*error.marker()), "", message)
            })?;
            self.take(event, span)?;
        }
        Ok(())
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let at = self.position(span.start);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(Problem::error(at, "", "a second YAML document starts here").with_help("one file holds one"))
            }
            Event::DocumentStart(_) => Ok(()),
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                self.start(anchor, NodeContent::List(Vec::new()), at)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                self.start(anchor, NodeContent::Mapping(Vec::new()), at)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(mut finished) => {
                    self.merge(&mut finished.node);
                    self.finish(finished.anchor, finished.node)
                }
                None => Ok(()),
            },
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !self.refuse_tag(tag.as_deref(), at);
                let is_folded = style == ScalarStyle::Folded || span.start.line() != span.end.line();
                let layout = match style {
                    ScalarStyle::Literal => ScalarLayout::Literal,
                    style if is_folded => ScalarLayout::Folded(style),
                    style => ScalarLayout::OneLine(style),
                };
                let node = self.scalar(&text, plain, layout, at);
                self.finish(anchor, node)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => {
                    let (nodes, levels) = node.size();
                    self.nodes += nodes;
                    if levels + self.open.len() > MAX_DEPTH {
                        return Err(too_deep(at));
                    }
                    self.finish(0, node)
                }
                None => Err(Problem::error(at, "", "an alias to something that is not complete yet")),
            },
        }
    }

    fn start(&mut self, anchor: usize, content: NodeContent, at: Position) -> Result<(), Problem> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(at));
        }
        self.open.push(OpenNode { anchor, node: Node { at, content, state: NodeState::Kept }, key: None });
        Ok(())
    }

    /// Puts a complete node where it belongs.
    fn finish(&mut self, anchor: usize, node: Node) -> Result<(), Problem> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Problem::error(node.at, "", format!("more than {MAX_NODES} values, aliases included")));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let path = self.path();
        let is_key = |open: &OpenNode| open.key.is_none() && matches!(open.node.content, NodeContent::Mapping(_));
        let key = self.open.last().is_some_and(is_key).then(|| self.key(&node));
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        if key.is_some() {
            parent.key = key;
            return Ok(());
        }
        match (&mut parent.node.content, parent.key.take()) {
            (NodeContent::List(items), _) => items.push(node),
            (NodeContent::Mapping(entries), Some((key, at))) => match entries.iter().find(|entry| entry.key == key) {
                Some(first) => {
                    let message = format!("duplicate key '{key}'");
                    let help = format!("it is first given in line {}", first.at.line);
                    self.problems.push(Problem::error(at, path, message).with_help(help));
                }
                None => entries.push(Entry { key, at, value: node }),
            },
            (NodeContent::Mapping(_), None) | (NodeContent::Scalar(_), _) => {}
        }
        Ok(())
    }

    fn key(&mut self, node: &Node) -> (String, Position) {
        match &node.content {
            NodeContent::Scalar(scalar) => {
                if scalar.text != scalar.written {
                    self.problems.push(Problem::error(node.at, self.path(), "a key cannot come from the environment"));
                }
                (scalar.written.clone(), node.at)
            }
            NodeContent::List(_) | NodeContent::Mapping(_) => {
                self.problems.push(Problem::error(node.at, self.path(), "a key must be text"));
                ("?".to_owned(), node.at)
            }
        }
    }

    fn scalar(&mut self, text: &str, plain: bool, layout: ScalarLayout, at: Position) -> Node {
        let masked = self.masked;
        let expanded = env::expand(text, &masked.references, self.env);
        for index in &expanded.missing {
            if let Some(reference) = masked.references.get(*index) {
                let message = format!("the environment variable {} is not set", reference.name);
                let help = format!("set it, or give a default: ${{{}:-…}}", reference.name);
                self.problems.push(Problem::error(reference.at, self.path(), message).with_help(help));
            }
        }
        let traceable = (expanded.text == expanded.written).then_some(layout);
        let state = if expanded.missing.is_empty() { NodeState::Kept } else { NodeState::Dropped };
        let scalar = Scalar {
            // A value that came out empty was given all the same: it is a text, not nothing.
            plain: plain && !(expanded.referred && expanded.text.is_empty()),
            secret: expanded.secret,
            traceable,
            text: expanded.text,
            written: expanded.written,
        };
        let node = Node { at, content: NodeContent::Scalar(scalar), state };
        if text.contains("${") {
            let help = "write ${NAME} or ${NAME:-default}, or $${ for the characters themselves";
            let problem = Problem::error(at, self.path(), "'${' does not start a reference to the environment");
            self.problems.push(problem.with_help(help));
        }
        node
    }

    /// Merges `<<: *other`: takes over the keys that are not given here.
    fn merge(&mut self, node: &mut Node) {
        let NodeContent::Mapping(entries) = &mut node.content else { return };
        let Some(index) = entries.iter().position(|entry| entry.key == "<<") else { return };
        let merged = entries.remove(index);
        let sources = match merged.value.content {
            NodeContent::List(items) => items,
            content => vec![Node { content, ..merged.value }],
        };
        for source in sources {
            match source.content {
                NodeContent::Mapping(others) => {
                    for other in others {
                        if !entries.iter().any(|entry| entry.key == other.key) {
                            entries.push(other);
                        }
                    }
                }
                _ => {
                    let problem = Problem::error(merged.at, self.path(), "'<<' takes a mapping or a list of them");
                    self.problems.push(problem);
                }
            }
        }
    }

    /// Tells whether there is a tag for text; any tag but the core ones is a problem.
    fn refuse_tag(&mut self, tag: Option<&Tag>, at: Position) -> bool {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            self.problems.push(Problem::error(at, self.path(), format!("the tag '{tag}' means nothing here")));
        }
        tag.is_some_and(|tag| tag.suffix == "str")
    }

    /// Returns the path of the node that comes next.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match (&open.node.content, &open.key) {
                (NodeContent::List(items), _) => push_step(&mut path, &PathStep::Index(items.len())),
                (_, Some((key, _))) => push_step(&mut path, &PathStep::Key(key.clone())),
                _ => {}
            }
        }
        path
    }

    /// Returns the position of a mark. One after the last line is moved to its end: a file that ends too early is
    /// reported where it ends.
    fn position(&self, mark: Marker) -> Position {
        let at = Position { line: mark.line().max(1), column: mark.col() + 1 };
        if at.line > self.end.line { self.end } else { at }
    }

    /// Puts references back in place of the stand-ins in the parser's words.
    fn plain_words(&self, info: &str) -> String {
        env::expand(info, &self.masked.references, &|_| None).written
    }
}

fn too_deep(at: Position) -> Problem {
    Problem::error(at, "", format!("more than {MAX_DEPTH} levels of lists and mappings"))
}

/// Returns the end of the last line of a text. A break at the very end begins no further line.
fn end_of(text: &str) -> Position {
    let text = text.replace("\r\n", "\n");
    let text = text.strip_suffix(['\n', '\r']).unwrap_or(&text);
    let last = text.rsplit(['\n', '\r']).next().unwrap_or_default();
    Position { line: text.matches(['\n', '\r']).count() + 1, column: last.chars().count() + 1 }
}
