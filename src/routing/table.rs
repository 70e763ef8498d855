//! The routing table: every endpoint, its routes, and their conditions, compiled.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::condition::{ConditionId, ConditionProblem, Conditions, ConditionsBuilder};
use crate::config::{self, Config, OnConditionError};
use crate::message::{Code, Fault, Request, Stage, header};
use crate::telemetry::LogGate;

/// Every endpoint of a configuration.
#[derive(Debug)]
pub struct RoutingTable {
    endpoints: Vec<Endpoint>,
    by_name: HashMap<Arc<str>, usize>,
}

/// One name that applications call.
#[derive(Debug)]
pub struct Endpoint {
    /// Its place in the configuration's list.
    pub index: usize,
    /// Its name.
    pub name: Arc<str>,
    /// How long a request to it may take.
    pub timeout: Duration,
    /// The ways to serve it, as the configuration lists them.
    pub routes: Vec<Route>,
    /// The conditions of its routes.
    pub(super) conditions: Conditions,
}

/// One way to serve an endpoint.
#[derive(Debug)]
pub struct Route {
    /// What people and metrics call it.
    pub alias: Arc<str>,
    /// What answers, as configured.
    pub model_uri: Arc<str>,
    /// When it is taken; one without is taken when no condition holds.
    pub condition: Option<RouteCondition>,
}

/// When a route is taken.
#[derive(Debug)]
pub struct RouteCondition {
    /// Where its endpoint keeps it.
    pub id: ConditionId,
    /// What it means when it cannot be evaluated on a request.
    pub on_error: OnConditionError,
    /// Keeps the log of its failures short.
    pub(super) log: LogGate,
}

/// Why a configuration gives no routing table. The indices are those of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingProblem {
    /// Which endpoint.
    pub endpoint: usize,
    /// Which of its routes.
    pub route: usize,
    /// What is wrong with that route's condition, and where in its text.
    pub problem: ConditionProblem,
}

impl RoutingTable {
    /// Compiles every condition; tells every problem at once.
    pub fn build(config: &Config) -> Result<Self, Vec<RoutingProblem>> {
        let mut problems = Vec::new();
        let mut endpoints = Vec::with_capacity(config.model_endpoints.len());
        for (index, endpoint) in config.model_endpoints.iter().enumerate() {
            let refused = |route, problem| RoutingProblem { endpoint: index, route, problem };
            endpoints.push(Endpoint::build(index, endpoint, |route, problem| problems.push(refused(route, problem))));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let by_name =
            endpoints.iter().enumerate().map(|(index, endpoint)| (Arc::clone(&endpoint.name), index)).collect();
        Ok(Self { endpoints, by_name })
    }

    /// The endpoint that the request's `endpoint` header names; without one, the only endpoint there is.
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

    /// The endpoint of this name.
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
    fn build(place: usize, config: &config::Endpoint, mut refuse: impl FnMut(usize, ConditionProblem)) -> Self {
        let mut conditions = ConditionsBuilder::new();
        let mut routes = Vec::with_capacity(config.routes.len());
        for (index, route) in config.routes.iter().enumerate() {
            let condition = route.model_request_condition.as_deref().and_then(|source| {
                let id = conditions.add(source).map_err(|problem| refuse(index, problem)).ok()?;
                Some(RouteCondition { id, on_error: route.on_condition_error, log: LogGate::default() })
            });
            routes.push(Route {
                alias: route.alias.as_str().into(),
                model_uri: route.model_uri.as_str().into(),
                condition,
            });
        }
        let name = config.name.as_str().into();
        Self { index: place, name, timeout: config.timeout, routes, conditions: conditions.build() }
    }
}

impl fmt::Display for RoutingProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "model_endpoints[{}].routes[{}].model_request_condition: {}",
            self.endpoint, self.route, self.problem
        )
    }
}
