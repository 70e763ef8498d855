//! The choice of the letters that a run sends back.

use serde::{Deserialize, Serialize};

use super::dead_letter::DeadLetter;

/// Filters the letters that are to be sent back. An empty criterion leaves no letter out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// The codes of the letters' faults, such as `MODEL_ERROR`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<String>,
    /// The letters' endpoints.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// The earliest time at which a letter may have become one, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// The time before which a letter must have become one, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
}

/// Selects the letters that a run sends back; nothing else has a part in that. A selector says the same of the same
/// letter for ever, so the selectors of earlier runs, and how far those runs came, tell which letters were sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Selector {
    #[serde(flatten)]
    pub(super) filter: Filter,
    /// The topic that the letters came from.
    pub(super) requests: String,
    /// The endpoint of a letter that names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) only_endpoint: Option<String>,
}

/// Tells what becomes of a letter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// The letter is sent back.
    Selected { code: String, endpoint: String },
    /// The filter leaves the letter out.
    Filtered,
    /// The letter did not come from the requests topic.
    Foreign,
    /// The letter has lost its value.
    Hollow,
}

impl Selector {
    /// Decides whether a run sends this letter back, and if not, why.
    pub(super) fn select(&self, letter: &DeadLetter) -> Selection {
        let Self { filter, requests, only_endpoint } = self;
        if letter.original_topic() != Some(requests) {
            return Selection::Foreign;
        }
        let (code, time) = (letter.code(), letter.timestamp());
        let endpoint = letter.endpoint().or(only_endpoint.as_deref()).unwrap_or_default();
        // An empty list of codes or endpoints leaves no letter out.
        let is_one_of = |wanted: &[String], it: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == it);
        let is_wanted = is_one_of(&filter.codes, code)
            && is_one_of(&filter.endpoints, endpoint)
            && filter.since.is_none_or(|since| time >= since)
            && filter.until.is_none_or(|until| time < until);
        // A letter without its value is reported only when the filter wants it.
        match letter.has_value() {
            _ if !is_wanted => Selection::Filtered,
            false => Selection::Hollow,
            true => Selection::Selected { code: code.to_owned(), endpoint: endpoint.to_owned() },
        }
    }

    /// Tells whether this letter is selected.
    pub(super) fn selects(&self, letter: &DeadLetter) -> bool {
        matches!(self.select(letter), Selection::Selected { .. })
    }

    /// Tells whether every letter that the other selector selects is selected by this one too.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let all_of = |mine: &[String], others: &[String]| {
            mine.is_empty() || !others.is_empty() && others.iter().all(|wanted| mine.contains(wanted))
        };
        let (mine, others) = (&self.filter, &other.filter);
        self.requests == other.requests
            && self.only_endpoint == other.only_endpoint
            && all_of(&mine.codes, &others.codes)
            && all_of(&mine.endpoints, &others.endpoints)
            && mine.since.is_none_or(|mine| others.since.is_some_and(|others| mine <= others))
            && mine.until.is_none_or(|mine| others.until.is_some_and(|others| mine >= others))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Headers, Request, Source};

    fn selector(filter: &Filter, requests: &str, only_endpoint: Option<&str>) -> Selector {
        let only_endpoint = only_endpoint.map(str::to_owned);
        Selector { filter: filter.clone(), requests: requests.to_owned(), only_endpoint }
    }

    fn letter(headers: &[(&str, &[u8])], payload: Option<&'static str>) -> DeadLetter {
        let added: [(&str, &[u8]); 2] =
            [("kafka_dlt-original-topic", b"requests"), ("kafka_dlt-exception-fqcn", b"MODEL_ERROR")];
        let record = Request {
            source: Source { topic: "dead-letters".into(), partition: 1, offset: 5 },
            timestamp: Some(1_000),
            key: None,
            payload: payload.map(Into::into),
            headers: Headers::from_pairs(headers.iter().copied().chain(added)),
            parked: None,
        };
        DeadLetter::new(record, true)
    }

    #[test]
    fn filter_selects_letter_that_meets_every_criterion() {
        let selected = |filter: &Filter| {
            let selection = selector(filter, "requests", None).select(&letter(&[("endpoint", b"a")], Some("{}")));
            matches!(selection, Selection::Selected { .. })
        };
        let text = |text: &str| vec![text.to_owned()];
        let all = Filter::default();
        assert!(selected(&all));
        for (filter, expected) in [
            (Filter { codes: text("MODEL_ERROR"), ..all.clone() }, true),
            (Filter { codes: text("INTERNAL_ERROR"), ..all.clone() }, false),
            (Filter { endpoints: text("a"), ..all.clone() }, true),
            (Filter { endpoints: text("b"), codes: text("MODEL_ERROR"), ..all.clone() }, false),
            (Filter { since: Some(1_000), until: Some(1_001), ..all.clone() }, true),
            (Filter { since: Some(1_001), ..all.clone() }, false),
            (Filter { until: Some(1_000), ..all.clone() }, false),
        ] {
            assert_eq!(selected(&filter), expected, "{filter:?}");
        }
    }

    #[test]
    fn letter_is_left_when_foreign_or_hollow() {
        let all = Filter::default();
        let whole = letter(&[], Some("{}"));
        assert_eq!(selector(&all, "others", None).select(&whole), Selection::Foreign);
        assert_eq!(selector(&all, "requests", None).select(&letter(&[], None)), Selection::Hollow);
        let selected = Selection::Selected { code: "MODEL_ERROR".to_owned(), endpoint: "only".to_owned() };
        assert_eq!(selector(&all, "requests", Some("only")).select(&whole), selected);
    }
}
