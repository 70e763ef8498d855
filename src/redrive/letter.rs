//! One dead letter: whether it is to be sent back, and as what. Pure.

use std::sync::Arc;

use bytes::Bytes;

use super::choice::Choice;
use crate::message::{Correlation, Request, Source, header};

const ORIGINAL_TOPIC: &str = "kafka_dlt-original-topic";
const ORIGINAL_PARTITION: &str = "kafka_dlt-original-partition";
const ORIGINAL_OFFSET: &str = "kafka_dlt-original-offset";
const CODE: &str = "kafka_dlt-exception-fqcn";
/// Headers that say what has become of a request, and are not its own.
const NOT_ITS_OWN: [&str; 3] = ["kafka_dlt-", "retry_topic-", "kafka_original-"];

/// One dead letter.
#[derive(Debug)]
pub(super) struct Letter {
    record: Request,
    readable: bool,
}

/// What is to become of a letter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is sent back.
    Chosen { code: String, endpoint: String },
    /// The filter leaves it.
    Filtered,
    /// It has not come from the requests topic.
    Foreign,
    /// Its value is lost.
    Hollow,
}

/// The request that a letter was.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Restored<'a> {
    pub(super) topic: &'a str,
    /// Where it was before, if that is there still.
    pub(super) partition: Option<i32>,
    pub(super) key: Option<&'a Bytes>,
    pub(super) payload: Option<&'a Bytes>,
    pub(super) headers: Vec<(&'a str, Option<Bytes>)>,
}

impl Letter {
    pub(super) fn new(record: Request, readable: bool) -> Self {
        Self { record, readable }
    }

    pub(super) fn partition(&self) -> i32 {
        self.record.source.partition
    }

    pub(super) fn offset(&self) -> i64 {
        self.record.source.offset
    }

    pub(super) fn size(&self) -> usize {
        self.record.size()
    }

    /// What becomes of it by this choice.
    pub(super) fn verdict(&self, choice: &Choice) -> Verdict {
        let Choice { filter, requests, only_endpoint } = choice;
        let headers = &self.record.headers;
        if !self.readable || headers.text(ORIGINAL_TOPIC) != Some(requests) {
            return Verdict::Foreign;
        }
        let code = headers.text(CODE).unwrap_or_default();
        let endpoint = headers.text(header::ENDPOINT).or(only_endpoint.as_deref()).unwrap_or_default();
        let is_one_of = |wanted: &[String], it: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == it);
        let time = self.record.timestamp.unwrap_or_default();
        let is_wanted = is_one_of(&filter.codes, code)
            && is_one_of(&filter.endpoints, endpoint)
            && filter.since.is_none_or(|since| time >= since)
            && filter.until.is_none_or(|until| time < until);
        match self.record.payload {
            _ if !is_wanted => Verdict::Filtered,
            None => Verdict::Hollow,
            Some(_) => Verdict::Chosen { code: code.to_owned(), endpoint: endpoint.to_owned() },
        }
    }

    /// The request as it came, without what has become of it, and without its deadline, which has nothing to say any
    /// more. One that was known by its place alone is still known by that.
    pub(super) fn restored<'a>(&'a self, requests: &'a str, partitions: i32) -> Restored<'a> {
        let headers = &self.record.headers;
        let last_attempts = headers.iter().enumerate().filter(|(_, (name, _))| *name == header::ATTEMPTS).last();
        let last_attempts = last_attempts.map(|(index, _)| index);
        let is_own = |(index, (name, _)): &(usize, (&str, Option<&[u8]>))| {
            !NOT_ITS_OWN.iter().any(|prefix| name.starts_with(prefix))
                && *name != header::DEADLINE
                && Some(*index) != last_attempts
        };
        let own = headers.iter().enumerate().filter(is_own).map(|(_, header)| header);
        let mut restored: Vec<_> = own.map(|(name, value)| (name, value.map(Bytes::copy_from_slice))).collect();
        if let Some(id) = self.place_as_id(requests) {
            restored.push((header::CORRELATION_ID, Some(id)));
        }
        let partition =
            headers.get(ORIGINAL_PARTITION).and_then(|bytes| Some(i32::from_be_bytes(bytes.try_into().ok()?)));
        Restored {
            topic: requests,
            partition: partition.filter(|partition| (0..partitions).contains(partition)),
            key: self.record.key.as_ref(),
            payload: self.record.payload.as_ref(),
            headers: restored,
        }
    }

    /// The correlation id of a request that has neither an id nor a key.
    fn place_as_id(&self, requests: &str) -> Option<Bytes> {
        let headers = &self.record.headers;
        let partition = i32::from_be_bytes(headers.get(ORIGINAL_PARTITION)?.try_into().ok()?);
        let offset = i64::from_be_bytes(headers.get(ORIGINAL_OFFSET)?.try_into().ok()?);
        let here = Correlation::of(&self.record).id;
        let source = Source { topic: Arc::from(requests), partition, offset };
        let there = Correlation::of(&Request { source, ..self.record.clone() }).id;
        // It depends on the place.
        (here != there).then_some(there)
    }
}

#[cfg(test)]
mod tests {
    use super::super::choice::Filter;
    use super::*;
    use crate::message::Headers;

    fn choice(filter: &Filter, requests: &str, only_endpoint: Option<&str>) -> Choice {
        let only_endpoint = only_endpoint.map(str::to_owned);
        Choice { filter: filter.clone(), requests: requests.to_owned(), only_endpoint }
    }

    fn letter(headers: &[(&str, &[u8])], key: Option<&'static str>) -> Letter {
        let original: [(&str, &[u8]); 3] = [
            (ORIGINAL_TOPIC, b"requests"),
            (ORIGINAL_PARTITION, &[0, 0, 0, 2]),
            (ORIGINAL_OFFSET, &[0, 0, 0, 0, 0, 0, 0, 9]),
        ];
        let why: [(&str, &[u8]); 2] = [(CODE, b"MODEL_ERROR"), ("attempts", b"3")];
        let record = Request {
            source: Source { topic: "dead-letters".into(), partition: 1, offset: 5 },
            timestamp: Some(1_000),
            key: key.map(Bytes::from),
            payload: Some(Bytes::from_static(b"{}")),
            headers: Headers::from_pairs(headers.iter().copied().chain(original).chain(why)),
            parked: None,
        };
        Letter::new(record, true)
    }

    fn names(letter: &Letter) -> Vec<String> {
        let value = |value: Option<Bytes>| String::from_utf8_lossy(&value.unwrap_or_default()).into_owned();
        let restored = letter.restored("requests", 4);
        restored.headers.into_iter().map(|(name, it)| format!("{name}={}", value(it))).collect()
    }

    #[test]
    fn goes_back_as_it_came() {
        let own: [(&str, &[u8]); 4] =
            [("endpoint", b"a"), ("attempts", b"mine"), ("deadline", b"1"), ("kafka_correlationId", b"id")];
        let sent = letter(&own, None);
        assert_eq!(names(&sent), ["endpoint=a", "attempts=mine", "kafka_correlationId=id"]);
        assert_eq!(sent.restored("requests", 4).partition, Some(2));
        assert_eq!(sent.restored("requests", 2).partition, None, "it has fewer partitions now");
    }

    #[test]
    fn is_known_by_the_same_id_as_before() {
        assert_eq!(names(&letter(&[], None)), ["kafka_correlationId=requests-2-9"]);
        assert_eq!(names(&letter(&[], Some("key"))), [""; 0]);
        assert_eq!(names(&letter(&[("correlation-id", b"7")], None)), ["correlation-id=7"]);
    }

    #[test]
    fn a_filter_takes_what_fits_in_every_way() {
        let chosen = |filter: &Filter| {
            let verdict = letter(&[("endpoint", b"a")], None).verdict(&choice(filter, "requests", None));
            matches!(verdict, Verdict::Chosen { .. })
        };
        let text = |text: &str| vec![text.to_owned()];
        let all = Filter::default();
        assert!(chosen(&all));
        for (filter, expected) in [
            (Filter { codes: text("MODEL_ERROR"), ..all.clone() }, true),
            (Filter { codes: text("INTERNAL_ERROR"), ..all.clone() }, false),
            (Filter { endpoints: text("a"), ..all.clone() }, true),
            (Filter { endpoints: text("b"), codes: text("MODEL_ERROR"), ..all.clone() }, false),
            (Filter { since: Some(1_000), until: Some(1_001), ..all.clone() }, true),
            (Filter { since: Some(1_001), ..all.clone() }, false),
            (Filter { until: Some(1_000), ..all.clone() }, false),
        ] {
            assert_eq!(chosen(&filter), expected, "{filter:?}");
        }
    }

    #[test]
    fn what_does_not_belong_here_is_left() {
        let all = Filter::default();
        assert_eq!(letter(&[], None).verdict(&choice(&all, "others", None)), Verdict::Foreign);
        let hollow = letter(&[], None);
        let hollow = Letter::new(Request { payload: None, ..hollow.record }, true);
        assert_eq!(hollow.verdict(&choice(&all, "requests", None)), Verdict::Hollow);
        let chosen = Verdict::Chosen { code: "MODEL_ERROR".to_owned(), endpoint: "only".to_owned() };
        assert_eq!(letter(&[], None).verdict(&choice(&all, "requests", Some("only"))), chosen);
    }
}
