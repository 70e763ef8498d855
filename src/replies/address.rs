//! Addresses of replies, and the topics that they may name.

use std::sync::Arc;

use regex::Regex;

use crate::config::{Kafka, is_topic};
use crate::message::{Code, Correlation, Fault, Stage};

/// Characters that a fault shows of a name that Kafka does not take.
const SHOWN: usize = 100;

/// Address of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyAddress {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition; None: the key's hash chooses.
    pub partition: Option<i32>,
}

/// Topics that replies may be written to. Without such a list any producer could have Signalbox write anywhere.
#[derive(Debug, Clone)]
pub struct AllowedTopics {
    default: Arc<str>,
    patterns: Vec<Regex>,
}

/// Compiles a pattern of `kafka.allowed_reply_topics`, which has to match the whole of a topic's name.
pub(crate) fn topic_pattern(pattern: &str) -> Result<Regex, regex::Error> {
    // The bare pattern is compiled first, so that its error speaks of what was written.
    Regex::new(pattern)?;
    Regex::new(&format!("^(?:{pattern})$"))
}

impl AllowedTopics {
    /// Allows `kafka.replies_topic`, and what `kafka.allowed_reply_topics` matches as a whole.
    ///
    /// # Errors
    /// When a pattern is no regular expression.
    pub fn new(config: &Kafka) -> Result<Self, regex::Error> {
        let patterns = config.allowed_reply_topics.iter().map(|pattern| topic_pattern(pattern));
        Ok(Self { default: Arc::from(config.replies_topic.as_str()), patterns: patterns.collect::<Result<_, _>>()? })
    }

    /// Returns the address of replies whose request does not name one, or may not.
    pub fn default_address(&self) -> ReplyAddress {
        ReplyAddress { topic: self.default.clone(), partition: None }
    }

    /// Returns the address of the reply to a request.
    ///
    /// # Errors
    /// When the request names a topic that is not allowed, or a name that Kafka does not take.
    pub fn address(&self, correlation: &Correlation) -> Result<ReplyAddress, Fault> {
        let partition = correlation.reply_partition;
        match correlation.reply_topic.as_deref().filter(|topic| **topic != *self.default) {
            None => Ok(ReplyAddress { topic: self.default.clone(), partition }),
            // No pattern helps such a name: what Kafka takes for no name must not come near a producer.
            Some(topic) if !is_topic(topic) => Err(Fault::permanent(
                Code::BadRequest,
                Stage::Publish,
                format!(
                    "the request asks for its reply in topic '{}', which is no topic's name; name up to 249 letters, \
                     digits, '.', '_' and '-'",
                    topic.chars().take(SHOWN).flat_map(char::escape_default).collect::<String>()
                ),
            )),
            Some(topic) if self.patterns.iter().any(|pattern| pattern.is_match(topic)) => {
                Ok(ReplyAddress { topic: Arc::from(topic), partition })
            }
            Some(topic) => Err(Fault::permanent(
                Code::PermissionDenied,
                Stage::Publish,
                format!(
                    "replies may not be written to topic '{topic}'; name '{}', or have '{topic}' added to \
                     kafka.allowed_reply_topics",
                    self.default
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::Dialect;

    fn correlation(topic: Option<&str>) -> Correlation {
        Correlation {
            id: Bytes::from_static(b"1"),
            dialect: Dialect::Spring,
            reply_topic: topic.map(str::to_owned),
            reply_partition: Some(3),
        }
    }

    #[test]
    fn address_rejects_invalid_name_whatever_is_allowed() {
        let config = Kafka { allowed_reply_topics: vec!["(?s).*".to_owned()], ..Kafka::default() };
        let allowed = AllowedTopics::new(&config).unwrap();
        let long = "x".repeat(250);
        for name in ["", ".", "..", "team-\0", "team a", "team/a", "ümlaut", "a\n", &long, &"\0".repeat(1_000_000)] {
            let fault = allowed.address(&correlation(Some(name))).unwrap_err();
            assert_eq!(fault.code, Code::BadRequest, "{name}");
            assert!(fault.message.len() < 2_000 && !fault.message.contains('\0'), "{}", fault.message);
        }
        assert!(allowed.address(&correlation(Some(&long[1..]))).is_ok());
    }

    #[test]
    fn address_allows_only_listed_topics() {
        let config = Kafka { allowed_reply_topics: vec!["team-[ab]|x".to_owned()], ..Kafka::default() };
        let allowed = AllowedTopics::new(&config).unwrap();
        let topic = |name| allowed.address(&correlation(name)).map(|address| address.topic.to_string());
        assert_eq!(topic(None).unwrap(), "inference-replies");
        assert_eq!(topic(Some("inference-replies")).unwrap(), "inference-replies");
        assert_eq!(topic(Some("team-a")).unwrap(), "team-a");
        for refused in ["team-c", "my-team-a", "team-ab", "xx"] {
            assert_eq!(topic(Some(refused)).unwrap_err().code, Code::PermissionDenied, "{refused}");
        }
        assert_eq!(allowed.address(&correlation(Some("x"))).unwrap().partition, Some(3));
    }
}
