//! The routing table: every endpoint, its routes, and their conditions, compiled.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::canary::{CanaryRoute, CanaryShare};
use super::condition::{ConditionId, ConditionProblem, Conditions, ConditionsBuilder};
use super::decision_service::DecisionInput;
use super::split::{Member, Split};
use super::sticky::Sticky;
use crate::config::{self, Config, OnConditionError};
use crate::message::{Code, Fault, Request, Stage, header};
use crate::telemetry::{LogGate, Metrics};

/// Index of a route in the routes of its endpoint.
pub(super) type RouteIndex = usize;

/// Every endpoint of a configuration.
#[derive(Debug)]
pub struct RoutingTable {
    endpoints: Vec<Endpoint>,
    by_name: HashMap<Arc<str>, usize>,
}

/// One name that applications call.
#[derive(Debug)]
pub struct Endpoint {
    /// Index of the endpoint in the configuration's list.
    pub index: usize,
    /// Name of the endpoint.
    pub name: Arc<str>,
    /// Longest time that a request to this endpoint may take.
    pub timeout: Duration,
    /// Routes that serve the endpoint, in the order of the configuration.
    pub routes: Vec<Route>,
    /// True if a request may name its own route in the header `x-signalbox-route`.
    pub(super) route_override: bool,
    /// Conditions of the endpoint, in order of the first route that has each.
    pub(super) groups: Vec<ConditionGroup>,
    /// The canary: the route that takes its own share of the requests that no condition took.
    pub(super) canary: Option<CanaryRoute>,
    /// Routes without a condition, except the canary.
    pub(super) others: Split,
    /// The expression that keeps a caller on one side of a weighted split.
    pub(super) sticky: Option<Sticky>,
    /// Headers and expressions that are sent to the decision service, which decides first.
    pub(super) decision_input: Option<DecisionInput>,
    /// All expressions of the endpoint, compiled together.
    pub(super) conditions: Conditions,
}

/// One way to serve an endpoint.
#[derive(Debug)]
pub struct Route {
    /// Name of the route for people and metrics.
    pub alias: Arc<str>,
    /// URI of the model that answers, as configured.
    pub model_uri: Arc<str>,
    /// Index of the route to try when this one cannot answer.
    pub fallback: Option<usize>,
}

/// A condition, and the routes that share the requests for which it holds.
#[derive(Debug)]
pub(super) struct ConditionGroup {
    /// Key of the condition in the endpoint's compiled conditions.
    pub(super) condition: ConditionId,
    /// Consequence of a condition that cannot be evaluated on a request: a fault, if one of the routes says so.
    pub(super) on_error: OnConditionError,
    /// Routes of the condition, at least one.
    pub(super) split: Split,
    /// Limits the log lines about failures of the condition.
    pub(super) log: LogGate,
}

/// An expression that keeps a configuration from becoming a routing table. Indices are those of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingProblem {
    /// Index of the endpoint.
    pub endpoint: usize,
    /// Key of the endpoint, as in `routes[0].model_request_condition`.
    pub key: String,
    /// The error in that expression, and its place in the text.
    pub problem: ConditionProblem,
}

impl RoutingTable {
    /// Compiles every condition and reports every problem at once.
    pub fn build(config: &Config) -> Result<Self, Vec<RoutingProblem>> {
        let mut problems = Vec::new();
        let mut endpoints = Vec::with_capacity(config.model_endpoints.len());
        for (index, endpoint) in config.model_endpoints.iter().enumerate() {
            let refuse = |key, problem| problems.push(RoutingProblem { endpoint: index, key, problem });
            endpoints.push(Endpoint::build(index, endpoint, refuse));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let by_name =
            endpoints.iter().enumerate().map(|(index, endpoint)| (Arc::clone(&endpoint.name), index)).collect();
        Ok(Self { endpoints, by_name })
    }

    /// Returns the endpoint that the request's `endpoint` header names; without that header, the only endpoint there
    /// is.
    pub fn endpoint(&self, request: &Request) -> Result<&Endpoint, Fault> {
        match (request.headers.get(header::ENDPOINT), &*self.endpoints) {
            (Some(name), _) => std::str::from_utf8(name)
                .ok()
                .and_then(|name| self.named(name))
                .ok_or_else(|| self.unknown(&format!("there is no endpoint `{}`", String::from_utf8_lossy(name)))),
            (None, [only]) => Ok(only),
            (None, _) => Err(self.unknown("the request has no `endpoint` header, and there are several endpoints")),
        }
    }

    /// Tells whether some endpoint has a question for CPython.
    pub fn needs_python(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.question().is_some())
    }

    /// Counts the evaluations of conditions in these metrics from now on.
    pub fn count_in(&self, metrics: &Metrics) {
        self.endpoints.iter().for_each(|endpoint| endpoint.conditions.count_in(metrics));
    }

    /// Returns the endpoint at this index of the configuration's list.
    pub fn at(&self, index: usize) -> Option<&Endpoint> {
        self.endpoints.get(index)
    }

    /// Returns the endpoint of this name.
    pub fn named(&self, name: &str) -> Option<&Endpoint> {
        self.by_name.get(name).and_then(|index| self.endpoints.get(*index))
    }

    fn unknown(&self, what: &str) -> Fault {
        let names: Vec<&str> = self.endpoints.iter().map(|endpoint| &*endpoint.name).collect();
        let message = format!("{what}; endpoints are: {}", names.join(", "));
        Fault::permanent(Code::ResourceDoesNotExist, Stage::Route, message)
    }
}

impl Endpoint {
    /// Returns the index of the route of this alias.
    pub fn route_named(&self, alias: &str) -> Option<usize> {
        self.routes.iter().position(|route| &*route.alias == alias)
    }

    /// Returns the canary's route, by its index, and its share.
    pub fn canary(&self) -> Option<(usize, &Arc<CanaryShare>)> {
        self.canary.as_ref().map(|canary| (canary.route, &canary.share))
    }

    /// Returns the routes without a condition but for the canary's, by their indices.
    pub fn others(&self) -> impl Iterator<Item = usize> {
        self.others.members().iter().map(|member| member.route)
    }

    fn build(index: usize, config: &config::Endpoint, mut refuse: impl FnMut(String, ConditionProblem)) -> Self {
        let names: Vec<_> = config.r#let.clone().into_iter().collect();
        let mut conditions = ConditionsBuilder::with_names(&names).unwrap_or_else(|problems| {
            problems.into_iter().for_each(|(name, problem)| refuse(format!("let.{name}"), problem));
            ConditionsBuilder::new()
        });
        let mut groups = Vec::new();
        for (source, routes) in by_condition(config) {
            match conditions.add(source) {
                Ok(condition) => groups.push(ConditionGroup {
                    condition,
                    on_error: on_error(config, &routes),
                    split: split(config, &routes),
                    log: LogGate::default(),
                }),
                Err(problem) => {
                    let key = |route| format!("routes[{route}].model_request_condition");
                    routes.iter().for_each(|route| refuse(key(route), problem.clone()));
                }
            }
        }
        let sticky = config.sticky_by.as_deref().and_then(|source| {
            let refused = |problem| refuse("sticky_by".to_owned(), problem);
            let expression = conditions.add_expression(source).map_err(refused).ok()?;
            Some(Sticky { expression, log: LogGate::default() })
        });
        let decision_input = config.decision.as_ref().map(|it| DecisionInput::build(it, &mut conditions, &mut refuse));
        let unconditional = |route: &usize| config.routes[*route].model_request_condition.is_none();
        let (canaries, others): (Vec<usize>, Vec<usize>) =
            (0..config.routes.len()).filter(unconditional).partition(|route| config.routes[*route].canary.is_some());
        let canary = canaries.first().map(|route| CanaryRoute::new(&config.name, &config.routes[*route].alias, *route));
        Self {
            index,
            name: config.name.as_str().into(),
            timeout: config.timeout,
            routes: config.routes.iter().map(|route| Route::build(config, route)).collect(),
            route_override: config.route_override,
            groups,
            canary,
            others: split(config, &others),
            sticky,
            decision_input,
            conditions: conditions.build(),
        }
    }
}

impl Route {
    fn build(endpoint: &config::Endpoint, config: &config::Route) -> Self {
        let named = |alias: &String| endpoint.routes.iter().position(|route| route.alias == *alias);
        Self {
            alias: config.alias.as_str().into(),
            model_uri: config.model_uri.as_str().into(),
            fallback: config.fallback.as_ref().and_then(named),
        }
    }
}

/// Groups the routes by their condition, in the order of the file.
fn by_condition(endpoint: &config::Endpoint) -> Vec<(&str, Vec<usize>)> {
    let mut groups: Vec<(&str, Vec<usize>)> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for (index, route) in endpoint.routes.iter().enumerate() {
        let Some(condition) = route.model_request_condition.as_deref() else { continue };
        let group = *known.entry(condition).or_insert_with(|| {
            groups.push((condition, Vec::new()));
            groups.len() - 1
        });
        groups[group].1.push(index);
    }
    groups
}

fn on_error(endpoint: &config::Endpoint, routes: &[usize]) -> OnConditionError {
    let fails = routes.iter().any(|route| endpoint.routes[*route].on_condition_error == OnConditionError::Fail);
    if fails { OnConditionError::Fail } else { OnConditionError::Skip }
}

fn split(endpoint: &config::Endpoint, routes: &[usize]) -> Split {
    let members = routes.iter().map(|index| {
        let route = &endpoint.routes[*index];
        Member::new(&endpoint.name, &route.alias, *index, route.weight.unwrap_or(1.0))
    });
    Split::new(endpoint.strategy, members.collect())
}

impl fmt::Display for RoutingProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "model_endpoints[{}].{}: {}", self.endpoint, self.key, self.problem)
    }
}
