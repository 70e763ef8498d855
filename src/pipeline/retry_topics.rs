//! Which requests are put aside to be run later, and which are given up.

use crate::config::{Kafka, RetryTopic};
use crate::message::{Correlation, Fault, Parked, Request, header};
use crate::replies::Parking;

/// The retry topics.
#[derive(Debug)]
pub(super) struct RetryTopics {
    /// For requests whose route has too much to do; none when nothing is put aside.
    overflow: Option<RetryTopic>,
    /// After each failure.
    delayed: Vec<RetryTopic>,
}

/// What becomes of a request that was run.
#[derive(Debug)]
pub(super) enum Next {
    /// Its caller gets the reply or fault.
    Publish,
    /// It is put aside.
    Park(Parking),
    /// It is a dead letter, and its caller gets the fault.
    Bury,
}

impl RetryTopics {
    pub(super) fn new(config: &Kafka) -> Self {
        let mut topics = config.retry_topics().into_iter();
        Self { overflow: topics.next(), delayed: topics.collect() }
    }

    /// What becomes of a request whose route had too much to do for it.
    pub(super) fn overflow(&self, request: &Request) -> Next {
        let failures = request.parked.unwrap_or_default().failures;
        let parking = |topic: &RetryTopic| Parking { topic: topic.clone(), failures, reason: "behind" };
        self.overflow.as_ref().map_or(Next::Publish, |topic| Next::Park(parking(topic)))
    }

    /// What becomes of one that got this fault. With a deadline, or a place that its reply has to come to, somebody waits
    /// for it, and would rather know.
    pub(super) fn failed(&self, request: &Request, fault: &Fault) -> Next {
        if !fault.retryable || self.delayed.is_empty() || somebody_waits(request) {
            return Next::Publish;
        }
        let Parked { failures, .. } = request.parked.unwrap_or_default();
        let topic = usize::try_from(failures).ok().and_then(|failures| self.delayed.get(failures));
        topic.map_or(Next::Bury, |topic| {
            Next::Park(Parking { topic: topic.clone(), failures: failures.saturating_add(1), reason: "failed" })
        })
    }
}

fn somebody_waits(request: &Request) -> bool {
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

    fn next(topics: &RetryTopics, request: &Request, fault: &Fault) -> String {
        match topics.failed(request, fault) {
            Next::Publish => "publish".to_owned(),
            Next::Park(parking) => format!("{} after {}", parking.topic.name, parking.failures),
            Next::Bury => "bury".to_owned(),
        }
    }

    #[test]
    fn a_request_waits_longer_after_each_failure_and_is_then_given_up() {
        let topics = topics(Ordering::Unordered, "kafka:9092");
        let fault = Fault::passing(Code::TemporarilyUnavailable, Stage::Load, "");
        let after = |failures| next(&topics, &request(&[], failures), &fault);
        assert_eq!(after(0), "requests-retry-signalbox-1000 after 1");
        assert_eq!(after(1), "requests-retry-signalbox-10000 after 2");
        assert_eq!((after(2), after(u32::MAX)), ("bury".to_owned(), "bury".to_owned()));
    }

    #[test]
    fn whoever_waits_is_told_at_once() {
        let topics = topics(Ordering::Unordered, "kafka:9092");
        let fault = Fault::passing(Code::TemporarilyUnavailable, Stage::Load, "");
        for header in [("deadline", "1800000000000"), ("kafka_replyTopic", "mine"), ("kafka_replyPartition", "3")] {
            assert_eq!(next(&topics, &request(&[header], 0), &fault), "publish", "{header:?}");
            assert_eq!(next(&topics, &request(&[header], 2), &fault), "publish", "{header:?}");
        }
        let permanent = Fault::permanent(Code::BadRequest, Stage::Invoke, "");
        assert_eq!(next(&topics, &request(&[], 0), &permanent), "publish");
    }

    #[test]
    fn nothing_is_put_aside_where_it_would_lose_its_place_or_be_lost() {
        let fault = Fault::passing(Code::TemporarilyUnavailable, Stage::Load, "");
        for topics in [topics(Ordering::Key, "kafka:9092"), topics(Ordering::Unordered, "embedded")] {
            assert_eq!(next(&topics, &request(&[], 0), &fault), "publish");
            assert!(matches!(topics.overflow(&request(&[], 0)), Next::Publish));
        }
    }

    #[test]
    fn too_much_to_do_is_no_failure() {
        let topics = topics(Ordering::Unordered, "kafka:9092");
        let Next::Park(parking) = topics.overflow(&request(&[], 1)) else { panic!("it is put aside") };
        assert_eq!((&*parking.topic.name, parking.failures), ("requests-retry-signalbox-0", 1));
    }
}
