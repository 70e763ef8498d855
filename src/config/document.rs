//! The document: a file as a tree of nodes that know their place, built from the parser's events before anything has a
//! type.
//!
//! Reading the tree into structs stops at the first misfit. So a misfit is marked here and left out of the next
//! attempt, and the next misfit is found; every value that could be read keeps its way back to line and column.

mod builder;

use saphyr_parser::ScalarStyle;

use self::builder::Builder;
use super::env;
use super::report::{Position, Problem};

/// Most characters of a value that a message shows; the rest becomes `…`.
const MAX_SHOWN: usize = 100;

/// The tree of a whole file.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    /// The one top-level node.
    pub(crate) root: Node,
    /// Text as it was written, to find places inside scalars.
    source: String,
}

/// A value of the file, with its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Position of the value's first character.
    pub(crate) at: Position,
    /// The value itself.
    pub(crate) content: NodeContent,
    /// State of the value in the next attempt to read the tree.
    pub(crate) state: NodeState,
}

/// The kinds of values.
#[derive(Debug, Clone)]
pub(crate) enum NodeContent {
    /// Text that stands for itself, a number, a boolean or nothing.
    Scalar(Scalar),
    /// Items in order.
    List(Vec<Node>),
    /// Entries in order, each key once.
    Mapping(Vec<Entry>),
}

/// The text of a scalar, with and without the values of the environment.
#[derive(Debug, Clone)]
pub(crate) struct Scalar {
    /// Text with the environment's values in it.
    pub(crate) text: String,
    /// Text with references instead of values: this may be shown.
    pub(crate) written: String,
    /// True if the text may be a number, a boolean or nothing.
    pub(crate) plain: bool,
    /// True if `text` holds a value of the environment.
    pub(crate) secret: bool,
    /// Layout of `text` in the source, if each of its characters can be found there.
    traceable: Option<ScalarLayout>,
}

/// The way in which the text of a scalar lies in the source.
#[derive(Debug, Clone, Copy)]
enum ScalarLayout {
    /// A block that keeps its lines, without their indentation.
    Literal,
    /// A text in one line.
    OneLine(ScalarStyle),
    /// A text in several lines, whose ends and indentation became spaces.
    Folded(ScalarStyle),
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Name of the key.
    pub(crate) key: String,
    /// Position of the key's first character.
    pub(crate) at: Position,
    /// Value of the key.
    pub(crate) value: Node,
}

/// The part that a node takes in the next attempt to read the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeState {
    /// The node counts.
    Kept,
    /// The node was reported and counts no more.
    Dropped,
    /// The node has no value and counts as if its key were not there.
    Absent,
    /// The value is missing, and an empty text takes its place so that the rest can be looked at.
    BlankText,
    /// The value is missing, and an empty list takes its place.
    BlankList,
}

/// One step from a node to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PathStep {
    /// A step to the value of a key.
    Key(String),
    /// A step to an item of a list, counted over those that were not dropped.
    Index(usize),
}

/// The end of a path, as far as the file goes.
pub(crate) struct Located<'a> {
    /// The node, if the file has it.
    pub(crate) node: Option<&'a Node>,
    /// Position of the node, else that of the nearest node above it.
    pub(crate) at: Position,
    /// Path with the indices that the author counts.
    pub(crate) path: String,
    /// True if the path leads to something that only stands in for what is missing.
    pub(crate) blank: bool,
}

impl Document {
    /// Parses `text`. A document comes out unless the syntax is broken; problems do not exclude it.
    pub(crate) fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> (Option<Self>, Vec<Problem>) {
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        let masked = env::mask(text);
        let mut builder = Builder::new(&masked, env);
        let outcome = builder.run();
        let Builder { mut problems, root, .. } = builder;
        let document = match outcome {
            Ok(()) => root.map(|root| Self { root, source: text.to_owned() }),
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        if document.is_none() && problems.is_empty() {
            let start = Position { line: 1, column: 1 };
            problems.push(Problem::error(start, "", "the file is empty").with_help("it needs model_endpoints"));
        }
        (document, problems)
    }

    /// Follows a path as far as the file goes.
    pub(crate) fn find(&self, steps: &[PathStep]) -> Located<'_> {
        let mut found = Located { node: Some(&self.root), at: self.root.at, path: String::new(), blank: false };
        for step in steps {
            let next = found.node.and_then(|node| node.step(step));
            found.node = next.map(|(_, node)| node);
            let shown = match (step, next) {
                (PathStep::Index(_), Some((original, _))) => PathStep::Index(original),
                _ => step.clone(),
            };
            push_step(&mut found.path, &shown);
            if let Some(node) = found.node {
                found.at = node.at;
                found.blank |= matches!(node.state, NodeState::BlankText | NodeState::BlankList);
            }
        }
        found
    }

    /// Returns the node a path leads to.
    pub(crate) fn node_mut(&mut self, steps: &[PathStep]) -> Option<&mut Node> {
        let mut node = &mut self.root;
        for step in steps {
            let (original, _) = node.step(step)?;
            node = match &mut node.content {
                NodeContent::List(items) => items.get_mut(original)?,
                NodeContent::Mapping(entries) => &mut entries.get_mut(original)?.value,
                NodeContent::Scalar(_) => return None,
            };
        }
        Some(node)
    }

    /// Returns the place of a line and column, from 1, of a scalar's text; the scalar's start where that place is
    /// unknown.
    pub(crate) fn place_in(&self, node: &Node, line: usize, column: usize) -> Position {
        let NodeContent::Scalar(Scalar { traceable: Some(layout), text, .. }) = &node.content else { return node.at };
        let Some(text_line) = text.split('\n').nth(line.saturating_sub(1)) else { return node.at };
        let column = column.saturating_sub(1);
        let offset = text.split_inclusive('\n').take(line - 1).map(|line| line.chars().count()).sum::<usize>() + column;
        match layout {
            ScalarLayout::OneLine(style) => self.place_in_line(node.at, *style, offset),
            ScalarLayout::Folded(style) => self.place_in_folds(node.at, *style, text, offset),
            ScalarLayout::Literal => {
                let at = Position { line: node.at.line + line - 1, column: node.at.column + column };
                let source = self.source.split('\n').nth(at.line - 1).unwrap_or_default().trim_end_matches('\r');
                let is_there = source.chars().skip(node.at.column - 1).eq(text_line.chars());
                if is_there { at } else { node.at }
            }
        }
    }

    /// Returns the place of the character of a scalar that lies in several lines of the file. Its blanks may stand for
    /// others there, but what is between them is the same.
    fn place_in_folds(&self, at: Position, style: ScalarStyle, text: &str, offset: usize) -> Position {
        let mut left = text.chars().take(offset).filter(|character| !character.is_whitespace()).count();
        let is_blank = text.chars().nth(offset).is_none_or(char::is_whitespace);
        let lines = self.source.split('\n').enumerate().skip(at.line - 1);
        let mut source = lines.flat_map(|(line, characters)| {
            let skipped = if line + 1 == at.line { at.column - 1 } else { 0 };
            let place = move |(column, character)| (Position { line: line + 1, column: column + 1 }, character);
            characters.chars().chain(['\n']).enumerate().skip(skipped).map(place)
        });
        if matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted) {
            source.next();
        }
        while let Some((place, character)) = source.next() {
            let escape = match (style, character) {
                (ScalarStyle::SingleQuoted, '\'') | (ScalarStyle::DoubleQuoted, '\\') => source.next(),
                _ => None,
            };
            let digits = match escape {
                Some((_, 'x')) => 2,
                Some((_, 'u')) => 4,
                Some((_, 'U')) => 8,
                _ => 0,
            };
            let last = source.by_ref().take(digits).last().or(escape).map_or(place, |(last, _)| last);
            if character.is_whitespace()
                || escape.is_some_and(|(_, escaped)| matches!(escaped, 'n' | 't' | 'r' | ' ' | '\n'))
            {
                continue;
            }
            match left {
                0 => return place,
                1 if is_blank => return Position { line: last.line, column: last.column + 1 },
                _ => left -= 1,
            }
        }
        at
    }

    /// Returns the place of the character of a scalar that lies in one line of the file.
    fn place_in_line(&self, at: Position, style: ScalarStyle, offset: usize) -> Position {
        let line = self.source.split('\n').nth(at.line - 1).unwrap_or_default();
        let mut source = line.chars().skip(at.column - 1).peekable();
        let mut column = at.column;
        if style != ScalarStyle::Plain {
            source.next();
            column += 1;
        }
        for _ in 0..offset {
            let Some(character) = source.next() else { break };
            column += 1;
            // A character of the text may be an escape of several characters in the source.
            let skipped = match (style, character) {
                (ScalarStyle::SingleQuoted, '\'') => 1,
                (ScalarStyle::DoubleQuoted, '\\') => match source.peek() {
                    Some('x') => 3,
                    Some('u') => 5,
                    Some('U') => 9,
                    _ => 1,
                },
                _ => 0,
            };
            column += source.by_ref().take(skipped).count();
        }
        Position { line: at.line, column }
    }
}

impl Node {
    /// Returns the child a step leads to, with its index among all children.
    fn step(&self, step: &PathStep) -> Option<(usize, &Self)> {
        match (&self.content, step) {
            (NodeContent::List(items), PathStep::Index(index)) => {
                items.iter().enumerate().filter(|(_, item)| item.counts()).nth(*index)
            }
            (NodeContent::Mapping(entries), PathStep::Key(key)) => {
                let (index, entry) = entries.iter().enumerate().find(|(_, entry)| entry.key == *key)?;
                entry.value.counts().then_some((index, &entry.value))
            }
            _ => None,
        }
    }

    /// Returns the entry of a key, in whatever state it is.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.content {
            NodeContent::Mapping(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// Returns the entry of a key, in whatever state it is, to change it.
    pub(crate) fn entry_mut(&mut self, key: &str) -> Option<&mut Entry> {
        match &mut self.content {
            NodeContent::Mapping(entries) => entries.iter_mut().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// Tells whether the node takes part in the next attempt.
    pub(crate) fn counts(&self) -> bool {
        !matches!(self.state, NodeState::Dropped | NodeState::Absent)
    }

    /// Tells whether the node holds a value of the environment.
    pub(crate) fn is_secret(&self) -> bool {
        matches!(&self.content, NodeContent::Scalar(scalar) if scalar.secret)
    }

    /// Tells whether the node is written as nothing at all: `key:`, `~` or `null`.
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(&self.content, NodeContent::Scalar(Scalar { text, written, plain: true, .. })
            if text == written && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// Names the variables of the environment that the value has come from.
    pub(crate) fn variables(&self) -> Vec<String> {
        match &self.content {
            NodeContent::Scalar(scalar) if scalar.secret => env::names(&scalar.written),
            _ => Vec::new(),
        }
    }

    /// Describes the value as a message may show it.
    pub(crate) fn shown(&self) -> String {
        match &self.content {
            _ if self.is_nothing() => "nothing".to_owned(),
            NodeContent::Scalar(scalar) if scalar.secret => format!("the value of '{}'", shortened(&scalar.written)),
            NodeContent::Scalar(scalar) => format!("'{}'", shortened(&scalar.written)),
            NodeContent::List(_) => "a list".to_owned(),
            NodeContent::Mapping(_) => "a mapping".to_owned(),
        }
    }

    /// Counts the nodes of the tree, this one included, and its levels.
    fn size(&self) -> (usize, usize) {
        let children: &mut dyn Iterator<Item = &Self> = match &self.content {
            NodeContent::Scalar(_) => &mut std::iter::empty(),
            NodeContent::List(items) => &mut items.iter(),
            NodeContent::Mapping(entries) => &mut entries.iter().map(|entry| &entry.value),
        };
        let (nodes, levels) =
            children.map(Self::size).fold((0, 0), |(nodes, levels), (more, deeper)| (nodes + more, levels.max(deeper)));
        (nodes + 1, levels + 1)
    }
}

/// Shortens a text to as much as helps to find it.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Adds a step to the text of a path.
pub(crate) fn push_step(path: &mut String, step: &PathStep) {
    match step {
        PathStep::Key(key) => {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(key);
        }
        PathStep::Index(index) => path.push_str(&format!("[{index}]")),
    }
}
