//! The validator: checks the rules that the types cannot express, such as names that are taken, lists that are empty,
//! and conditions that do not compile.

use std::collections::HashMap;
use std::time::Duration;

use super::outline::EndpointOutline;
use crate::config::document::{Document, Located, NodeContent, PathStep};
use crate::config::{Config, Problem, Severity};
use crate::models::{ModelTarget, ModelUri};
use crate::routing::condition::{self, ConditionProblem, Language};

/// Compiles a condition, and returns its language. Tests put their own in.
pub(super) type Compile<'a> = &'a dyn Fn(&str) -> Result<Language, ConditionProblem>;

/// Adds a problem for each rule that the configuration breaks, and outlines its endpoints.
pub(super) fn check(
    config: &Config,
    document: &Document,
    compile: Compile<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<EndpointOutline> {
    let mut validator = Validator { document, compile, problems };
    validator.kafka(&config.kafka);
    validator.process(config);
    let outlines = validator.endpoints(&config.model_endpoints);
    validator.route_tests(config);
    // Only a sound configuration can be checked further: a condition that could not be read would count as none here.
    if validator.problems.iter().all(|problem| problem.severity == Severity::Warning) {
        for (index, endpoint) in config.model_endpoints.iter().enumerate() {
            validator.unreachable(endpoint, &KeyPath::default().key("model_endpoints").index(index).key("routes"));
        }
        validator.try_route_tests(config);
    }
    outlines
}

/// The path to a key of the file.
#[derive(Clone, Default)]
pub(super) struct KeyPath(Vec<PathStep>);

impl KeyPath {
    pub(super) fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(PathStep::Key(key.to_owned()));
        Self(steps)
    }

    pub(super) fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(PathStep::Index(index));
        Self(steps)
    }
}

pub(super) struct Validator<'a> {
    pub(super) document: &'a Document,
    compile: Compile<'a>,
    pub(super) problems: &'a mut Vec<Problem>,
}

impl Validator<'_> {
    pub(super) fn found(&self, at: &KeyPath) -> Located<'_> {
        self.document.find(&at.0)
    }

    /// Formats a value as a message may show it.
    pub(super) fn shown(&self, at: &KeyPath, value: &str) -> String {
        self.found(at).node.map_or_else(|| format!("'{value}'"), |node| node.shown())
    }

    /// Returns a value as the outline may show it.
    pub(super) fn written(&self, at: &KeyPath, value: &str) -> String {
        match self.found(at).node.map(|node| &node.content) {
            Some(NodeContent::Scalar(scalar)) if scalar.secret => scalar.written.clone(),
            _ => value.to_owned(),
        }
    }

    /// Returns the words of a check about a value, unless they could repeat a secret.
    pub(super) fn words(&self, at: &KeyPath, words: &str) -> String {
        match self.found(at).node.is_some_and(|node| node.is_secret()) {
            true => "not shown, since it may repeat a value of the environment".to_owned(),
            false => words.split_whitespace().collect::<Vec<_>>().join(" "),
        }
    }

    pub(super) fn add(&mut self, at: &KeyPath, severity: Severity, message: impl Into<String>, help: &str) {
        let found = self.found(at);
        // A value that only stands in for a missing one has been reported as missing.
        if found.blank {
            return;
        }
        let mut problem = Problem::error(found.at, found.path, message);
        problem.severity = severity;
        problem.help = (!help.is_empty()).then(|| help.to_owned());
        self.problems.push(problem);
    }

    pub(super) fn error(&mut self, at: &KeyPath, message: impl Into<String>, help: &str) {
        self.add(at, Severity::Error, message, help);
    }

    pub(super) fn require(&mut self, holds: bool, at: &KeyPath, message: &str) {
        if !holds {
            self.error(at, message, "");
        }
    }

    pub(super) fn positive(&mut self, duration: Duration, at: &KeyPath) {
        self.require(!duration.is_zero(), at, "must be more than nothing");
    }

    pub(super) fn model_uri(&mut self, uri: &str, at: &KeyPath) {
        if let Err(error) = ModelUri::parse(uri) {
            // The message leaves out the value: an address may hold a password.
            self.error(at, format!("not a model URI: {}", self.words(at, &error.problem)), "");
        }
    }

    pub(super) fn condition(&mut self, condition: &str, at: &KeyPath) -> Option<Language> {
        self.compiled((self.compile)(condition), "condition", at)
    }

    /// Checks an expression whose value is wanted.
    pub(super) fn expression(&mut self, expression: &str, at: &KeyPath) {
        self.compiled(condition::check_expression(expression), "expression", at);
    }

    /// Returns the language of a compiled expression, or reports the place of its flaw.
    fn compiled(&mut self, compiled: Result<Language, ConditionProblem>, what: &str, at: &KeyPath) -> Option<Language> {
        match compiled {
            Ok(language) => Some(language),
            Err(flaw) => {
                let (found, words) = (self.found(at), self.words(at, &flaw.message));
                let place = found.node.map_or(found.at, |node| self.document.place_in(node, flaw.line, flaw.column));
                let mut problem = Problem::error(place, found.path, format!("the {what} does not compile: {words}"));
                problem.help = flaw.hint.map(|hint| self.words(at, &hint));
                self.problems.push(problem);
                None
            }
        }
    }

    /// Lists the values of one key of the items of a list, as a message may show them.
    pub(super) fn list<'n>(&self, at: &KeyPath, key: &str, values: impl Iterator<Item = &'n String>) -> String {
        let written = |(index, value): (usize, &'n String)| self.written(&at.index(index).key(key), value);
        values.enumerate().map(written).collect::<Vec<_>>().join(", ")
    }

    /// Reports names that more than one item of a list has.
    pub(super) fn unique<'n>(&mut self, at: &KeyPath, key: &str, names: impl Iterator<Item = &'n String>) {
        let mut seen: HashMap<&String, KeyPath> = HashMap::new();
        for (index, name) in names.enumerate() {
            let at = at.index(index).key(key);
            let Some(first) = seen.get(name) else {
                seen.insert(name, at);
                continue;
            };
            let first = self.found(first);
            let help = format!("{} in line {} has it already", first.path, first.at.line);
            let message = format!("duplicate name {}", self.shown(&at, name));
            self.error(&at, message, &help);
        }
    }
}

/// Tells whether a model is served at an address or by the built-in one, so that nothing is loaded for it.
pub(super) fn is_served_elsewhere(model_uri: &str) -> bool {
    ModelUri::parse(model_uri).is_ok_and(|uri| matches!(uri.target(), ModelTarget::Address { .. } | ModelTarget::Noop))
}
