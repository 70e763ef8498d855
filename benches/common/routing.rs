//! Makes routing tables and requests without a config file or a broker, and one decision over them.

use std::sync::Arc;

use bytes::Bytes;
use signalbox::config::{Config, Endpoint, OnConditionError, Route, Runtime, Strategy};
use signalbox::message::{Headers, Request, Source};
use signalbox::routing::RoutingTable;

/// Condition whose value lies near the front of the payload.
pub(crate) const CONDITION: &str = "request.json()['dataframe_split']['data'][0][0].startswith('Domain specific text')";

/// Makes a route with that condition.
pub(crate) fn route(alias: &str, condition: Option<&str>) -> Route {
    Route {
        model_uri: format!("models:/{alias}/production"),
        alias: alias.to_owned(),
        model_request_condition: condition.map(str::to_owned),
        on_condition_error: OnConditionError::Skip,
        weight: None,
        timeout: None,
        fallback: None,
        fallback_on: None,
        breaker: None,
        retries: None,
        shadow: None,
        canary: None,
        batch: None,
        python: None,
        runtime: Runtime::Forked,
        env_manager: None,
        workers: None,
        threads: None,
        max_concurrency: None,
    }
}

/// Builds one endpoint with these routes, of which the first without a condition is the default.
pub(crate) fn table(routes: Vec<Route>) -> RoutingTable {
    table_of(routes, Strategy::First, None)
}

/// Builds one endpoint with these routes.
pub(crate) fn table_of(routes: Vec<Route>, strategy: Strategy, sticky_by: Option<&str>) -> RoutingTable {
    let endpoint = Endpoint {
        name: "sentiment-router".to_owned(),
        strategy,
        r#let: Default::default(),
        sticky_by: sticky_by.map(str::to_owned),
        decision: None,
        route_override: false,
        timeout: std::time::Duration::from_secs(10),
        routes,
    };
    let config = Config {
        tests: Vec::new(),
        model_endpoints: vec![endpoint],
        kafka: Default::default(),
        server: Default::default(),
        registry: Default::default(),
        models: Default::default(),
        conditions: Default::default(),
    };
    RoutingTable::build(&config).expect("the conditions compile")
}

/// Makes a payload of about this many bytes, with the text that the condition wants in its first cell.
pub(crate) fn request(size: usize) -> Arc<Request> {
    let mut body = String::from(
        r#"{"dataframe_split":{"columns":["text","score"],"data":[["Domain specific text, and more",0.5]"#,
    );
    while body.len() < size {
        body.push_str(r#",["the rain in spain stays mainly in the plain",0.25]"#);
    }
    body.push_str("]}}");
    Arc::new(Request {
        source: Source { topic: "inference-requests".into(), partition: 0, offset: 0 },
        timestamp: None,
        key: None,
        payload: Some(Bytes::from(body)),
        headers: Headers::from_pairs([("endpoint", &b"sentiment-router"[..]), ("x-tier", b"gold")]),
        parked: None,
    })
}

/// Decides, and returns the index of the route that takes the request.
pub(crate) fn decide(table: &RoutingTable, request: &Arc<Request>) -> usize {
    let decision = table.endpoint(request).and_then(|endpoint| endpoint.decide(request));
    decision.map_or(usize::MAX, |decision| decision.route)
}
