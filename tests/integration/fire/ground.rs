//! Describes the place of a scenario, and the config of Signalbox there.

use crate::support::fire::{ComputedModel, Conduct, Plan};
use crate::support::{Cluster, Kafka, Proxy, fresh_directory};

use super::run::SESSION;

pub(super) const PARTITIONS: i32 = 6;

/// Holds the addresses, topics that no other run has, and the particulars of the config.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) checkers: String,
    pub(super) signalboxes: String,
    pub(super) topics: [String; 3],
    pub(super) plan: fn(&mut Plan),
    keys: String,
    properties: String,
    endpoints: String,
}

impl Ground {
    pub(super) fn on(kafka: &Kafka) -> Self {
        let topics = ["requests", "replies", "dead-letters"].map(|name| kafka.create_topic(name, PARTITIONS));
        Self::over(kafka.bootstrap(), topics)
    }

    pub(super) fn on_cluster(cluster: &Cluster) -> Self {
        let topics = ["requests", "replies", "dead-letters"].map(|name| cluster.create_topic(name, PARTITIONS));
        Self::over(cluster.bootstrap(), topics)
    }

    pub(super) fn behind(kafka: &Kafka, proxy: &Proxy) -> Self {
        Self { signalboxes: format!("127.0.0.1:{}", proxy.port()), ..Self::on(kafka) }
    }

    /// Uses topics that exist already.
    pub(super) fn over(bootstrap: String, topics: [String; 3]) -> Self {
        Self {
            checkers: bootstrap.clone(),
            signalboxes: bootstrap,
            topics,
            plan: |_| {},
            keys: String::new(),
            properties: String::new(),
            endpoints: String::new(),
        }
    }

    /// Changes the plan of the requests.
    pub(super) fn plan(self, plan: fn(&mut Plan)) -> Self {
        Self { plan, ..self }
    }

    /// Takes other topics.
    pub(super) fn topics(self, topics: [String; 3]) -> Self {
        Self { topics, ..self }
    }

    /// Adds one more key of `kafka`.
    pub(super) fn key(mut self, key: &str) -> Self {
        self.keys.push_str(&format!("  {key}\n"));
        self
    }

    /// Adds one more of `kafka.properties`.
    pub(super) fn property(mut self, property: &str) -> Self {
        self.properties.push_str(&format!(", {property}"));
        self
    }

    /// Adds one more endpoint, whose only route is to this model and has these keys.
    pub(super) fn endpoint(mut self, name: &str, url: &str, route: &str) -> Self {
        self.endpoints.push_str(&format!(
            "  - {{name: {name}, timeout: 60s, routes: [{{model_uri: \"{url}\", alias: {name}, {route}}}]}}\n"
        ));
        self
    }

    /// Returns the requests topic.
    pub(super) fn requests(&self) -> &str {
        &self.topics[0]
    }

    /// Writes the config of an instance.
    pub(super) fn config(&self, delivery: &str, group: &str, conduct: Conduct, model: &ComputedModel) -> String {
        let gold = "model_request_condition: \"request.headers.get('x-tier') == 'gold'\"";
        let (timeout, retries) = match conduct {
            Conduct::Steady | Conduct::Troubled => ("1s", ", retries: {max_attempts: 3, backoff: 20ms}"),
            Conduct::Slow | Conduct::Failing => ("10s", ""),
        };
        let Self { signalboxes, topics: [requests, replies, dead_letters], keys, properties, endpoints, .. } = self;
        let ComputedModel { gold: gold_url, plain: plain_url, .. } = model;
        format!(
            "model_endpoints:
  - name: north
    routes:
      - {{model_uri: builtin:noop, alias: gold, {gold}}}
      - {{model_uri: builtin:noop, alias: plain}}
  - name: south
    routes:
      - {{model_uri: builtin:noop, alias: gold, {gold}}}
      - {{model_uri: builtin:noop, alias: plain}}
  - name: computed
    timeout: {timeout}
    routes:
      - {{model_uri: \"{gold_url}\", alias: gold, {gold}, max_concurrency: 128{retries}}}
      - {{model_uri: \"{plain_url}\", alias: plain, max_concurrency: 128{retries}}}
{endpoints}kafka:
  bootstrap_servers: {signalboxes}
  requests_topic: {requests}
  replies_topic: {replies}
  dead_letter_topic: {dead_letters}
  group_id: {group}
  delivery: {delivery}
  properties: {{session.timeout.ms: \"{}\"{properties}}}
{keys}server: {{port: 0}}
registry: {{tracking_uri: \"http://127.0.0.1:9\"}}
models: {{cache: {{directory: \"{}\"}}}}
",
            SESSION.as_millis(),
            fresh_directory("cache").display(),
        )
    }
}
