//! The metrics of the process, in one table of field, type, name, labels and help. Handles are bound to their labels once,
//! so that counting takes no lock.

mod handle;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use self::handle::Handle;
pub use self::handle::MetricRow;
use super::readiness::Readiness;
use super::recent_faults::RecentFaults;

/// Buckets of times in seconds: from a tenth of a millisecond, the cost of a decision and two broker hops, to the minutes
/// that a cold model may take.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    120.0,
];

/// Buckets of the rows in a call, up to a large batch.
const ROWS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Buckets of ages in seconds: from a second, where memory is far too short, to the weeks that a model may stay.
const AGES: &[f64] =
    &[1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0, 604_800.0, 1_814_400.0];

/// Buckets of the requests that end by one transaction.
const REQUESTS: &[f64] = &[1., 2., 5., 10., 20., 50., 100., 200., 500., 1000., 2000., 5000., 10000.];

/// Makes [`Metrics`] of the table: one field for each row. Times are counted in [`SECONDS`] unless a row says `in`.
macro_rules! metrics {
    (@row $name:literal [$($label:literal),*] $help:literal) => {
        metrics!(@row $name [$($label),*] $help SECONDS)
    };
    (@row $name:literal [$($label:literal),*] $help:literal $buckets:ident) => {
        MetricRow { name: $name, labels: &[$($label),*], help: $help, buckets: $buckets }
    };
    ($($(#[$doc:meta])* $field:ident: $handle:ident = $name:literal [$($label:literal),*] $help:literal $(in $buckets:ident)?;)*) => {
        /// All metrics of the process.
        #[derive(Debug, Clone)]
        pub struct Metrics {
            registry: Registry,
            /// The last faults, which have reasons that no label could hold.
            pub faults: RecentFaults,
            $(
                #[doc = concat!("`signalbox_", $name, "`: ", $help, ".")]
                ///
                $(#[$doc])*
                pub $field: $handle,
            )*
        }

        impl Metrics {
            /// Rows of all metrics, in the order of the fields.
            pub const TABLE: &[MetricRow] = &[$(metrics!(@row $name [$($label),*] $help $($buckets)?)),*];

            /// Makes all metrics at zero, in a registry of their own.
            ///
            /// # Errors
            /// Never, as long as the names in the table are valid and differ; the library insists on asking.
            pub fn new() -> Result<Self, prometheus::Error> {
                let registry = Registry::new_custom(Some("signalbox".to_owned()), None)?;
                $(let $field = $handle::register(&metrics!(@row $name [$($label),*] $help $($buckets)?), &registry)?;)*
                Ok(Self { registry, faults: RecentFaults::default(), $($field),* })
            }

            /// Lists the metrics in the order of the table.
            #[cfg(test)]
            fn collectors(&self) -> Vec<&dyn Collector> {
                vec![$(&self.$field),*]
            }
        }
    };
}

metrics! {
    /// Results: ok, invalid, error.
    config_reloads: IntCounterVec = "config_reloads_total" ["result"] "Times that the config file was taken again";
    config_last_reload_success: IntGauge = "config_last_reload_success" []
        "0 while the config file cannot be used and an earlier one stays in use, else 1";
    /// Counted from 1970; 0 before the first.
    config_last_reload_success_timestamp: Gauge = "config_last_reload_success_timestamp_seconds" []
        "Unix time at which a changed config file was last put to use";
    /// Equals the report of `GET /ready`.
    ready: IntGaugeVec = "ready" ["part"] "1 while a part of the process can do its work, else 0";
    requests: IntCounterVec = "requests_total" ["endpoint", "route", "status"] "Requests by outcome";
    /// Begins with the poll that read the request.
    request_duration: HistogramVec = "request_duration_seconds" ["endpoint", "route"]
        "From reading a request to its acknowledged answer";
    route_decisions: IntCounterVec = "route_decisions_total" ["endpoint", "route", "reason"] "Routes chosen, by reason";
    /// From 0 to 1.
    canary_share: GaugeVec = "canary_share" ["endpoint", "route"] "A canary's share of what no condition took";
    canary_aborts: IntCounterVec = "canary_aborts_total" ["endpoint", "route"] "Canaries that were taken back";
    /// Kinds: skipped (the condition did not hold), sticky (chance drew the route).
    condition_failures: IntCounterVec = "condition_failures_total" ["endpoint", "route", "kind"]
        "Conditions that could not be evaluated on a request";
    /// Ways: compiled, python, rhai. Results: ok, failed (the request does not fit), exceeded (time, memory or depth),
    /// unavailable (no Python).
    evaluations: IntCounterVec = "evaluations_total" ["way", "result"] "Expressions of conditions evaluated, by result";
    evaluation_duration: HistogramVec = "evaluation_seconds" ["way"] "From asking for a request until all was answered";
    evaluators: IntGauge = "evaluators" [] "Python processes that evaluate conditions, those in reserve included";
    /// Reasons: crashed, timed_out.
    evaluators_lost: IntCounterVec = "evaluators_lost_total" ["reason"]
        "Evaluators that ended, or were ended, while they should have answered";
    /// The route is the one that could not answer.
    fallbacks: IntCounterVec = "fallbacks_total" ["endpoint", "route", "reason"]
        "Requests that a route could not answer and its fallback took, by what was wrong";
    breaker_state: IntGaugeVec = "breaker_state" ["endpoint", "route"]
        "A route's breaker: 0 closed, 1 half-open, 2 open";
    breaker_transitions: IntCounterVec = "breaker_transitions_total" ["endpoint", "route", "to"]
        "Changes of a route's breaker, by what it became";
    retries: IntCounterVec = "retries_total" ["endpoint", "route"] "Calls that were tried again";
    retries_refused: IntCounterVec = "retries_refused_total" ["endpoint", "route"]
        "Calls that were not tried again since too many were already";
    invocation_duration: HistogramVec = "invocation_duration_seconds" ["endpoint", "route"] "Calls of a model";
    /// Counts only models whose requests may be joined.
    batch_rows: HistogramVec = "batch_rows" ["endpoint", "route"] "Rows in a call of a model" in ROWS;
    /// Reasons: payload (it cannot be joined), company (no other request waited), model (it is called singly),
    /// refused (a batch with it was).
    batch_singles: IntCounterVec = "batch_singles_total" ["endpoint", "route", "reason"]
        "Requests that waited and were then called alone, by reason";
    batch_splits: IntCounterVec = "batch_splits_total" ["endpoint", "route"]
        "Batches that were refused, and split to find whom for";
    requests_shed: IntCounterVec = "requests_shed_total" ["endpoint", "route"]
        "Requests refused since there was too much before them";
    model_loads: IntCounterVec = "model_loads_total" ["model", "result"] "Models loaded, or not";
    model_load_duration: HistogramVec = "model_load_duration_seconds" ["model"]
        "From the decision to load a model until it answers";
    /// Phases: resolve, fetch, room, fork, load, warm.
    model_load_phase: HistogramVec = "model_load_phase_seconds" ["phase"] "What loads spend their time with";
    model_loads_waiting: IntGauge = "model_loads_waiting" [] "Loads that wait for their turn or for room";
    model_loads_refused: IntCounter = "model_loads_refused_total" [] "Loads refused for want of room";
    models_loaded: IntGauge = "models_loaded" [] "Model versions that are loaded";
    /// Counts the memory that the hosts hold for themselves.
    model_memory: IntGaugeVec = "model_memory_bytes" ["model", "version"] "Private memory of a model's hosts";
    models_memory: IntGauge = "models_memory_bytes" [] "Private memory of all models' hosts";
    models_memory_limit: IntGauge = "models_memory_limit_bytes" [] "What it may be at most; 0 without a limit";
    /// Reasons: idle, memory, operator, replaced, recycled.
    model_evictions: IntCounterVec = "model_evictions_total" ["reason"] "Models unloaded, by reason";
    /// Young models tell of too little memory.
    model_age_at_eviction: Histogram = "model_age_at_eviction_seconds" []
        "From the load of a model until it is unloaded" in AGES;
    /// Reasons: crashed, timed_out.
    model_hosts_lost: IntCounterVec = "model_hosts_lost_total" ["reason"]
        "Hosts that ended, or were ended, while they should have answered";
    model_switches: IntCounterVec = "model_switches_total" ["result"]
        "Switches to another version after a stage or an alias moved";
    registry_refreshes: IntCounterVec = "registry_refreshes_total" ["result"]
        "Times that the registry was asked what stages and aliases stand for";
    in_flight_requests: IntGauge = "in_flight_requests" [] "Requests read and not yet answered";
    /// Counts answers that are not on the broker for good.
    in_flight_bytes: IntGauge = "in_flight_bytes" []
        "Bytes of the requests read and not yet answered, and of their answers";
    intake_paused: IntGauge = "intake_paused" [] "1 while partitions are paused";
    /// Counts requests that are not yet answered for good.
    consumer_lag: IntGaugeVec = "consumer_lag" ["partition"] "Requests in the topic that are not yet answered";
    oldest_in_flight: Gauge = "oldest_in_flight_seconds" [] "Age of the request that has been under way the longest";
    commits: IntCounterVec = "commits_total" ["result"] "Offset commits";
    rebalances: IntCounterVec = "rebalances_total" ["kind"] "Partitions gained and given back";
    published: IntCounterVec = "published_total" ["kind"] "Acknowledged records";
    publish_failures: IntCounterVec = "publish_failures_total" ["reason"] "Records the broker did not take";
    /// Values of `what`: the `fault` of a dead letter, or all that a `request` could end in.
    lost: IntCounterVec = "lost_total" ["what"] "Endings that no topic took in any form";
    publish_throttle: Gauge = "publish_throttle_seconds" []
        "How long brokers lately had producers of replies wait for their quota";
    /// From handing a reply to the client until the broker acknowledges it.
    publish_duration: Histogram = "publish_duration_seconds" [] "From publishing a reply to its acknowledgement";
    /// The earlier answer is one of the same key or partition.
    order_waiting: IntGauge = "order_waiting" [] "Answers that wait for an earlier one to leave";
    /// 0 when the answer was the first.
    order_wait: Histogram = "order_wait_seconds" [] "From an answer until all before it in its order have left";
    /// Results: committed, aborted, unknown (the broker was asked afterwards), fenced.
    transactions: IntCounterVec = "transactions_total" ["result"] "Transactions of replies and offsets";
    transaction_requests: Histogram = "transaction_requests" [] "Requests that ended by one transaction" in REQUESTS;
    transaction_commit: Histogram = "transaction_commit_seconds" []
        "From a transaction's last record to the coordinator's word";
    dead_letters: IntCounterVec = "dead_letters_total" ["reason"] "Requests that could not be answered";
    /// Reasons: failed, behind (their route has too much to do).
    parked: IntCounterVec = "parked_total" ["reason"] "Requests put aside in a retry topic, by reason";
    /// Counts the partitions of this instance.
    parked_requests: IntGaugeVec = "parked_requests" ["topic"] "Requests that wait in a retry topic";
    /// Results: sent, and then answered or failed (its record is acknowledged) or dropped (there is no record of
    /// it).
    shadows: IntCounterVec = "shadows_total" ["endpoint", "route", "result"] "Copies of requests for shadow routes";
    /// Results: answered, cached, none (no opinion), failed, open.
    decisions: IntCounterVec = "decisions_total" ["endpoint", "result"] "Outside decisions";
    decision_duration: HistogramVec = "decision_duration_seconds" ["endpoint"] "Calls of the service that decides";
    expired: IntCounter = "expired_total" [] "Requests whose deadline passed before a call";
    /// Counts those who hung up before a repeated call too.
    abandoned: IntCounter = "abandoned_total" [] "Requests whose HTTP caller hung up before a call";
    shim_requests: IntCounterVec = "shim_requests_total" ["endpoint", "status"] "HTTP calls by status";
    shim_duration: HistogramVec = "shim_duration_seconds" ["endpoint"] "HTTP calls";
    shim_pending: IntGauge = "shim_pending" [] "HTTP callers that wait";
    /// Ways: `direct`, from this process, ahead of the record; or by the `topic`.
    shim_replies: IntCounterVec = "shim_replies_total" ["way"] "Replies that HTTP callers got, by their way";
    /// Counts replies that are late, repeated, or another instance's.
    shim_unclaimed: IntCounter = "shim_unclaimed_replies_total" [] "Replies that no HTTP caller waits for any more";
}

/// The metrics of one route, with its labels bound.
#[derive(Debug, Clone)]
pub struct RouteMetrics {
    /// Requests that ended with status 200.
    pub answered: IntCounter,
    /// Time from the poll to the acknowledged answer.
    pub request_duration: Histogram,
    /// Time of the model's calls.
    pub invocation_duration: Histogram,
    /// Requests that were refused because too many were before them.
    pub requests_shed: IntCounter,
}

/// The metrics of one route's batches, with their labels bound.
#[derive(Debug, Clone)]
pub struct BatchMetrics {
    /// Rows in a call.
    pub rows: Histogram,
    /// Requests called alone, since the payload cannot be joined.
    pub payload: IntCounter,
    /// Requests called alone, since no other request waited.
    pub company: IntCounter,
    /// Requests called alone, since the model is called singly.
    pub model: IntCounter,
    /// Requests called alone, since a batch with them was refused, or lost.
    pub refused: IntCounter,
    /// Batches that were split.
    pub splits: IntCounter,
}

/// The metrics of the copies for one shadow route, with their labels bound.
#[derive(Debug, Clone)]
pub struct ShadowMetrics {
    /// Copies with which the model was called.
    pub sent: IntCounter,
    /// Copies whose answer is in the shadow topic.
    pub answered: IntCounter,
    /// Copies whose fault is in the shadow topic.
    pub failed: IntCounter,
    /// Copies of which there is no record.
    pub dropped: IntCounter,
}

impl Metrics {
    /// Returns the handles of one route.
    pub fn route(&self, endpoint: &str, route: &str) -> RouteMetrics {
        RouteMetrics {
            answered: self.requests.with_label_values(&[endpoint, route, "200"]),
            request_duration: self.request_duration.with_label_values(&[endpoint, route]),
            invocation_duration: self.invocation_duration.with_label_values(&[endpoint, route]),
            requests_shed: self.requests_shed.with_label_values(&[endpoint, route]),
        }
    }

    /// Returns the handles of one route's batches.
    pub fn batch(&self, endpoint: &str, route: &str) -> BatchMetrics {
        let singles = |reason| self.batch_singles.with_label_values(&[endpoint, route, reason]);
        BatchMetrics {
            rows: self.batch_rows.with_label_values(&[endpoint, route]),
            payload: singles("payload"),
            company: singles("company"),
            model: singles("model"),
            refused: singles("refused"),
            splits: self.batch_splits.with_label_values(&[endpoint, route]),
        }
    }

    /// Returns the handles of the copies for a shadow route.
    pub fn shadow(&self, endpoint: &str, route: &str) -> ShadowMetrics {
        let of = |result| self.shadows.with_label_values(&[endpoint, route, result]);
        ShadowMetrics { sent: of("sent"), answered: of("answered"), failed: of("failed"), dropped: of("dropped") }
    }

    /// Sets the metric `ready` to the present readiness of each part.
    pub fn look_at(&self, readiness: &Readiness) {
        for (part, waits_for) in readiness.report() {
            self.ready.with_label_values(&[part]).set(i64::from(waits_for.is_none()));
        }
    }

    /// Returns the Prometheus text exposition of everything, with the process's own memory and CPU.
    ///
    /// # Errors
    /// Fails when a family cannot be encoded.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.gather())
    }

    fn gather(&self) -> Vec<MetricFamily> {
        let mut families = self.registry.gather();
        families.extend(prometheus::process_collector::ProcessCollector::for_self().collect());
        families
    }
}

#[cfg(test)]
mod tests;
