//! The retry topics: requests are put aside there to be run later, until they are given up as dead letters.

use crate::config::{Kafka, RetryTopic};
use crate::message::{Correlation, Fault, Parked, Request, header};
use crate::replies::Parking;

/// Decides on the disposition of requests that got no reply.
#[derive(Debug)]
pub(super) struct RetryTopics {
    /// Topic of requests whose route has too much to do; none when nothing is put aside.
    overflow: Option<RetryTopic>,
    /// Topics of failed requests, by the number of earlier failures; each waits longer than the one before.
    delayed: Vec<RetryTopic>,
}

/// Tells the end of a request that was run.
#[derive(Debug)]
pub(super) enum Disposition {
    /// The caller gets the reply or fault.
    Reply,
    /// A retry topic gets the request.
    Retry(Parking),
    /// The dead letter topic gets the request, and the caller the fault.
    DeadLetter,
}

impl RetryTopics {
    /// Takes the topics of the configuration.
    pub(super) fn new(config: &Kafka) -> Self {
        let mut topics = config.retry_topics().into_iter();
        Self { overflow: topics.next(), delayed: topics.collect() }
    }

    /// Disposes of a request whose route had too much to do for it.
    pub(super) fn overflow(&self, request: &Request) -> Disposition {
        let failures = request.parked.unwrap_or_default().failures;
        let parking = |topic: &RetryTopic| Parking { topic: topic.clone(), failures, reason: "behind" };
        self.overflow.as_ref().map_or(Disposition::Reply, |topic| Disposition::Retry(parking(topic)))
    }

    /// Disposes of a request that got this fault. With a deadline, or a place that its reply has to come to, its caller
    /// waits, and would rather know.
    pub(super) fn failed(&self, request: &Request, fault: &Fault) -> Disposition {
        if !fault.retryable || self.delayed.is_empty() || caller_waits(request) {
            return Disposition::Reply;
        }
        let Parked { failures, .. } = request.parked.unwrap_or_default();
        let topic = usize::try_from(failures).ok().and_then(|failures| self.delayed.get(failures));
        topic.map_or(Disposition::DeadLetter, |topic| {
            Disposition::Retry(Parking { topic: topic.clone(), failures: failures.saturating_add(1), reason: "failed" })
        })
    }
}

fn caller_waits(request: &Request) -> bool {
    let correlation = Correlation::of(request);
    request.headers.get(header::DEADLINE).is_some()
        || correlation.reply_topic.is_some()
        || correlation.reply_partition.is_some()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Ordering;
    use crate::message::{Code, Headers, Source, Stage};

    fn topics(ordering: Ordering, servers: &str) -> RetryTopics {
        RetryTopics::new(&Kafka {
            ordering,
            bootstrap_servers: servers.to_owned(),
            requests_topic: "requests".to_owned(),
            retry_delays: [1, 10].map(Duration::from_secs).to_vec(),
            ..Kafka::default()
        })
    }

    fn request(headers: &[(&str, &str)], failures: u32) -> Request {
        Request {
            source: Source { topic: "requests".into(), partition: 0, offset: 0 },
            timestamp: None,
            key: None,
            payload: None,
            headers: Headers::from_pairs(headers.iter().map(|(name, value)| (*name, value.as_bytes()))),
            parked: (failures > 0).then_some(Parked { failures, ..Parked::default() }),
        }
    }

    fn disposition(topics: &RetryTopics, request: &Request, fault: &Fault) -> String {
        match topics.failed(request, fault) {
            Disposition::Reply => "publish".to_owned(),
            Disposition::Retry(parking) => format!("{} after {}", parking.topic.name, parking.failures),
            Disposition::DeadLetter => "bury".to_owned(),
        }
    }

    #[test]
    fn request_waits_longer_after_each_failure_and_is_then_given_up() {
        let topics = topics(Ordering::Unordered, "kafka:9092");
        let fault = Fault::passing(Code::TemporarilyUnavailable, Stage::Load, "");
        let after = |failures| disposition(&topics, &request(&[], failures), &fault);
        assert_eq!(after(0), "requests-retry-signalbox-1000 after 1");
        assert_eq!(after(1), "requests-retry-signalbox-10000 after 2");
        assert_eq!((after(2), after(u32::MAX)), ("bury".to_owned(), "bury".to_owned()));
    }

    #[test]
    fn caller_is_answered_at_once_when_it_waits() {
        let topics = topics(Ordering::Unordered, "kafka:9092");
        let fault = Fault::passing(Code::TemporarilyUnavailable, Stage::Load, "");
        for header in [("deadline", "1800000000000"), ("kafka_replyTopic", "mine"), ("kafka_replyPartition", "3")] {
            assert_eq!(disposition(&topics, &request(&[header], 0), &fault), "publish", "{header:?}");
            assert_eq!(disposition(&topics, &request(&[header], 2), &fault), "publish", "{header:?}");
        }
        let permanent = Fault::permanent(Code::BadRequest, Stage::Invoke, "");
        assert_eq!(disposition(&topics, &request(&[], 0), &permanent), "publish");
    }

    #[test]
    fn request_is_not_put_aside_when_order_or_broker_forbids_it() {
        let fault = Fault::passing(Code::TemporarilyUnavailable, Stage::Load, "");
        for topics in [topics(Ordering::Key, "kafka:9092"), topics(Ordering::Unordered, "embedded")] {
            assert_eq!(disposition(&topics, &request(&[], 0), &fault), "publish");
            assert!(matches!(topics.overflow(&request(&[], 0)), Disposition::Reply));
        }
    }

    #[test]
    fn overflow_is_not_counted_as_failure() {
        let topics = topics(Ordering::Unordered, "kafka:9092");
        let Disposition::Retry(parking) = topics.overflow(&request(&[], 1)) else { panic!("it is put aside") };
        assert_eq!((&*parking.topic.name, parking.failures), ("requests-retry-signalbox-0", 1));
    }
}
