//! Outline of the endpoints: what the page says of the config.

use serde::Serialize;

use super::report::rounded;
use crate::config;
use crate::models::redacted;

/// An endpoint of the config in use.
#[derive(Debug, Clone)]
pub(super) struct EndpointOutline {
    pub(super) name: String,
    pub(super) routes: Vec<RouteOutline>,
}

/// A route of the config in use. Conditions are not shown: they are the business of whoever wrote them.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RouteOutline {
    pub(super) alias: String,
    pub(super) model_uri: String,
    /// True if the route takes the requests for which a condition holds.
    pub(super) conditional: bool,
    /// Part of the requests that the weights of the routes give this one, from 0 to 1; none where no weight decides.
    pub(super) weight: Option<f64>,
    pub(super) fallback: Option<String>,
    pub(super) shadow: Option<String>,
    /// True if the share moves by itself.
    pub(super) canary: bool,
}

impl EndpointOutline {
    pub(super) fn of(endpoint: &config::Endpoint) -> Self {
        let routes = endpoint.routes.iter().map(|route| RouteOutline {
            alias: route.alias.clone(),
            model_uri: redacted(&route.model_uri).into_owned(),
            conditional: route.model_request_condition.is_some(),
            weight: weight(endpoint, route),
            fallback: route.fallback.clone(),
            shadow: route.shadow.clone(),
            canary: route.canary.is_some(),
        });
        Self { name: endpoint.name.clone(), routes: routes.collect() }
    }
}

impl RouteOutline {
    /// Stands for the requests that came to no route.
    pub(super) fn of_no_route() -> Self {
        Self {
            alias: String::new(),
            model_uri: String::new(),
            conditional: false,
            weight: None,
            fallback: None,
            shadow: None,
            canary: false,
        }
    }
}

/// Computes the part that a route's weight has of the weights of all routes that share with it.
fn weight(endpoint: &config::Endpoint, route: &config::Route) -> Option<f64> {
    if endpoint.strategy != config::Strategy::Weighted || route.canary.is_some() {
        return None;
    }
    let shares = |other: &&config::Route| {
        other.canary.is_none() && other.model_request_condition == route.model_request_condition
    };
    let of = |route: &config::Route| route.weight.unwrap_or(1.0);
    // Large weights are divided first, since their sum may be too large for a float.
    let largest = endpoint.routes.iter().filter(shares).map(of).fold(0.0, f64::max);
    let sum: f64 = endpoint.routes.iter().filter(shares).map(|route| of(route) / largest).sum();
    Some(of(route) / largest / sum).filter(|part| part.is_finite()).map(rounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_parts_of_those_that_share() {
        let endpoint: config::Endpoint = serde_yaml::from_str(
            "
name: e
strategy: weighted
routes:
  - {model_uri: builtin:noop, alias: a, weight: 3}
  - {model_uri: 'http://me:secret@host/', alias: b}
  - {model_uri: builtin:noop, alias: c, model_request_condition: 'True'}
  - {model_uri: builtin:noop, alias: d, canary: {steps: [10], every: 1m}}
",
        )
        .unwrap();
        let outline = EndpointOutline::of(&endpoint);
        let weights: Vec<_> = outline.routes.iter().map(|route| route.weight).collect();
        assert_eq!(weights, [Some(0.75), Some(0.25), Some(1.0), None]);
        assert_eq!(outline.routes[1].model_uri, "http://***@host/");
    }
}
