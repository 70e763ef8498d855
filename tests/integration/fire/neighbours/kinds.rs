//! Lists every kind of request that could harm those beside it. One more kind is one line.

use crate::support::Kafka;
use crate::support::fire::Extra;

/// Describes a kind of bad request.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// Makes one request of the kind, from its number.
    pub(super) request: fn(usize, &Places) -> Extra,
}

/// Names the reply topics that requests may name, beside those that do not exist.
pub(super) struct Places {
    /// A topic like any other, with one partition.
    pub(super) fine: String,
    /// Takes 300 bytes at most, which is no reply.
    pub(super) tight: String,
    /// Takes nothing that was written a moment ago.
    pub(super) stale: String,
    /// Has fewer replicas than it needs to take anything.
    pub(super) bereft: String,
}

/// Pattern of the reply topics that `kafka.allowed_reply_topics` allows.
pub(super) const ALLOWED: &str = "team-.*";
/// Prefix of allowed reply topics that do not exist.
pub(super) const ABSENT: &str = "team-absent";

/// All kinds of bad requests. A broker takes each as it is: no more than 1,048,588 bytes.
pub(super) const KINDS: &[Kind] = &[
    // Keys, which are the correlation id where there is no other.
    kind("a key of 600 kB", |_, _| good().key(filled(b'k', 600_000))),
    kind("a key of 1 MB", |_, _| good().key(filled(b'k', 1_000_000)).value(b"")),
    kind("a key of quotes and a bad deadline", |_, _| good().key(filled(b'"', 255_000)).header("deadline", b"x")),
    kind("a key of control characters and no endpoint", |_, _| Extra::at("nobody").key(filled(1, 180_000))),
    // Correlation ids, in each dialect.
    kind("a huge Spring id", |_, _| good().header("kafka_correlationId", &filled(b'i', 700_000))),
    kind("a huge binary Spring id", |_, _| good().header("kafka_correlationId", &filled(0xff, 400_000))),
    kind("a huge NestJS id", |_, _| nest().header("kafka_correlationId", &filled(b'i', 500_000))),
    kind("a huge NestJS id in a fault", |_, _| {
        nest().header("kafka_correlationId", &filled(b'"', 200_000)).header("deadline", b"x")
    }),
    kind("a NestJS fault", |_, _| {
        nest().header("kafka_correlationId", b"5f0e").header("x-tier", &filled(b't', 400_000)).header("deadline", b"x")
    }),
    kind("a huge SmallRye id", |_, places| {
        good().header("REPLY_CORRELATION_ID", &filled(b'i', 700_000)).header("REPLY_TOPIC", places.fine.as_bytes())
    }),
    kind("a huge plain id", |_, _| good().header("correlation-id", &filled(b'i', 700_000))),
    kind("an empty id", |_, _| good().header("kafka_correlationId", b"")),
    // Headers.
    kind("an x-header of 999,900 bytes", |_, _| good().header("x-big", &filled(b'x', 999_900))),
    kind("an x-header of 700 kB and a bad deadline", |_, _| {
        good().header("x-big", &filled(b'x', 700_000)).header("deadline", b"x")
    }),
    kind("a header of 999,900 bytes", |_, _| good().header("big", &filled(b'x', 999_900)).header("deadline", b"x")),
    kind("a tracestate of 600 kB", |_, _| good().header("tracestate", &filled(b't', 600_000))),
    kind("a header name of 500 kB", |_, _| good().header(&format!("x-{}", "n".repeat(500_000)), b"")),
    kind("5,000 headers", |_, _| many(good(), 5_000, |n| format!("h-{n}"))),
    kind("5,000 x-headers", |_, _| many(good(), 5_000, |n| format!("x-{n}"))),
    kind("5,000 times the same header", |_, _| many(good(), 5_000, |_| "kafka_correlationId".to_owned())),
    kind("an endpoint of 600 kB", |_, _| Extra::at("").header("endpoint", &filled(b'"', 600_000))),
    kind("a route of 600 kB", |_, _| good().header("x-signalbox-route", &filled(b'r', 600_000))),
    kind("a content type of 600 kB", |_, _| good().header("content-type", &filled(b'c', 600_000))),
    kind("a deadline of 600 kB", |_, _| good().header("deadline", &filled(b'9', 600_000))),
    kind("headers that are not UTF-8", |_, _| {
        ["endpoint", "kafka_replyTopic", "kafka_correlationId", "content-type", "deadline", "x-tier", "traceparent"]
            .into_iter()
            .fold(good(), |extra, name| extra.header(name, b"\xff\xfe\0\xc3"))
    }),
    kind("header names that are not UTF-8", |_, _| {
        good().raw_header(b"x-\xff", b"1").raw_header(b"\xc3\x28", b"").raw_header(b"", b"2")
    }),
    kind("headers without a value", |_, _| {
        ["endpoint", "kafka_replyTopic", "kafka_replyPartition", "kafka_correlationId", "deadline", "x-tier"]
            .into_iter()
            .fold(good(), Extra::header_without_value)
    }),
    // Values.
    kind("a tombstone", |_, _| good().tombstone()),
    kind("a tombstone with a key of 600 kB", |_, _| good().key(filled(b'k', 600_000)).tombstone()),
    kind("a value of 1 MB", |_, _| good().value(&filled(b' ', 1_040_000))),
    kind("deep JSON", |_, _| good().header("endpoint", b"picky").value(&filled(b'[', 900_000))),
    kind("no JSON", |_, _| good().header("endpoint", b"picky").value(&filled(0xff, 100_000))),
    // These values unpack to more than the broker takes.
    kind("a value that unpacks to 8 MB", |_, _| good().value(&filled(b' ', 8_000_000)).gzip()),
    kind("a key that unpacks to 4 MB", |_, _| good().key(filled(b'k', 4_000_000)).gzip()),
    kind("an x-header that unpacks to 4 MB", |_, _| good().header("x-big", &filled(b'x', 4_000_000)).gzip()),
    kind("an id that unpacks to 4 MB", |_, _| good().header("correlation-id", &filled(b'i', 4_000_000)).gzip()),
    // Answers.
    kind("an answer of 2 MiB", |_, _| good().header("endpoint", b"large")),
    kind("an answer of 2 MiB to a topic", |_, places| to(&places.fine).header("endpoint", b"large")),
    kind("an answer a little too large", |_, _| good().header("endpoint", b"brimful")),
    kind("a busy model", |_, _| good().header("endpoint", b"busy")),
    kind("a busy model, and too long to wait anywhere", |_, _| {
        good().header("endpoint", b"busy").value(&filled(b' ', 1_048_300))
    }),
    // Reply topics and partitions.
    kind("a reply topic that there is not", |_, _| to(ABSENT)),
    kind("reply topics that there are not", |n, _| to(&format!("{ABSENT}-{n}"))),
    kind("a reply topic with a NUL", |_, _| to("team-\0")),
    kind("reply topics with names that are none", |n, _| {
        let names = ["team- ", "team-é", "team-/../etc", "team-\n", "team-%2e", "team-\u{202e}x", "team-,b", "team-{}"];
        to(names[n % names.len()])
    }),
    kind("a reply topic of 300 letters", |_, _| to(&format!("team-{}", "t".repeat(295)))),
    kind("a reply topic of 600 kB", |_, _| to(&format!("team-{}", "t".repeat(600_000)))),
    kind("a reply topic that may not be written", |_, _| to("__consumer_offsets")),
    kind("a reply topic that takes 300 bytes", |_, places| to(&places.tight)),
    kind("a reply topic that refuses what comes", |_, places| to(&places.stale)),
    kind("a reply topic that refuses what comes, and a value of 1 MB", |_, places| {
        to(&places.stale).value(&filled(b' ', 1_048_200))
    }),
    kind("a reply topic that lacks replicas", |_, places| to(&places.bereft)),
    kind("a reply partition that there is not", |_, _| good().header("kafka_replyPartition", b"999")),
    kind("a topic's partition that there is not", |_, places| {
        to(&places.fine).header("kafka_replyPartition", &1_i32.to_be_bytes())
    }),
    kind("the last partition that can be said", |_, places| {
        to(&places.fine).header("kafka_replyPartition", &i32::MAX.to_be_bytes())
    }),
];

const fn kind(name: &'static str, request: fn(usize, &Places) -> Extra) -> Kind {
    Kind { name, request }
}

/// Makes a request with nothing wrong yet.
fn good() -> Extra {
    Extra::at("north")
}

/// Makes a request as NestJS's `ClientKafka` sends it.
fn nest() -> Extra {
    good().header("kafka_replyTopic", b"predict.reply").header("kafka_replyPartition", b"0")
}

/// Makes a request that wants its reply in this topic.
fn to(topic: &str) -> Extra {
    good().reply_to(topic)
}

fn many(extra: Extra, count: usize, name: impl Fn(usize) -> String) -> Extra {
    (0..count).fold(extra, |extra, n| extra.header(&name(n), b"0123456789"))
}

fn filled(byte: u8, count: usize) -> Vec<u8> {
    vec![byte; count]
}

impl Places {
    pub(super) fn on(kafka: &Kafka) -> Self {
        let topic = |settings: &[(&str, &str)]| kafka.create_topic_with("team", 1, settings);
        Self {
            fine: topic(&[]),
            tight: topic(&[("max.message.bytes", "300")]),
            stale: topic(&[("message.timestamp.before.max.ms", "0")]),
            bereft: topic(&[("min.insync.replicas", "2")]),
        }
    }
}
