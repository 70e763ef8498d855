//! The endpoints that may be called over HTTP, by name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use prometheus::{Histogram, IntCounter};
use serde_json::json;

use crate::config;
use crate::message::{Code, Fault, Stage};
use crate::telemetry::Metrics;

/// Holds an endpoint with its metrics bound, so that a call looks up no label.
#[derive(Debug)]
pub(super) struct BoundEndpoint {
    pub(super) name: String,
    pub(super) timeout: Duration,
    /// Counter of the calls that ended with 200.
    pub(super) answered: IntCounter,
    /// Durations of all calls.
    pub(super) duration: Histogram,
}

/// Finds endpoints by name, and is replaced as a whole when the config changes.
#[derive(Debug)]
pub(super) struct EndpointDirectory {
    current: ArcSwap<EndpointTable>,
    /// The metrics that calls are counted in.
    pub(super) metrics: Metrics,
}

/// Holds all endpoints of one config.
#[derive(Debug)]
struct EndpointTable {
    by_name: BTreeMap<String, Arc<BoundEndpoint>>,
    listing: Bytes,
}

impl EndpointDirectory {
    pub(super) fn new(endpoints: &[config::Endpoint], metrics: &Metrics) -> Self {
        Self { current: ArcSwap::from_pointee(EndpointTable::new(endpoints, metrics)), metrics: metrics.clone() }
    }

    /// Replaces all endpoints. Calls under way go on as they began.
    pub(super) fn set(&self, endpoints: &[config::Endpoint]) {
        self.current.store(Arc::new(EndpointTable::new(endpoints, &self.metrics)));
    }

    /// Returns the body of `GET /api/2.0/endpoints/`.
    pub(super) fn listing(&self) -> Bytes {
        self.current.load().listing.clone()
    }

    /// Finds the endpoint that a caller named, or the only one.
    ///
    /// # Errors
    /// When there is no such endpoint, or several and none was named.
    pub(super) fn find(&self, named: Option<&str>) -> Result<Arc<BoundEndpoint>, Fault> {
        let by_name = &self.current.load().by_name;
        let found = match named {
            Some(name) => by_name.get(name),
            None if by_name.len() == 1 => by_name.values().next(),
            None => None,
        };
        found.cloned().ok_or_else(|| {
            // The message lists the names, so that a caller who mistyped one finds it.
            let known: Vec<&str> = by_name.keys().map(String::as_str).collect();
            let known = known.join(", ");
            let message = match named {
                Some(name) => format!("there is no endpoint '{name}'; there are: {known}"),
                None => format!(
                    "there are several endpoints; name one with the header x-endpoint, or POST to \
                     /endpoints/{{name}}/invocations; there are: {known}"
                ),
            };
            Fault::permanent(Code::ResourceDoesNotExist, Stage::Route, message)
        })
    }
}

impl EndpointTable {
    fn new(endpoints: &[config::Endpoint], metrics: &Metrics) -> Self {
        let bound = |endpoint: &config::Endpoint| {
            let bound = BoundEndpoint {
                answered: metrics.shim_requests.with_label_values(&[endpoint.name.as_str(), "200"]),
                duration: metrics.shim_duration.with_label_values(&[endpoint.name.as_str()]),
                name: endpoint.name.clone(),
                timeout: endpoint.timeout,
            };
            (endpoint.name.clone(), Arc::new(bound))
        };
        Self { by_name: endpoints.iter().map(bound).collect(), listing: listing(endpoints).to_string().into() }
    }
}

/// Lists the endpoints in the shape of MLflow's deployments server, with the routes besides.
fn listing(endpoints: &[config::Endpoint]) -> serde_json::Value {
    let route = |route: &config::Route| json!({"alias": route.alias, "model_uri": route.model_uri});
    let endpoint = |endpoint: &config::Endpoint| {
        json!({
            "name": endpoint.name,
            "endpoint_type": "mlflow-model-serving",
            "endpoint_url": format!("/gateway/{}/invocations", endpoint.name),
            "routes": endpoint.routes.iter().map(route).collect::<Vec<_>>(),
        })
    };
    json!({"endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(), "next_page_token": null})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(names: &[&str]) -> EndpointDirectory {
        EndpointDirectory::new(&named(names), &Metrics::new().unwrap())
    }

    fn named(names: &[&str]) -> Vec<config::Endpoint> {
        names.iter().map(|name| crate::shim::tests::endpoint(name, Duration::from_secs(1))).collect()
    }

    #[test]
    fn find_needs_no_name_when_there_is_one_endpoint() {
        assert_eq!(endpoints(&["a"]).find(None).unwrap().name, "a");
        let fault = endpoints(&["b", "a"]).find(None).unwrap_err();
        assert_eq!(fault.code.status(), 404);
        assert!(fault.message.ends_with("there are: a, b"), "{fault}");
    }

    #[test]
    fn find_lists_known_names_when_name_is_unknown() {
        let fault = endpoints(&["b", "a"]).find(Some("c")).unwrap_err();
        assert_eq!(fault.message, "there is no endpoint 'c'; there are: a, b");
    }

    #[test]
    fn listing_has_every_endpoint_with_its_routes() {
        let listing: serde_json::Value = serde_json::from_slice(&endpoints(&["a"]).listing()).unwrap();
        assert_eq!(listing["endpoints"][0]["endpoint_url"], "/gateway/a/invocations");
        assert_eq!(listing["endpoints"][0]["routes"][0], json!({"alias": "fast", "model_uri": "models:/m/1"}));
    }

    #[test]
    fn set_replaces_endpoints() {
        let endpoints = endpoints(&["a"]);
        let before = endpoints.find(Some("a")).unwrap();
        endpoints.set(&named(&["b"]));
        assert_eq!(endpoints.find(None).unwrap().name, "b");
        assert_eq!(endpoints.find(Some("a")).unwrap_err().code.status(), 404);
        assert!(endpoints.listing().starts_with(b"{\"endpoints\":[{\"endpoint_type\""));
        assert_eq!(before.name, "a");
    }
}
