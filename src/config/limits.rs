//! The section `kafka.limits`: the largest request record that is served.

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::HumanSize;

/// Limits of a request record. A larger one is refused before anything of it is copied.
///
/// A reply repeats the correlation id and the carried headers, and must fit a record itself; so those have far less
/// room than a value.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Most bytes of the value, as it is after decompression.
    #[serde(with = "HumanSize")]
    pub value: ByteSize,
    /// Most bytes of the key.
    #[serde(with = "HumanSize")]
    pub key: ByteSize,
    /// Most headers.
    pub headers: usize,
    /// Most bytes of the names and values of all headers together.
    #[serde(with = "HumanSize")]
    pub header_bytes: ByteSize,
    /// Most bytes of the name of a header.
    #[serde(with = "HumanSize")]
    pub header_name: ByteSize,
    /// Most bytes of the correlation id, or of the key where that stands in for it.
    #[serde(with = "HumanSize")]
    pub correlation_id: ByteSize,
}

impl Limits {
    /// Returns the most bytes that the record of a fault has, for a request within these limits: the correlation id is
    /// its key, in a header, and in its value, where escapes may double it; in NestJS's dialect its value is a header
    /// as well.
    pub fn largest_fault(&self, longest_message: u64) -> u64 {
        let id = self.correlation_id.as_u64();
        // An escape takes six bytes for one.
        let value = 2 * id + 6 * longest_message;
        2 * id + 2 * value + self.header_bytes.as_u64()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            value: ByteSize::mib(16),
            key: ByteSize::kib(16),
            headers: 256,
            header_bytes: ByteSize::kib(64),
            header_name: ByteSize::kib(1),
            correlation_id: ByteSize::kib(16),
        }
    }
}
