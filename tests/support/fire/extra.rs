//! Builds a request that is in no plan.

/// Holds a request as it goes to the broker, header by header.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub(super) key: Option<Vec<u8>>,
    pub(super) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(super) value: Option<Vec<u8>>,
    /// Tells whether the record is compressed, so that the broker takes more than its limit of bytes allows.
    pub(super) gzip: bool,
}

impl Extra {
    /// Makes a request for this endpoint, with nothing wrong.
    pub(crate) fn at(endpoint: &str) -> Self {
        Self::default().header("endpoint", endpoint.as_bytes()).value(b"{\"inputs\": [1]}")
    }

    /// Adds the topic that the reply is to go to.
    pub(crate) fn reply_to(self, topic: &str) -> Self {
        self.header("kafka_correlationId", b"5f0e").header("kafka_replyTopic", topic.as_bytes())
    }

    pub(crate) fn key(self, key: Vec<u8>) -> Self {
        Self { key: Some(key), ..self }
    }

    pub(crate) fn value(self, value: &[u8]) -> Self {
        Self { value: Some(value.to_owned()), ..self }
    }

    pub(crate) fn tombstone(self) -> Self {
        Self { value: None, ..self }
    }

    pub(crate) fn gzip(self) -> Self {
        Self { gzip: true, ..self }
    }

    /// Adds a header. The last header of a name is the one that counts.
    pub(crate) fn header(self, name: &str, value: &[u8]) -> Self {
        self.raw_header(name.as_bytes(), value)
    }

    /// Adds a header whose name may be no text.
    pub(crate) fn raw_header(mut self, name: &[u8], value: &[u8]) -> Self {
        self.headers.push((name.to_owned(), Some(value.to_owned())));
        self
    }

    pub(crate) fn header_without_value(mut self, name: &str) -> Self {
        self.headers.push((name.as_bytes().to_owned(), None));
        self
    }
}
