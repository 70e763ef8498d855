//! Checks of `tests`: the request of each test goes through the routing table, as it would when it came for real;
//! nothing is called.

use std::sync::Arc;

use super::validator::{KeyPath, Validator};
use crate::config::{Config, RouteTest, Severity};
use crate::evaluators;
use crate::message::{Code, Request};
use crate::routing::{Draw, Endpoint, Explanation, RoutingTable};

/// Faults in which a decision may end.
const FAULTS: [Code; 3] = [Code::BadRequest, Code::ResourceDoesNotExist, Code::ConditionFailed];

impl Validator<'_> {
    /// Checks what a test names: everything that needs no routing table.
    pub(super) fn route_tests(&mut self, config: &Config) {
        for (index, test) in config.tests.iter().enumerate() {
            let at = test_at(index);
            if test.route.is_some() == test.fault.is_some() {
                let help = "give the alias of the route that must be taken, or the code of the fault";
                self.error(&at, "a test needs either `route` or `fault`", help);
            }
            if let Some(fault) = &test.fault
                && !FAULTS.iter().any(|code| code.name() == fault)
            {
                let fault_at = at.key("fault");
                let message = format!("no decision ends in {}", self.shown(&fault_at, fault));
                self.error(&fault_at, message, &format!("one of {}", FAULTS.map(Code::name).join(", ")));
            }
            let endpoint_at = at.key("endpoint");
            let endpoint = match &test.endpoint {
                Some(name) => config.model_endpoints.iter().position(|endpoint| endpoint.name == *name),
                None => (config.model_endpoints.len() == 1).then_some(0),
            };
            let Some(endpoint) = endpoint else {
                // A test may expect just that fault.
                if test.fault.is_none() && !config.model_endpoints.is_empty() {
                    let message = match &test.endpoint {
                        Some(name) => format!("there is no endpoint {}", self.shown(&endpoint_at, name)),
                        None => "the test has to name its endpoint, since there are several".to_owned(),
                    };
                    let endpoints = KeyPath::default().key("model_endpoints");
                    let names = config.model_endpoints.iter().map(|endpoint| &endpoint.name);
                    let help = format!("endpoints are: {}", self.list(&endpoints, "name", names));
                    self.error(&endpoint_at, message, &help);
                }
                continue;
            };
            if let Some(alias) = &test.route {
                self.names_route(alias, &at.key("route"), &config.model_endpoints[endpoint], &routes_at(endpoint));
            }
        }
    }

    /// Runs the tests of a configuration that is sound otherwise.
    pub(super) fn try_route_tests(&mut self, config: &Config) {
        if config.tests.is_empty() {
            return;
        }
        let table = match RoutingTable::build(config) {
            Ok(table) => table,
            // Each condition has been compiled before, so this is a defect, and no test must seem to hold for it.
            Err(problems) => {
                let keys = problems.iter().map(|it| format!("model_endpoints[{}].{}", it.endpoint, it.key));
                let message = format!("not tried: the routing table refuses {}", keys.collect::<Vec<_>>().join(", "));
                return self.error(&KeyPath::default().key("tests"), message, "");
            }
        };
        let requests: Vec<_> = config.tests.iter().map(|test| Arc::new(test.request())).collect();
        let has_service = |endpoint: &Endpoint| config.model_endpoints[endpoint.index].decision.is_some();
        // All that Python has to evaluate is asked at once.
        let question = |request: &Arc<Request>| {
            let endpoint = table.endpoint(request).ok().filter(|endpoint| !has_service(endpoint))?;
            Some((Arc::clone(endpoint.question()?), Arc::clone(request)))
        };
        let asked: Vec<_> = requests.iter().filter_map(question).collect();
        let said = if asked.is_empty() { Ok(Vec::new()) } else { evaluators::try_out(config, &asked) };
        let (mut said, reason) = match said {
            Ok(said) => (said.into_iter(), String::new()),
            Err(reason) => (Vec::new().into_iter(), reason),
        };
        for (index, (test, request)) in config.tests.iter().zip(&requests).enumerate() {
            let at = test_at(index);
            let endpoint = match table.endpoint(request) {
                Ok(endpoint) => endpoint,
                Err(fault) => {
                    self.compare(test, &at, None, &Explanation::of_fault("".into(), &fault));
                    continue;
                }
            };
            if has_service(endpoint) {
                let message = "not tried: an outside service is asked first, and `check` asks none";
                self.add(&at, Severity::Warning, message, "");
                continue;
            }
            let answers = endpoint.question().and_then(|_| said.next());
            if endpoint.question().is_some() && answers.is_none() {
                let message = format!("not tried: a condition needs Python, which cannot be started: {reason}");
                self.add(&at, Severity::Warning, message, "`models.python` names an interpreter that has MLflow");
                continue;
            }
            self.compare(test, &at, Some(endpoint), &endpoint.explain(request, answers.as_ref()));
        }
    }

    fn compare(&mut self, test: &RouteTest, at: &KeyPath, endpoint: Option<&Endpoint>, explanation: &Explanation) {
        let passes = match (&test.route, &test.fault) {
            (Some(alias), _) => possible(explanation).any(|possible| possible == alias),
            (None, fault) => explanation.error_code.is_some() && explanation.error_code == fault.as_deref(),
        };
        if passes {
            return;
        }
        let name = match &test.name {
            Some(name) => format!("test `{}`", self.written(&at.key("name"), name)),
            None => "this test".to_owned(),
        };
        // The message says what the test got, why, and what it expected.
        let gets = match explanation.error_code {
            Some(code) => format!("gets the fault `{code}`"),
            None => {
                let taken = possible(explanation).map(|alias| format!("`{}`", self.alias(endpoint, alias)));
                format!("takes {} ({})", taken.collect::<Vec<_>>().join(" or "), explanation.reason)
            }
        };
        let failures = endpoint.map(|endpoint| self.condition_failures(endpoint, explanation)).unwrap_or_default();
        let (key, expected) = match (&test.route, &test.fault) {
            (Some(alias), _) => ("route", self.written(&at.key("route"), alias)),
            (None, fault) => ("fault", self.written(&at.key("fault"), fault.as_deref().unwrap_or_default())),
        };
        let help = "`signalbox route` shows how a request is decided";
        self.error(&at.key(key), format!("{name}: {gets}{failures}, expected `{expected}`"), help);
    }

    /// Lists the errors that kept conditions from being evaluated.
    fn condition_failures(&self, endpoint: &Endpoint, explanation: &Explanation) -> String {
        let failures = explanation.conditions.iter().filter_map(|report| {
            let alias = report.routes.first()?;
            let route = endpoint.route_named(alias)?;
            let condition_at = routes_at(endpoint.index).index(route).key("model_request_condition");
            let words = self.words(&condition_at, report.error.as_ref()?);
            Some(format!("; the condition of `{}` fails: {words}", self.alias(Some(endpoint), alias)))
        });
        failures.collect()
    }

    /// Returns an alias as a message may show it.
    fn alias(&self, endpoint: Option<&Endpoint>, alias: &str) -> String {
        let route = endpoint.and_then(|endpoint| Some((endpoint.index, endpoint.route_named(alias)?)));
        route.map_or_else(
            || alias.to_owned(),
            |(endpoint, route)| self.written(&routes_at(endpoint).index(route).key("alias"), alias),
        )
    }
}

/// Returns the aliases that the request may lead to: one, unless it is drawn by chance or in turn.
fn possible(explanation: &Explanation) -> impl Iterator<Item = &str> {
    let shared = explanation.shares.as_ref().filter(|shares| !matches!(shares.draw, Draw::StickyBy { .. }));
    let drawn = shared.into_iter().flat_map(|shares| &shares.routes).filter(|share| share.share != Some(0.0));
    let chosen = if shared.is_some() { None } else { explanation.route.as_deref() };
    drawn.map(|share| &*share.route).chain(chosen)
}

fn test_at(index: usize) -> KeyPath {
    KeyPath::default().key("tests").index(index)
}

fn routes_at(endpoint: usize) -> KeyPath {
    KeyPath::default().key("model_endpoints").index(endpoint).key("routes")
}
