//! The ways in which a file has durations, sizes and properties: each type here stands for one of them in the attributes
//! of a field, for reading, for writing and for the schema.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use humantime_serde::Serde;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A duration, written as `250ms`, `10s` or `1h 30m`.
pub(super) struct HumanDuration;

impl HumanDuration {
    pub(super) fn serialize<T, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error>
    where
        for<'a> Serde<&'a T>: Serialize,
    {
        humantime_serde::serialize(value, serializer)
    }

    pub(super) fn deserialize<'de, T, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error>
    where
        Serde<T>: Deserialize<'de>,
    {
        humantime_serde::deserialize(deserializer)
    }
}

impl JsonSchema for HumanDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": format!(r"^\s*(0|(\d+(\.\d+)?\s*({DURATION_UNITS})\s*)+)$")})
    }
}

/// Units of durations, as humantime spells them, for a regular expression.
const DURATION_UNITS: &str = "nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|\
                              days?|d|weeks?|wks?|w|months?|M|years?|yrs?|y";

/// A list of durations.
pub(super) struct HumanDurations;

impl HumanDurations {
    pub(super) fn serialize<S: Serializer>(durations: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(durations.iter().map(|duration| Serde::from(*duration)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
        let durations = Vec::<Serde<Duration>>::deserialize(deserializer)?;
        Ok(durations.into_iter().map(Serde::into_inner).collect())
    }
}

impl JsonSchema for HumanDurations {
    fn schema_name() -> Cow<'static, str> {
        "Durations".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<HumanDuration>::json_schema(generator)
    }
}

/// A size in bytes, written as `512KiB`, `4GiB`, `500kB` or a number of bytes.
pub(super) struct HumanSize;

impl HumanSize {
    /// Writes a size exactly: in the largest unit of which it is a whole number.
    pub(super) fn serialize<T, S: Serializer>(size: &T, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: Copy + Into<Option<ByteSize>>,
    {
        let Some(ByteSize(bytes)) = (*size).into() else { return serializer.serialize_none() };
        let units = [
            ("GiB", bytesize::GIB),
            ("MiB", bytesize::MIB),
            ("KiB", bytesize::KIB),
            ("GB", bytesize::GB),
            ("MB", bytesize::MB),
            ("kB", bytesize::KB),
        ];
        match units.into_iter().find(|(_, unit)| bytes > 0 && bytes % unit == 0) {
            Some((name, unit)) => serializer.collect_str(&format_args!("{}{name}", bytes / unit)),
            None => serializer.serialize_u64(bytes),
        }
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        T::deserialize(deserializer)
    }
}

impl JsonSchema for HumanSize {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "string", "pattern": r"^\d+(\.\d*)?\s*([kKmMgGtTpPeE][iI]?)?[bB]?$"},
            {"type": "integer", "minimum": 0},
        ]})
    }
}

/// Properties of librdkafka. Their values are texts; in a file numbers and booleans need no quotes.
pub(super) struct Properties;

impl Properties {
    pub(super) fn serialize<S: Serializer>(
        properties: &BTreeMap<String, String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        properties.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, String>, D::Error> {
        let properties = BTreeMap::<String, Property>::deserialize(deserializer)?;
        Ok(properties.into_iter().map(|(name, Property(value))| (name, value)).collect())
    }
}

impl JsonSchema for Properties {
    fn schema_name() -> Cow<'static, str> {
        "Properties".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}})
    }
}

struct Property(String);

impl<'de> Deserialize<'de> for Property {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            // librdkafka takes no whole number with a point, such as JSON's text of `1e6`.
            Value::Number(number) if number.is_f64() => Ok(Self(number.as_f64().unwrap_or_default().to_string())),
            value @ (Value::Bool(_) | Value::Number(_)) => Ok(Self(value.to_string())),
            // Only the second part is read: the report names the value by its place.
            _ => Err(D::Error::invalid_type(Unexpected::Other("it"), &"text, a number, true or false")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(size: u64) -> Value {
        HumanSize::serialize(&ByteSize(size), serde_json::value::Serializer).unwrap()
    }

    #[test]
    fn size_is_written_exactly() {
        for (size, expected) in [(0, "0"), (1, "1"), (983_040, "960KiB"), (1 << 30, "1GiB"), (1_500_000, "1500kB")] {
            assert_eq!(written(size).to_string().trim_matches('"'), expected);
            let back: ByteSize = HumanSize::deserialize(written(size)).unwrap();
            assert_eq!(back, ByteSize(size));
        }
        assert_eq!(HumanSize::serialize(&None::<ByteSize>, serde_json::value::Serializer).unwrap(), Value::Null);
    }
}
