//! Reads a reply record as a batch pipeline would read it.

use std::collections::HashMap;

use rdkafka::Message;
use rdkafka::message::{Headers, OwnedMessage};
use serde_json::Value;

/// Holds a reply record.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) key: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn of(record: &OwnedMessage) -> Self {
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let headers = record.headers().map(|headers| {
            headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect::<HashMap<_, _>>()
        });
        Self {
            key: text(record.key()),
            headers: headers.unwrap_or_default(),
            body: record.payload().unwrap_or_default().to_vec(),
        }
    }

    /// Returns the HTTP status that the reply carries.
    pub(crate) fn status(&self) -> u16 {
        self.header("status").parse().unwrap()
    }

    /// Returns a header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Parses the body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
