//! Runs the bare loop, which has the cost of librdkafka with the settings that Signalbox uses, and nothing else.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};

/// Consumes and produces, and never ends by itself.
pub(crate) fn run(bootstrap: &str, requests: &str, replies: &str) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", format!("bare-{requests}"))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "true")
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.max.messages.kbytes", "2048")
        .set("fetch.max.bytes", "4194304")
        .set("fetch.wait.max.ms", "100")
        .create()
        .unwrap();
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("sticky.partitioning.linger.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("max.in.flight.requests.per.connection", "2")
        .set("queue.buffering.max.messages", "1000000")
        .create()
        .unwrap();
    consumer.subscribe(&[requests]).unwrap();
    loop {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) {
            let record =
                BaseRecord::to(replies).key(message.key().unwrap_or_default()).payload(br#"{"predictions": []}"#);
            if let Err((error, _)) = producer.send(record) {
                panic!("{error}");
            }
        }
    }
}
