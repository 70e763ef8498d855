//! Traffic of all endpoints and routes over the last quarter of an hour.

use std::collections::BTreeMap;
use std::time::Duration;

use super::counters::Counters;
use super::outline::EndpointOutline;
use super::series::{Reading, Series};

/// Route of the requests that came to none.
pub(super) const NO_ROUTE: &str = "";

/// One series for each endpoint and each route of the config in use, so that memory is bounded by the config.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    endpoints: BTreeMap<String, EndpointTraffic>,
    /// Number of samples that were taken so far, which is the number of the last one.
    taken: u64,
}

/// Series of one endpoint.
#[derive(Debug)]
pub(super) struct EndpointTraffic {
    pub(super) all: Series,
    routes: BTreeMap<String, Series>,
}

impl Traffic {
    /// Takes a sample.
    pub(super) fn sample(&mut self, outline: &[EndpointOutline], counters: &Counters, now: Duration) {
        self.follow(outline, counters, now);
        self.taken += 1;
        for (name, endpoint) in &mut self.endpoints {
            endpoint.all.push(&counters.bounds, total(name, endpoint.routes.keys(), counters), now);
            for (alias, series) in &mut endpoint.routes {
                series.push(&counters.bounds, counters.reading(name, alias), now);
            }
        }
    }

    /// Begins the series of endpoints and routes that are new, and ends those of others.
    pub(super) fn follow(&mut self, outline: &[EndpointOutline], counters: &Counters, now: Duration) {
        self.endpoints.retain(|name, _| outline.iter().any(|endpoint| endpoint.name == *name));
        for endpoint in outline {
            let name = endpoint.name.as_str();
            let aliases = || endpoint.routes.iter().map(|route| &*route.alias).chain([NO_ROUTE]);
            let known = self.endpoints.entry(name.to_owned()).or_insert_with(|| {
                let aliases: Vec<String> = aliases().map(ToOwned::to_owned).collect();
                EndpointTraffic { all: Series::new(total(name, &aliases, counters), now), routes: BTreeMap::new() }
            });
            known.routes.retain(|alias, _| aliases().any(|it| it == alias));
            for alias in aliases() {
                let begin = || Series::new(counters.reading(name, alias), now);
                known.routes.entry(alias.to_owned()).or_insert_with(begin);
            }
        }
    }

    /// Returns the series of an endpoint.
    pub(super) fn of(&self, endpoint: &str) -> Option<&EndpointTraffic> {
        self.endpoints.get(endpoint)
    }

    /// Returns the number of the last sample.
    pub(super) fn last(&self) -> u64 {
        self.taken
    }
}

impl EndpointTraffic {
    /// Returns the series of a route.
    pub(super) fn route(&self, alias: &str) -> Option<&Series> {
        self.routes.get(alias)
    }

    /// Adds up the present counters of the endpoint's routes.
    pub(super) fn total(&self, name: &str, counters: &Counters) -> Reading {
        total(name, self.routes.keys(), counters)
    }
}

fn total<'a>(endpoint: &str, routes: impl IntoIterator<Item = &'a String>, counters: &Counters) -> Reading {
    let mut total = Reading::default();
    routes.into_iter().for_each(|alias| total += &counters.reading(endpoint, alias));
    total
}
