//! Every metric there is, by name. Handles are bound to their labels once, so that counting takes no lock.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use super::readiness::Readiness;

/// From a tenth of a millisecond, what a decision and two broker hops cost, to the minutes a cold model may take.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    120.0,
];

/// Up to a large batch.
const ROWS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// From a second, where memory is far too short, to the weeks that a model may stay.
const AGES: &[f64] =
    &[1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0, 604_800.0, 1_814_400.0];

/// Every metric of the process.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// `signalbox_config_reloads_total{result}`: ok, invalid, error.
    pub config_reloads: IntCounterVec,
    /// `signalbox_config_last_reload_success`: 0 while the file says something that cannot be used, else 1.
    pub config_last_reload_success: IntGauge,
    /// `signalbox_config_last_reload_success_timestamp_seconds`: since 1970; 0 before the first.
    pub config_last_reload_success_timestamp: prometheus::Gauge,
    /// `signalbox_ready{part}`: 1 while that part of the process can do its work, else 0; as `GET /ready` says.
    pub ready: IntGaugeVec,
    /// `signalbox_requests_total{endpoint,route,status}`
    pub requests: IntCounterVec,
    /// `signalbox_request_duration_seconds{endpoint,route}`: from the poll that read it to the acknowledged answer.
    pub request_duration: HistogramVec,
    /// `signalbox_route_decisions_total{endpoint,route,reason}`
    pub route_decisions: IntCounterVec,
    /// `signalbox_canary_share{endpoint,route}`: from 0 to 1.
    pub canary_share: GaugeVec,
    /// `signalbox_canary_aborts_total{endpoint,route}`: canaries that were taken back.
    pub canary_aborts: IntCounterVec,
    /// `signalbox_condition_failures_total{endpoint,route,kind}`: skipped (the condition did not hold), sticky (chance
    /// drew the route).
    pub condition_failures: IntCounterVec,
    /// `signalbox_fallbacks_total{endpoint,route,reason}`: the route is the one that could not answer.
    pub fallbacks: IntCounterVec,
    /// `signalbox_breaker_state{endpoint,route}`: 0 closed, 1 half-open, 2 open.
    pub breaker_state: IntGaugeVec,
    /// `signalbox_breaker_transitions_total{endpoint,route,to}`
    pub breaker_transitions: IntCounterVec,
    /// `signalbox_retries_total{endpoint,route}`: calls that were tried again.
    pub retries: IntCounterVec,
    /// `signalbox_retries_refused_total{endpoint,route}`: those that would have been, if there were not too many already.
    pub retries_refused: IntCounterVec,
    /// `signalbox_invocation_duration_seconds{endpoint,route}`
    pub invocation_duration: HistogramVec,
    /// `signalbox_batch_rows{endpoint,route}`: of calls of models whose requests may be joined.
    pub batch_rows: HistogramVec,
    /// `signalbox_batch_singles_total{endpoint,route,reason}`: requests that waited and were called alone: payload (it cannot
    /// be joined), company (there was none), model (it is called singly), refused (a batch with it was).
    pub batch_singles: IntCounterVec,
    /// `signalbox_batch_splits_total{endpoint,route}`: batches that were refused, and split to find whom for.
    pub batch_splits: IntCounterVec,
    /// `signalbox_hopeless_total{endpoint,route}`: requests refused since there was too much before them.
    pub hopeless: IntCounterVec,
    /// `signalbox_model_loads_total{model,result}`
    pub model_loads: IntCounterVec,
    /// `signalbox_model_load_duration_seconds{model}`
    pub model_load_duration: HistogramVec,
    /// `signalbox_model_load_phase_seconds{phase}`: resolve, fetch, room, fork, load, warm.
    pub model_load_phase: HistogramVec,
    /// `signalbox_model_loads_waiting`: loads that wait for their turn or for room.
    pub model_loads_waiting: IntGauge,
    /// `signalbox_model_loads_refused_total`: for want of room.
    pub model_loads_refused: IntCounter,
    /// `signalbox_models_loaded`: versions.
    pub models_loaded: IntGauge,
    /// `signalbox_model_memory_bytes{model,version}`: what its hosts hold for themselves.
    pub model_memory: IntGaugeVec,
    /// `signalbox_models_memory_bytes`: the same of all models.
    pub models_memory: IntGauge,
    /// `signalbox_models_memory_limit_bytes`: 0 without a limit.
    pub models_memory_limit: IntGauge,
    /// `signalbox_model_evictions_total{reason}`: idle, memory, operator, replaced, recycled.
    pub model_evictions: IntCounterVec,
    /// `signalbox_model_age_at_eviction_seconds`: since it was loaded. Young ones tell of too little memory.
    pub model_age_at_eviction: Histogram,
    /// `signalbox_model_hosts_lost_total{reason}`: crashed, timed_out.
    pub model_hosts_lost: IntCounterVec,
    /// `signalbox_model_switches_total{result}`: to another version, after a stage or an alias moved.
    pub model_switches: IntCounterVec,
    /// `signalbox_registry_refreshes_total{result}`
    pub registry_refreshes: IntCounterVec,
    /// `signalbox_in_flight_requests`
    pub in_flight_requests: IntGauge,
    /// `signalbox_in_flight_bytes`: of requests, and of answers that are not on the broker for good.
    pub in_flight_bytes: IntGauge,
    /// `signalbox_intake_paused`: 1 while partitions are paused.
    pub intake_paused: IntGauge,
    /// `signalbox_consumer_lag{partition}`: requests that are in the topic and not yet answered for good.
    pub consumer_lag: IntGaugeVec,
    /// `signalbox_oldest_in_flight_seconds`
    pub oldest_in_flight: prometheus::Gauge,
    /// `signalbox_commits_total{result}`
    pub commits: IntCounterVec,
    /// `signalbox_rebalances_total{kind}`
    pub rebalances: IntCounterVec,
    /// `signalbox_published_total{kind}`: acknowledged records.
    pub published: IntCounterVec,
    /// `signalbox_publish_failures_total{reason}`
    pub publish_failures: IntCounterVec,
    /// `signalbox_lost_total{what}`: what no topic took in any form: the `fault` of a dead letter, or all that a `request`
    /// could end in.
    pub lost: IntCounterVec,
    /// `signalbox_publish_throttle_seconds`: how long brokers lately had our producers wait for their quota.
    pub publish_throttle: prometheus::Gauge,
    /// `signalbox_publish_duration_seconds`: from handing a reply to the client until the broker acknowledges it.
    pub publish_duration: Histogram,
    /// `signalbox_order_waiting`: answers that wait for an earlier one of their key or partition to leave.
    pub order_waiting: IntGauge,
    /// `signalbox_order_wait_seconds`: how long each waited; 0 when it was the first.
    pub order_wait: Histogram,
    /// `signalbox_transactions_total{result}`: committed, aborted, unknown (the broker was asked afterwards), fenced.
    pub transactions: IntCounterVec,
    /// `signalbox_transaction_requests`: how many requests ended by one.
    pub transaction_requests: Histogram,
    /// `signalbox_transaction_commit_seconds`: from the last record to the coordinator's word.
    pub transaction_commit: Histogram,
    /// `signalbox_dead_letters_total{reason}`
    pub dead_letters: IntCounterVec,
    /// `signalbox_parked_total{reason}`: requests put aside in a retry topic: failed, behind (their route has too much to
    /// do).
    pub parked: IntCounterVec,
    /// `signalbox_parked_requests{topic}`: those that wait there, of the partitions of this instance.
    pub parked_requests: IntGaugeVec,
    /// `signalbox_shadows_total{endpoint,route,result}`: copies for a shadow route: sent, and then answered or failed (its
    /// record is acknowledged) or dropped (there is no record of it).
    pub shadows: IntCounterVec,
    /// `signalbox_decisions_total{endpoint,result}`: outside decisions: answered, cached, none (no opinion), failed, open.
    pub decisions: IntCounterVec,
    /// `signalbox_decision_duration_seconds{endpoint}`: calls of the outside service.
    pub decision_duration: HistogramVec,
    /// `signalbox_expired_total`: requests whose deadline had passed before a model was called.
    pub expired: IntCounter,
    /// `signalbox_abandoned_total`: requests whose HTTP caller had hung up before a model was called, or called again.
    pub abandoned: IntCounter,
    /// `signalbox_shim_requests_total{endpoint,status}`
    pub shim_requests: IntCounterVec,
    /// `signalbox_shim_duration_seconds{endpoint}`
    pub shim_duration: HistogramVec,
    /// `signalbox_shim_pending`: callers that wait for an answer.
    pub shim_pending: IntGauge,
    /// `signalbox_shim_replies_total{way}`: replies that callers got: `direct`, from this process, ahead of the record; or
    /// by the `topic`.
    pub shim_replies: IntCounterVec,
    /// `signalbox_shim_unclaimed_replies_total`: replies nobody waits for any more: late, repeated, or another instance's.
    pub shim_unclaimed: IntCounter,
}

/// One route's metrics, with its labels bound.
#[derive(Debug, Clone)]
pub struct RouteMetrics {
    /// Requests that ended with status 200.
    pub answered: IntCounter,
    /// From the poll to the acknowledged answer.
    pub request_duration: Histogram,
    /// The model's part of it.
    pub invocation_duration: Histogram,
    /// Requests that had no chance.
    pub hopeless: IntCounter,
}

/// The metrics of one route's batches, with their labels bound.
#[derive(Debug, Clone)]
pub struct BatchMetrics {
    /// In a call.
    pub rows: Histogram,
    /// Called alone, since the payload cannot be joined.
    pub payload: IntCounter,
    /// Called alone, since there was no company.
    pub company: IntCounter,
    /// Called alone, since the model is.
    pub model: IntCounter,
    /// Called alone, since a batch with it was refused, or lost.
    pub refused: IntCounter,
    /// Batches that were split.
    pub splits: IntCounter,
}

/// The metrics of the copies for one shadow route, with their labels bound.
#[derive(Debug, Clone)]
pub struct ShadowMetrics {
    /// Copies that the model was called with.
    pub sent: IntCounter,
    /// Copies whose answer is in the shadow topic.
    pub answered: IntCounter,
    /// Copies whose fault is in the shadow topic.
    pub failed: IntCounter,
    /// Copies of which there is no record.
    pub dropped: IntCounter,
}

impl Metrics {
    /// All metrics at zero, in a registry of their own.
    ///
    /// # Errors
    /// Never, as long as the names below are valid and differ; the library insists on asking.
    pub fn new() -> Result<Self, prometheus::Error> {
        let families = Families { registry: Registry::new_custom(Some("signalbox".to_owned()), None)? };
        let f = &families;
        let metrics = Self {
            registry: f.registry.clone(),
            config_reloads: f.counters(
                "config_reloads_total",
                "Times that the config file was taken again",
                &["result"],
            )?,
            config_last_reload_success: f.gauge(
                "config_last_reload_success",
                "0 while the config file cannot be used and an earlier one stays in use, else 1",
            )?,
            config_last_reload_success_timestamp: f.register(prometheus::Gauge::with_opts(Opts::new(
                "config_last_reload_success_timestamp_seconds",
                "Unix time at which a changed config file was last put to use",
            ))?)?,
            ready: f.gauges("ready", "1 while a part of the process can do its work, else 0", &["part"])?,
            requests: f.counters("requests_total", "Requests by outcome", &["endpoint", "route", "status"])?,
            request_duration: f.histograms(
                "request_duration_seconds",
                "From reading a request to its acknowledged answer",
                &["endpoint", "route"],
            )?,
            route_decisions: f.counters(
                "route_decisions_total",
                "Routes chosen, by reason",
                &["endpoint", "route", "reason"],
            )?,
            canary_share: f.register(GaugeVec::new(
                Opts::new("canary_share", "A canary's share of what no condition took"),
                &["endpoint", "route"],
            )?)?,
            canary_aborts: f.counters(
                "canary_aborts_total",
                "Canaries that were taken back",
                &["endpoint", "route"],
            )?,
            condition_failures: f.counters(
                "condition_failures_total",
                "Conditions that could not be evaluated on a request",
                &["endpoint", "route", "kind"],
            )?,
            fallbacks: f.counters(
                "fallbacks_total",
                "Requests that a route could not answer and its fallback took, by what was wrong",
                &["endpoint", "route", "reason"],
            )?,
            breaker_state: f.gauges(
                "breaker_state",
                "A route's breaker: 0 closed, 1 half-open, 2 open",
                &["endpoint", "route"],
            )?,
            breaker_transitions: f.counters(
                "breaker_transitions_total",
                "Changes of a route's breaker, by what it became",
                &["endpoint", "route", "to"],
            )?,
            retries: f.counters("retries_total", "Calls that were tried again", &["endpoint", "route"])?,
            retries_refused: f.counters(
                "retries_refused_total",
                "Calls that were not tried again since too many were already",
                &["endpoint", "route"],
            )?,
            invocation_duration: f.histograms(
                "invocation_duration_seconds",
                "Calls of a model",
                &["endpoint", "route"],
            )?,
            batch_rows: f.register(HistogramVec::new(
                HistogramOpts::new("batch_rows", "Rows in a call of a model").buckets(ROWS.to_vec()),
                &["endpoint", "route"],
            )?)?,
            batch_singles: f.counters(
                "batch_singles_total",
                "Requests that waited and were then called alone, by reason",
                &["endpoint", "route", "reason"],
            )?,
            batch_splits: f.counters(
                "batch_splits_total",
                "Batches that were refused, and split to find whom for",
                &["endpoint", "route"],
            )?,
            hopeless: f.counters(
                "hopeless_total",
                "Requests refused since there was too much before them",
                &["endpoint", "route"],
            )?,
            model_loads: f.counters("model_loads_total", "Models loaded, or not", &["model", "result"])?,
            model_load_duration: f.histograms(
                "model_load_duration_seconds",
                "From the decision to load a model until it answers",
                &["model"],
            )?,
            model_load_phase: f.histograms(
                "model_load_phase_seconds",
                "What loads spend their time with",
                &["phase"],
            )?,
            model_loads_waiting: f.gauge("model_loads_waiting", "Loads that wait for their turn or for room")?,
            model_loads_refused: f.counter("model_loads_refused_total", "Loads refused for want of room")?,
            models_loaded: f.gauge("models_loaded", "Model versions that are loaded")?,
            model_memory: f.gauges("model_memory_bytes", "Private memory of a model's hosts", &["model", "version"])?,
            models_memory: f.gauge("models_memory_bytes", "Private memory of all models' hosts")?,
            models_memory_limit: f.gauge("models_memory_limit_bytes", "What it may be at most; 0 without a limit")?,
            model_evictions: f.counters("model_evictions_total", "Models unloaded, by reason", &["reason"])?,
            model_age_at_eviction: f.histogram(
                "model_age_at_eviction_seconds",
                "From the load of a model until it is unloaded",
                AGES,
            )?,
            model_hosts_lost: f.counters(
                "model_hosts_lost_total",
                "Hosts that ended, or were ended, while they should have answered",
                &["reason"],
            )?,
            model_switches: f.counters(
                "model_switches_total",
                "Switches to another version after a stage or an alias moved",
                &["result"],
            )?,
            registry_refreshes: f.counters(
                "registry_refreshes_total",
                "Times that the registry was asked what stages and aliases stand for",
                &["result"],
            )?,
            in_flight_requests: f.gauge("in_flight_requests", "Requests read and not yet answered")?,
            in_flight_bytes: f
                .gauge("in_flight_bytes", "Bytes of the requests read and not yet answered, and of their answers")?,
            intake_paused: f.gauge("intake_paused", "1 while partitions are paused")?,
            consumer_lag: f.gauges(
                "consumer_lag",
                "Requests in the topic that are not yet answered",
                &["partition"],
            )?,
            oldest_in_flight: f.register(prometheus::Gauge::with_opts(Opts::new(
                "oldest_in_flight_seconds",
                "Age of the request that has been under way the longest",
            ))?)?,
            commits: f.counters("commits_total", "Offset commits", &["result"])?,
            rebalances: f.counters("rebalances_total", "Partitions gained and given back", &["kind"])?,
            published: f.counters("published_total", "Acknowledged records", &["kind"])?,
            publish_failures: f.counters("publish_failures_total", "Records the broker did not take", &["reason"])?,
            lost: f.counters("lost_total", "Endings that no topic took in any form", &["what"])?,
            publish_throttle: f.register(prometheus::Gauge::with_opts(Opts::new(
                "publish_throttle_seconds",
                "How long brokers lately had producers of replies wait for their quota",
            ))?)?,
            publish_duration: f.histogram(
                "publish_duration_seconds",
                "From publishing a reply to its acknowledgement",
                SECONDS,
            )?,
            order_waiting: f.gauge("order_waiting", "Answers that wait for an earlier one to leave")?,
            order_wait: f.histogram(
                "order_wait_seconds",
                "From an answer until all before it in its order have left",
                SECONDS,
            )?,
            transactions: f.counters("transactions_total", "Transactions of replies and offsets", &["result"])?,
            transaction_requests: f.histogram(
                "transaction_requests",
                "Requests that ended by one transaction",
                &[1., 2., 5., 10., 20., 50., 100., 200., 500., 1000., 2000., 5000., 10000.],
            )?,
            transaction_commit: f.histogram(
                "transaction_commit_seconds",
                "From a transaction's last record to the coordinator's word",
                SECONDS,
            )?,
            dead_letters: f.counters("dead_letters_total", "Requests that could not be answered", &["reason"])?,
            parked: f.counters("parked_total", "Requests put aside in a retry topic, by reason", &["reason"])?,
            parked_requests: f.gauges("parked_requests", "Requests that wait in a retry topic", &["topic"])?,
            shadows: f.counters(
                "shadows_total",
                "Copies of requests for shadow routes",
                &["endpoint", "route", "result"],
            )?,
            decisions: f.counters("decisions_total", "Outside decisions", &["endpoint", "result"])?,
            decision_duration: f.histograms(
                "decision_duration_seconds",
                "Calls of the service that decides",
                &["endpoint"],
            )?,
            expired: f.counter("expired_total", "Requests whose deadline passed before a call")?,
            abandoned: f.counter("abandoned_total", "Requests whose HTTP caller hung up before a call")?,
            shim_requests: f.counters("shim_requests_total", "HTTP calls by status", &["endpoint", "status"])?,
            shim_duration: f.histograms("shim_duration_seconds", "HTTP calls", &["endpoint"])?,
            shim_pending: f.gauge("shim_pending", "HTTP callers that wait")?,
            shim_replies: f.counters("shim_replies_total", "Replies that HTTP callers got, by their way", &["way"])?,
            shim_unclaimed: f
                .counter("shim_unclaimed_replies_total", "Replies that no HTTP caller waits for any more")?,
        };
        Ok(metrics)
    }

    /// Returns the handles of one route.
    pub fn route(&self, endpoint: &str, route: &str) -> RouteMetrics {
        RouteMetrics {
            answered: self.requests.with_label_values(&[endpoint, route, "200"]),
            request_duration: self.request_duration.with_label_values(&[endpoint, route]),
            invocation_duration: self.invocation_duration.with_label_values(&[endpoint, route]),
            hopeless: self.hopeless.with_label_values(&[endpoint, route]),
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

    /// Takes over which parts of the process are ready.
    pub fn look_at(&self, readiness: &Readiness) {
        for (part, waits_for) in readiness.report() {
            self.ready.with_label_values(&[part]).set(i64::from(waits_for.is_none()));
        }
    }

    /// Returns the Prometheus text exposition of everything, with the process's own memory and CPU.
    ///
    /// # Errors
    /// When a family cannot be encoded.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.gather())
    }

    fn gather(&self) -> Vec<MetricFamily> {
        let mut families = self.registry.gather();
        families.extend(prometheus::process_collector::ProcessCollector::for_self().collect());
        families
    }
}

/// Makes and registers metrics of each kind.
struct Families {
    registry: Registry,
}

impl Families {
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::new(name, help)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
        self.register(HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels)?)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::new(name, help)?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn register<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, prometheus::Error> {
        debug_assert!(metric.desc().iter().all(|desc: &&Desc| !desc.help.is_empty()));
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposition_has_prefixed_names_and_process_metrics() {
        let metrics = Metrics::new().unwrap();
        metrics.route("sentiment-router", "fast").answered.inc();
        let text = metrics.encode().unwrap();
        let line = "signalbox_requests_total{endpoint=\"sentiment-router\",route=\"fast\",status=\"200\"} 1";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }
}
