//! The section `batch`: the joining of requests into one call of a model.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::units::{HumanDuration, HumanSize};

/// The switch for batches, and their limits.
#[derive(Debug, Clone, PartialEq)]
pub enum Batching {
    /// `off`: each request is a call of its own.
    Off,
    /// Requests are joined within these limits.
    On(Batch),
}

/// Limits within which requests are joined into one call.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    /// Most rows in one call.
    pub max_rows: usize,
    /// Most bytes in one call.
    #[serde(with = "HumanSize")]
    pub max_bytes: ByteSize,
    /// Longest time that a request waits for others to join it.
    #[serde(with = "HumanDuration")]
    pub max_wait: Duration,
    /// Time that a call should take: a call that takes longer gets fewer rows the next time.
    #[serde(with = "HumanDuration")]
    pub target_latency: Duration,
    /// True if batches are verified: a row must get the same answer in a batch as it gets alone.
    pub verify: bool,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            max_rows: 256,
            max_bytes: ByteSize::mib(4),
            max_wait: Duration::ZERO,
            target_latency: Duration::from_millis(100),
            verify: true,
        }
    }
}

impl<'de> Deserialize<'de> for Batching {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OffOrOn;

        impl<'de> Visitor<'de> for OffOrOn {
            type Value = Batching;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("off, or keys such as max_rows")
            }

            fn visit_bool<E: Error>(self, is_on: bool) -> Result<Batching, E> {
                Ok(if is_on { Batching::On(Batch::default()) } else { Batching::Off })
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Batching, E> {
                match text {
                    "off" => Ok(Batching::Off),
                    "on" => Ok(Batching::On(Batch::default())),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Batching, A::Error> {
                Batch::deserialize(MapAccessDeserializer::new(map)).map(Batching::On)
            }
        }

        deserializer.deserialize_any(OffOrOn)
    }
}

impl Serialize for Batching {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::On(batch) => batch.serialize(serializer),
        }
    }
}

impl JsonSchema for Batching {
    fn schema_name() -> Cow<'static, str> {
        "Batching".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let limits = Batch::json_schema(generator);
        json_schema!({"anyOf": [limits, {"enum": ["off", "on", true, false]}]})
    }
}
