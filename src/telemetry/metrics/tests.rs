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

#[test]
fn histograms_keep_their_buckets() {
    let metrics = Metrics::new().unwrap();
    metrics.batch("e", "r").rows.observe(3.0);
    metrics.route("e", "r").request_duration.observe(3.0);
    let text = metrics.encode().unwrap();
    for line in [
        "signalbox_batch_rows_bucket{endpoint=\"e\",route=\"r\",le=\"4\"} 1",
        "signalbox_request_duration_seconds_bucket{endpoint=\"e\",route=\"r\",le=\"5\"} 1",
        "signalbox_model_age_at_eviction_seconds_bucket{le=\"1814400\"} 0",
        "signalbox_transaction_requests_bucket{le=\"10000\"} 0",
    ] {
        assert!(text.contains(line), "{line} is missing in:\n{text}");
    }
}

#[test]
fn exposition_keeps_names_labels_and_helps() {
    let metrics = Metrics::new().unwrap();
    let lines = metrics.collectors().into_iter().flat_map(|collector| {
        let described = collector.desc().into_iter().map(|desc| (desc.variable_labels.join(","), desc.help.clone()));
        let lines = described.zip(collector.collect()).map(|((labels, help), family)| {
            format!("{:?} {}{{{labels}}}: {help}", family.get_field_type(), family.name())
        });
        lines.collect::<Vec<_>>()
    });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r"
    COUNTER config_reloads_total{result}: Times that the config file was taken again
    GAUGE config_last_reload_success{}: 0 while the config file cannot be used and an earlier one stays in use, else 1
    GAUGE config_last_reload_success_timestamp_seconds{}: Unix time at which a changed config file was last put to use
    GAUGE ready{part}: 1 while a part of the process can do its work, else 0
    COUNTER requests_total{endpoint,route,status}: Requests by outcome
    HISTOGRAM request_duration_seconds{endpoint,route}: From reading a request to its acknowledged answer
    COUNTER route_decisions_total{endpoint,route,reason}: Routes chosen, by reason
    GAUGE canary_share{endpoint,route}: A canary's share of what no condition took
    COUNTER canary_aborts_total{endpoint,route}: Canaries that were taken back
    COUNTER condition_failures_total{endpoint,route,kind}: Conditions that could not be evaluated on a request
    COUNTER evaluations_total{way,result}: Expressions of conditions evaluated, by result
    HISTOGRAM evaluation_seconds{way}: From asking for a request until all was answered
    GAUGE evaluators{}: Python processes that evaluate conditions, those in reserve included
    COUNTER evaluators_lost_total{reason}: Evaluators that ended, or were ended, while they should have answered
    COUNTER fallbacks_total{endpoint,route,reason}: Requests that a route could not answer and its fallback took, by what was wrong
    GAUGE breaker_state{endpoint,route}: A route's breaker: 0 closed, 1 half-open, 2 open
    COUNTER breaker_transitions_total{endpoint,route,to}: Changes of a route's breaker, by what it became
    COUNTER retries_total{endpoint,route}: Calls that were tried again
    COUNTER retries_refused_total{endpoint,route}: Calls that were not tried again since too many were already
    HISTOGRAM invocation_duration_seconds{endpoint,route}: Calls of a model
    HISTOGRAM batch_rows{endpoint,route}: Rows in a call of a model
    COUNTER batch_singles_total{endpoint,route,reason}: Requests that waited and were then called alone, by reason
    COUNTER batch_splits_total{endpoint,route}: Batches that were refused, and split to find whom for
    COUNTER requests_shed_total{endpoint,route}: Requests refused since there was too much before them
    COUNTER model_loads_total{model,result}: Models loaded, or not
    HISTOGRAM model_load_duration_seconds{model}: From the decision to load a model until it answers
    HISTOGRAM model_load_phase_seconds{phase}: What loads spend their time with
    GAUGE model_loads_waiting{}: Loads that wait for their turn or for room
    COUNTER model_loads_refused_total{}: Loads refused for want of room
    GAUGE models_loaded{}: Model versions that are loaded
    GAUGE model_memory_bytes{model,version}: Private memory of a model's hosts
    GAUGE models_memory_bytes{}: Private memory of all models' hosts
    GAUGE models_memory_limit_bytes{}: What it may be at most; 0 without a limit
    COUNTER model_evictions_total{reason}: Models unloaded, by reason
    HISTOGRAM model_age_at_eviction_seconds{}: From the load of a model until it is unloaded
    COUNTER model_hosts_lost_total{reason}: Hosts that ended, or were ended, while they should have answered
    COUNTER model_switches_total{result}: Switches to another version after a stage or an alias moved
    COUNTER registry_refreshes_total{result}: Times that the registry was asked what stages and aliases stand for
    GAUGE in_flight_requests{}: Requests read and not yet answered
    GAUGE in_flight_bytes{}: Bytes of the requests read and not yet answered, and of their answers
    GAUGE intake_paused{}: 1 while partitions are paused
    GAUGE consumer_lag{partition}: Requests in the topic that are not yet answered
    GAUGE oldest_in_flight_seconds{}: Age of the request that has been under way the longest
    COUNTER commits_total{result}: Offset commits
    COUNTER rebalances_total{kind}: Partitions gained and given back
    COUNTER published_total{kind}: Acknowledged records
    COUNTER publish_failures_total{reason}: Records the broker did not take
    COUNTER lost_total{what}: Endings that no topic took in any form
    GAUGE publish_throttle_seconds{}: How long brokers lately had producers of replies wait for their quota
    HISTOGRAM publish_duration_seconds{}: From publishing a reply to its acknowledgement
    GAUGE order_waiting{}: Answers that wait for an earlier one to leave
    HISTOGRAM order_wait_seconds{}: From an answer until all before it in its order have left
    COUNTER transactions_total{result}: Transactions of replies and offsets
    HISTOGRAM transaction_requests{}: Requests that ended by one transaction
    HISTOGRAM transaction_commit_seconds{}: From a transaction's last record to the coordinator's word
    COUNTER dead_letters_total{reason}: Requests that could not be answered
    COUNTER parked_total{reason}: Requests put aside in a retry topic, by reason
    GAUGE parked_requests{topic}: Requests that wait in a retry topic
    COUNTER shadows_total{endpoint,route,result}: Copies of requests for shadow routes
    COUNTER decisions_total{endpoint,result}: Outside decisions
    HISTOGRAM decision_duration_seconds{endpoint}: Calls of the service that decides
    COUNTER expired_total{}: Requests whose deadline passed before a call
    COUNTER abandoned_total{}: Requests whose HTTP caller hung up before a call
    COUNTER shim_requests_total{endpoint,status}: HTTP calls by status
    HISTOGRAM shim_duration_seconds{endpoint}: HTTP calls
    GAUGE shim_pending{}: HTTP callers that wait
    COUNTER shim_replies_total{way}: Replies that HTTP callers got, by their way
    COUNTER shim_unclaimed_replies_total{}: Replies that no HTTP caller waits for any more
    ");
}
