//! Sends requests that are in no plan, and says how each kind of them ended.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::endings::{Endings, Source};
use super::extra::Extra;
use super::raw;

/// Longest time in which each request must have ended.
const ENDED_WITHIN: Duration = Duration::from_secs(5);
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);

/// Makes the request with this number.
pub(crate) type Recipe<'a> = Box<dyn Fn(usize) -> Extra + 'a>;

/// Writes requests to one topic.
pub(crate) struct Extras<'a> {
    bootstrap: String,
    topic: &'a str,
    kinds: Vec<(&'static str, Recipe<'a>)>,
    plain: ThreadedProducer<Receipts>,
    gzip: ThreadedProducer<Receipts>,
    receipts: Arc<Mutex<Vec<Receipt>>>,
    sent: usize,
}

/// Counts the ends of all requests, by kind.
pub(crate) struct Fates(BTreeMap<&'static str, Fate>);

#[derive(Debug, Default)]
struct Fate {
    sent: usize,
    /// The numbers of requests that ended in time, later, and not at all.
    ended: [usize; 3],
    slowest: Duration,
    /// The numbers of requests by the way in which they ended.
    endings: BTreeMap<String, usize>,
}

struct Receipt {
    kind: &'static str,
    source: Result<Source, String>,
    at: Instant,
}

struct Receipts(Arc<Mutex<Vec<Receipt>>>);

impl<'a> Extras<'a> {
    /// Starts with requests of all these kinds in turn.
    pub(crate) fn start(bootstrap: &str, topic: &'a str, kinds: Vec<(&'static str, Recipe<'a>)>) -> Self {
        let receipts = Arc::new(Mutex::new(Vec::new()));
        let producer = |compression: &str| {
            ClientConfig::new()
                .set("bootstrap.servers", bootstrap)
                .set("client.id", "checker-extras")
                .set("compression.type", compression)
                // This limit is for bytes that are not compressed yet; the broker has a limit of its own.
                .set("message.max.bytes", "50000000")
                .set("batch.num.messages", "1")
                .create_with_context(Receipts(Arc::clone(&receipts)))
                .unwrap()
        };
        let (plain, gzip) = (producer("none"), producer("gzip"));
        Self { bootstrap: bootstrap.to_owned(), topic, kinds, plain, gzip, receipts, sent: 0 }
    }

    /// Sends so many requests a second, for so long.
    pub(crate) fn send_for(&mut self, time: Duration, per_second: u32) {
        let begun = Instant::now();
        for n in 0..(time.as_secs_f64() * f64::from(per_second)) as u32 {
            std::thread::sleep((n * Duration::from_secs(1) / per_second).saturating_sub(begun.elapsed()));
            self.send();
        }
        std::thread::sleep(time.saturating_sub(begun.elapsed()));
    }

    /// Sends one request of each kind.
    pub(crate) fn send_each(&mut self) {
        (0..self.kinds.len()).for_each(|_| self.send());
    }

    /// Tells whether the broker has all requests that were sent, and all of them have ended.
    pub(crate) fn all_ended(&self, endings: &Endings) -> bool {
        let receipts = self.receipts.lock().unwrap();
        let ended = |receipt: &Receipt| receipt.source.as_ref().is_ok_and(|source| endings.of(*source).is_some());
        receipts.len() == self.sent && receipts.iter().all(ended)
    }

    fn send(&mut self) {
        let (name, recipe) = &self.kinds[self.sent % self.kinds.len()];
        let extra = recipe(self.sent);
        self.sent += 1;
        let headers = extra.headers.iter().try_fold(
            OwnedHeaders::new_with_capacity(extra.headers.len()),
            |headers, (name, value)| {
                let key = std::str::from_utf8(name).ok()?;
                Some(headers.insert(Header { key, value: value.as_ref() }))
            },
        );
        let Some(headers) = headers else {
            let source = raw::produce(&self.bootstrap, self.topic, 0, &extra).map(|offset| (0, offset));
            self.receipts.lock().unwrap().push(Receipt { kind: name, source, at: Instant::now() });
            return;
        };
        let mut record: BaseRecord<'_, [u8], [u8], _> =
            BaseRecord::with_opaque_to(self.topic, Box::new(*name)).headers(headers);
        (record.key, record.payload) = (extra.key.as_deref(), extra.value.as_deref());
        let producer = if extra.gzip { &self.gzip } else { &self.plain };
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }

    /// Waits until all have ended, or `patience` is over.
    pub(crate) fn finish(self, endings: &Endings, patience: Duration) -> Fates {
        [&self.plain, &self.gzip].iter().for_each(|producer| producer.flush(WRITTEN_WITHIN).unwrap());
        let begun = Instant::now();
        let receipts = std::mem::take(&mut *self.receipts.lock().unwrap());
        assert_eq!(receipts.len(), self.sent);
        let mut fates: BTreeMap<_, Fate> = self.kinds.iter().map(|(name, _)| (*name, Fate::default())).collect();
        for receipt in receipts {
            let fate = fates.entry(receipt.kind).or_default();
            // A request that the broker does not take proves nothing.
            let source = receipt.source.map_err(|error| format!("{}: {error}", receipt.kind)).unwrap();
            fate.sent += 1;
            let ending = loop {
                match endings.of(source) {
                    None if begun.elapsed() < patience => std::thread::sleep(Duration::from_millis(20)),
                    ending => break ending,
                }
            };
            let Some(ending) = ending else {
                fate.ended[2] += 1;
                continue;
            };
            let took = ending.at.saturating_duration_since(receipt.at);
            fate.ended[usize::from(took > ENDED_WITHIN)] += 1;
            fate.slowest = fate.slowest.max(took);
            *fate.endings.entry(ending.records.join("+")).or_default() += 1;
        }
        Fates(fates)
    }
}

impl Fates {
    /// Counts the requests that were sent.
    pub(crate) fn sent(&self) -> usize {
        self.0.values().map(|fate| fate.sent).sum()
    }

    /// Counts the requests that ended in time.
    pub(crate) fn ended(&self) -> usize {
        self.0.values().map(|fate| fate.ended[0]).sum()
    }

    /// Counts the requests that had not ended when patience was over.
    pub(crate) fn never(&self) -> usize {
        self.0.values().map(|fate| fate.ended[2]).sum()
    }

    /// Returns the longest time of a request that ended.
    pub(crate) fn slowest(&self) -> Duration {
        self.0.values().map(|fate| fate.slowest).max().unwrap_or_default()
    }
}

impl fmt::Display for Fates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, Fate { sent, ended: [in_time, late, never], slowest, endings }) in &self.0 {
            writeln!(
                formatter,
                "  {name}: {sent} sent, {in_time} ended in time, {late} later, {never} not; slowest {slowest:?}; {endings:?}"
            )?;
        }
        Ok(())
    }
}

impl ClientContext for Receipts {
    fn log(&self, _level: rdkafka::config::RDKafkaLogLevel, _facility: &str, _message: &str) {}
}

impl ProducerContext for Receipts {
    type DeliveryOpaque = Box<&'static str>;

    fn delivery(&self, result: &DeliveryResult<'_>, kind: Self::DeliveryOpaque) {
        let source = match result {
            Ok(record) => Ok((record.partition(), record.offset())),
            Err((error, _)) => Err(error.to_string()),
        };
        self.0.lock().unwrap().push(Receipt { kind: *kind, source, at: Instant::now() });
    }
}
