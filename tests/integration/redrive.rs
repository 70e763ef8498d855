//! Covers dead letters that a filter leaves: however many there are, those behind them are sent back, each once.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use rdkafka::consumer::BaseConsumer;

use crate::park::{redrive, text};
use crate::support::{Kafka, Setup, wait_until};

const LIMIT: Duration = Duration::from_secs(120);
/// Number of letters that is more than a commit could tell one by one.
const OLD: usize = 17_000;
const NEW: usize = 10;
const MIXED: usize = 30_000;

/// Counts the records that were sent back, by correlation id.
struct Sent {
    reader: BaseConsumer,
    times: HashMap<String, usize>,
}

impl Sent {
    fn take(&mut self, wait: Duration) {
        while let Some(record) = self.reader.poll(wait) {
            let Ok(record) = record else { continue };
            *self.times.entry(text(&record.detach(), "kafka_correlationId")).or_default() += 1;
        }
    }

    /// Waits for so many in all, and checks that each was sent once.
    fn are(&mut self, count: usize) {
        wait_until(&format!("{count} letters"), LIMIT, || {
            self.take(Duration::from_millis(100));
            (self.times.len() >= count).then_some(())
        });
        self.take(Duration::from_secs(1));
        assert_eq!(self.times.len(), count);
        assert!(self.times.values().all(|times| *times == 1));
    }
}

/// Writes letters, all in one partition of the dead letters.
fn write(kafka: &Kafka, setup: &Setup<'_>, ids: std::ops::Range<usize>, code: impl Fn(usize) -> &'static str) {
    for n in ids {
        let headers = [
            ("kafka_correlationId", &*format!("order-{n}")),
            ("kafka_dlt-original-topic", &setup.requests),
            ("kafka_dlt-exception-fqcn", code(n)),
        ];
        kafka.send(&setup.dead_letters, Some("of one partition"), &headers, b"{\"inputs\": [1]}");
    }
    kafka.flush();
}

fn run(config: &str, arguments: &[&str]) -> (i32, String) {
    let output = redrive(config, arguments).wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), said)
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn redrive_sends_letters_once_when_filter_skips_many_before_them() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let config = setup.single_config("builtin:noop", "");
    let mut sent = Sent { reader: kafka.reader(&setup.requests), times: HashMap::new() };

    // Many letters match no filter, and a few behind them do.
    write(kafka, &setup, 0..OLD, |_| "INTERNAL_ERROR");
    let new = SystemTime::now() + Duration::from_millis(2);
    wait_until("the next moment", LIMIT, || (SystemTime::now() >= new).then_some(()));
    write(kafka, &setup, OLD..OLD + NEW, |_| "MODEL_ERROR");
    let since = humantime::format_rfc3339_millis(new).to_string();
    let (code, said) = run(&config, &["--since", &since, "--limit", "4"]);
    assert!(code == 0 && said.starts_with("4 dead letters sent back"), "{said}");
    let (code, said) = run(&config, &["--code", "MODEL_ERROR"]);
    assert!(code == 0 && said.starts_with("6 dead letters sent back"), "{said}");
    assert!(said.contains(&format!("{OLD} dead letters left, which the filters leave out")), "{said}");
    assert_eq!(run(&config, &["--since", &since]).0, 1);
    sent.are(NEW);

    // One letter is left for each one sent, with kills in between.
    write(kafka, &setup, OLD + NEW..OLD + NEW + MIXED, |n| if n % 2 == 0 { "INTERNAL_ERROR" } else { "MODEL_ERROR" });
    let mut kills = 0;
    loop {
        let mut redrive = redrive(&config, &["--code", "MODEL_ERROR"]);
        let before = sent.times.len();
        let ended = wait_until("a batch, or the end", LIMIT, || {
            sent.take(Duration::from_millis(1));
            let ended = redrive.try_wait().unwrap();
            (ended.is_some() || kills < 4 && sent.times.len() > before).then_some(ended)
        });
        let Some(ended) = ended else {
            redrive.kill().unwrap();
            redrive.wait().unwrap();
            kills += 1;
            continue;
        };
        assert!(ended.success(), "{:?}", redrive.wait_with_output());
        break;
    }
    assert!(kills > 0);
    sent.are(NEW + MIXED / 2);
    assert_eq!(run(&config, &["--code", "MODEL_ERROR"]).0, 1);

    // All letters that were left are there.
    let (code, said) = run(&config, &[]);
    assert!(code == 0 && said.starts_with(&format!("{} dead letters sent back", OLD + MIXED / 2)), "{said}");
    sent.are(OLD + NEW + MIXED);
    assert_eq!(run(&config, &[]).0, 1);
}
