//! Covers topics that are missing, which are created, or refused with what to do.

use std::time::Duration;

use crate::support::{Kafka, Process, Setup, Signalbox, fresh_directory, unique};

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn missing_topics_are_created_or_refused_with_advice() {
    let kafka = Kafka::shared();
    let mut setup = Setup::new(kafka);
    setup.requests = unique("missing-requests");
    setup.replies = unique("missing-replies");

    let refusing = setup.single_config("builtin:noop", "  create_topics: false");
    let directory = fresh_directory("refusing");
    std::fs::write(directory.join("signalbox.yaml"), refusing).unwrap();
    let command = [env!("CARGO_BIN_EXE_signalbox"), "start", "--config", "signalbox.yaml"];
    let mut process = Process::start("signalbox", &directory, &[], command);
    let line = process.wait_for("word of the missing topic", Duration::from_secs(30), |log| {
        log.lines().find(|line| line.starts_with("signalbox: ")).map(str::to_owned)
    });
    assert!(line.contains(&setup.requests) && line.contains("set kafka.create_topics to true"), "{line}");

    let _signalbox = Signalbox::start(&setup.single_config("builtin:noop", "  partitions: 3"));
    kafka.produce(&setup.requests, None, &[("kafka_correlationId", "1")], b"{}");
    assert_eq!(setup.replies(1, Duration::from_secs(30))[0].status(), 200);
}
