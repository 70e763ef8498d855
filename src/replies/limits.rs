//! TopicLimits of the reply topics on records, batches and requests in flight.

use std::collections::BTreeMap;

use crate::broker::{BrokerError, Cluster};
use crate::config::Kafka;

/// Most requests that librdkafka has in flight to a broker.
const MOST_IN_FLIGHT: usize = 5;

/// Bytes of a record that any topic and any producer takes that does not say otherwise.
const USUAL_RECORD: usize = 1_000_000;

/// Bytes of a batch that a topic takes that does not say otherwise.
const USUAL_TOPIC: usize = 1_048_588;

/// Settings that follow from the topics. Cheap to have; asked for once.
#[derive(Debug, Clone, Default)]
pub(super) struct TopicLimits(Vec<(&'static str, String)>);

impl TopicLimits {
    /// Asks the broker for the limits. Blocks; not for the runtime's workers.
    ///
    /// # Errors
    /// When no broker answers.
    pub(super) fn of(config: &Kafka, cluster: &Cluster) -> Result<Self, BrokerError> {
        let batch_size = cluster.largest_batch(&[&config.replies_topic, &config.dead_letter_topic])?;
        let batch_size = batch_size.map(|bytes| ("batch.size", bytes.to_string()));
        let in_flight = in_flight(&cluster.leaders(&config.replies_topic)?);
        let in_flight = ("max.in.flight.requests.per.connection", in_flight.to_string());
        Ok(Self(batch_size.into_iter().chain([in_flight]).collect()))
    }

    /// Returns a producer's own settings, and then these.
    pub(super) fn after<'a>(&'a self, own: &[(&'static str, &'a str)]) -> Vec<(&'static str, &'a str)> {
        let limits = self.0.iter().map(|(key, value)| (*key, value.as_str()));
        own.iter().copied().chain(limits).collect()
    }

    /// Returns how many bytes any record may have, so that neither the topics nor the producer refuse it.
    pub(super) fn largest_record(&self, config: &Kafka) -> usize {
        let of_topics = self.0.iter().filter(|(key, _)| *key == "batch.size").map(|(_, bytes)| bytes);
        let of_producer = config.properties.get("message.max.bytes");
        of_topics.chain(of_producer).filter_map(|bytes| bytes.parse().ok()).fold(USUAL_RECORD, usize::min)
    }
}

/// Size limit of records. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordLimit {
    /// Limit of the producer in bytes, which counts before it compresses.
    producer: usize,
    /// True if the producer compresses, so that a topic may take a record that looks too large for it.
    compressed: bool,
}

impl RecordLimit {
    /// Reads the limit from the config.
    pub(super) fn of(config: &Kafka) -> Self {
        let property = |name: &str| config.properties.get(name).map(String::as_str);
        let producer = property("message.max.bytes").and_then(|bytes| bytes.parse().ok());
        let codec =
            property("compression.type").or_else(|| property("compression.codec")).or_else(|| property("compression"));
        Self { producer: producer.unwrap_or(USUAL_RECORD), compressed: codec.is_some_and(|codec| codec != "none") }
    }

    /// Returns how many bytes a record may have for a topic that states this limit of its own.
    pub(super) fn of_topic(self, topic: Option<u64>) -> usize {
        let topic = topic.map_or(USUAL_TOPIC, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        if self.compressed { self.producer } else { self.producer.min(topic) }
    }
}

/// Chooses how many requests in flight serve a broker best that leads so many partitions; the broker that leads the
/// most of them decides.
///
/// An idempotent producer of librdkafka has one batch of a partition in flight. While the next batch waits for that,
/// and the connection would take another request, its thread does not wait but looks again and again, which takes a
/// whole processor. So there must be fewer requests than partitions; with half as many, batches are larger as well, and
/// each partition still has its turn every other time.
fn in_flight(leaders: &[i32]) -> usize {
    let mut led = BTreeMap::new();
    for leader in leaders {
        *led.entry(leader).or_insert(0_usize) += 1;
    }
    let most = led.into_values().max();
    most.map_or(MOST_IN_FLIGHT, |most| most.div_ceil(2).min(MOST_IN_FLIGHT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_flight_stays_below_partitions() {
        assert_eq!(in_flight(&[]), 5);
        assert_eq!(in_flight(&[1]), 1);
        assert_eq!(in_flight(&[1, 1]), 1);
        assert_eq!(in_flight(&[1; 4]), 2);
        assert_eq!(in_flight(&[1, 2, 3, 1, 2, 3, 1, 2]), 2);
        assert_eq!(in_flight(&[1; 8]), 4);
        assert_eq!(in_flight(&[1; 50]), 5);
    }

    #[test]
    fn largest_record_fits_topics_and_producer() {
        let config = |bytes: &str| {
            let properties = [("message.max.bytes".to_owned(), bytes.to_owned())].into();
            Kafka { properties, ..Kafka::default() }
        };
        let topics = TopicLimits(vec![
            ("max.in.flight.requests.per.connection", "2".to_owned()),
            ("batch.size", "5000".to_owned()),
        ]);
        assert_eq!(TopicLimits::default().largest_record(&Kafka::default()), USUAL_RECORD);
        assert_eq!(TopicLimits::default().largest_record(&config("9000000")), USUAL_RECORD);
        assert_eq!(topics.largest_record(&config("9000000")), 5_000);
        assert_eq!(topics.largest_record(&config("2000")), 2_000);
    }

    #[test]
    fn record_limit_ignores_topic_when_compressed() {
        let limit = |properties: &[(&str, &str)]| {
            let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            RecordLimit::of(&Kafka { properties, ..Kafka::default() })
        };
        assert_eq!(limit(&[]).of_topic(None), 1_000_000);
        assert_eq!(limit(&[]).of_topic(Some(5_000)), 5_000);
        assert_eq!(limit(&[("message.max.bytes", "9000000")]).of_topic(None), 1_048_588);
        assert_eq!(limit(&[("compression.type", "zstd")]).of_topic(Some(5_000)), 1_000_000);
        assert_eq!(limit(&[("compression.type", "none")]).of_topic(Some(5_000)), 5_000);
    }
}
