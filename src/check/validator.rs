//! The validator: checks the rules that the types cannot express, such as names that are taken, lists that are empty,
//! and conditions that do not compile.

use std::collections::HashMap;
use std::time::Duration;

use super::outline::{EndpointOutline, ExpressionOutline};
use crate::config::document::{Document, Located, NodeContent, PathStep};
use crate::config::{Config, Endpoint, Problem, Severity};
use crate::models::{ModelTarget, ModelUri};
use crate::routing::ResultKind;
use crate::routing::condition::{CheckedExpression, ConditionProblem, ConditionsBuilder, ConstantTruth};

/// Compiles an expression. Tests put their own in.
pub(super) type Compile<'a> =
    &'a dyn Fn(&mut ConditionsBuilder, &str, ResultKind) -> Result<CheckedExpression, ConditionProblem>;

/// Adds a problem for each rule that the configuration breaks, and outlines its endpoints.
pub(super) fn check(
    config: &Config,
    document: &Document,
    compile: Compile<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<EndpointOutline> {
    let expressions = ConditionsBuilder::new();
    let mut validator = Validator { document, compile, problems, expressions, has_python: false };
    validator.has_python = validator.has_python(config);
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
    /// Expressions of the endpoint that is being checked, with the names that they share.
    pub(super) expressions: ConditionsBuilder,
    /// True if the configuration has an interpreter.
    has_python: bool,
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

    /// Tells whether the configuration has an interpreter: one that it names, or that of a model which is loaded here.
    fn has_python(&self, config: &Config) -> bool {
        let at = KeyPath::default().key("models").key("python");
        let mut routes = config.model_endpoints.iter().flat_map(|endpoint| &endpoint.routes);
        self.found(&at).node.is_some() || routes.any(|route| !is_served_elsewhere(&route.model_uri))
    }

    /// Checks a condition, and outlines it.
    pub(super) fn condition(&mut self, condition: &str, at: &KeyPath) -> Option<ExpressionOutline> {
        let checked = self.checked(condition, ResultKind::Truth, at)?;
        match checked.constant {
            Some(ConstantTruth::True) => {
                let message = "it holds for every request, so that none comes to what follows";
                self.add(at, Severity::Warning, message, "leave it out, or compare with something of the request");
            }
            Some(ConstantTruth::False) => {
                let message = "it holds for no request, so that none takes this route by it";
                self.add(at, Severity::Warning, message, "remove the route, or compare with something of the request");
            }
            Some(ConstantTruth::Unknown) => {
                let message = "it does not look at the request, so that it holds for every one or for none";
                self.add(at, Severity::Warning, message, "compare with something of the request");
            }
            None => {}
        }
        Some(self.outlined(condition, &checked, at))
    }

    /// Checks an expression whose value is wanted, and outlines it.
    pub(super) fn expression(&mut self, expression: &str, at: &KeyPath) -> Option<ExpressionOutline> {
        let checked = self.checked(expression, ResultKind::Value, at)?;
        Some(self.outlined(expression, &checked, at))
    }

    fn outlined(&self, text: &str, checked: &CheckedExpression, at: &KeyPath) -> ExpressionOutline {
        let words = |flaw: &ConditionProblem| {
            let hint = flaw.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            self.words(at, &format!("{}{hint}", flaw.message))
        };
        let (way, reason) = (checked.way, checked.reason.as_ref().map(words));
        ExpressionOutline { text: self.written(at, text), way, reason }
    }

    /// Compiles an expression. One that needs Python also needs an interpreter.
    fn checked(&mut self, source: &str, wants: ResultKind, at: &KeyPath) -> Option<CheckedExpression> {
        let what = if wants == ResultKind::Truth { "condition" } else { "expression" };
        match (self.compile)(&mut self.expressions, source, wants) {
            Ok(CheckedExpression { reason: Some(reason), .. }) if !self.has_python => {
                let flaw = ConditionProblem {
                    message: format!("{}, so that the {what} needs Python, and no model here does", reason.message),
                    hint: Some(match reason.hint {
                        Some(instead) => format!("{instead}; or name an interpreter that has MLflow: models.python"),
                        None => "name an interpreter that has MLflow: models.python".to_owned(),
                    }),
                    ..reason
                };
                self.flaw(flaw, "", at);
                None
            }
            Ok(checked) => Some(checked),
            Err(flaw) => {
                self.flaw(flaw, &format!("the {what} does not compile: "), at);
                None
            }
        }
    }

    /// Checks the names that the expressions of an endpoint share, and lets these use them.
    pub(super) fn names(&mut self, endpoint: &Endpoint, at: &KeyPath) {
        let names: Vec<_> = endpoint.r#let.clone().into_iter().collect();
        let compiled = ConditionsBuilder::with_names(&names);
        self.expressions = compiled.unwrap_or_else(|problems| {
            for (name, flaw) in problems {
                self.flaw(flaw, "the expression does not compile: ", &at.key(&name));
            }
            // The other expressions are checked as if the names were sound.
            let sound: Vec<_> = names.into_iter().map(|(name, _)| (name, "None".to_owned())).collect();
            ConditionsBuilder::with_names(&sound).unwrap_or_default()
        });
    }

    /// Reports a flaw at its place in the text of an expression.
    fn flaw(&mut self, flaw: ConditionProblem, before: &str, at: &KeyPath) {
        let (found, words) = (self.found(at), self.words(at, &flaw.message));
        let place = found.node.map_or(found.at, |node| self.document.place_in(node, flaw.line, flaw.column));
        let mut problem = Problem::error(place, found.path, format!("{before}{words}"));
        problem.help = flaw.hint.map(|hint| self.words(at, &hint));
        self.problems.push(problem);
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
