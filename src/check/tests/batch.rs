//! Keys of batches.

use super::*;
use crate::config::{Batch, Batching};

fn batch(value: &str) -> Option<Batching> {
    let config = loaded(&gateway_with(&format!("        batch: {value}\n"))).config;
    config.model_endpoints[0].routes[1].batch.clone()
}

#[test]
fn batch_is_off_or_a_mapping() {
    let on = |batch| Some(Batching::On(batch));
    assert_eq!((batch("off"), batch("false")), (Some(Batching::Off), Some(Batching::Off)));
    assert_eq!(
        (batch("on"), batch("true"), batch("{}")),
        (on(Batch::default()), on(Batch::default()), on(Batch::default()))
    );
    assert_eq!(batch("{max_rows: 8}"), on(Batch { max_rows: 8, ..Batch::default() }));
    assert_eq!(batch("{verify: false}"), on(Batch { verify: false, ..Batch::default() }));
    assert_eq!(batch(""), None);
}

#[test]
fn batch_flaws_are_reported_at_their_place() {
    let text = "\
model_endpoints:
  - name: a
    routes:
      - {model_uri: 'models:/m/1', alias: one, batch: {max_rows: 0, max_bytes: 0B, target_latency: 0s}}
      - {model_uri: 'models:/m/2', alias: two, batch: {max_row: 1, max_wait: long}}
      - {model_uri: 'models:/m/3', alias: three, batch: never}
      - {model_uri: 'builtin:noop', alias: four, batch: {}}
";
    let report = report(text);
    for problem in [
        "gateway.yaml:4:66: model_endpoints[0].routes[0].batch.max_rows: must be at least 1",
        "model_endpoints[0].routes[0].batch.max_bytes: must be at least 1",
        "model_endpoints[0].routes[0].batch.target_latency: must be more than nothing",
        "gateway.yaml:5:56: model_endpoints[0].routes[1].batch.max_row: ",
        "model_endpoints[0].routes[1].batch.max_wait: ",
        "gateway.yaml:6:57: model_endpoints[0].routes[2].batch: ",
        "model_endpoints[0].routes[3].batch: builtin:noop has nothing to gain from batches",
    ] {
        assert!(report.contains(problem), "{problem}\n{report}");
    }
    assert_eq!(report.lines().count(), 7, "{report}");
}
