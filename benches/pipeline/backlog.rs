//! Requests that wait in a topic before a contender starts. It is measured from its first tenth of the replies to its
//! last, by the ends of the replies topic, so that neither its start nor a reader counts.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::support::{Kafka, Process, Setup, fresh_directory, wait_until};

pub(crate) const PAYLOAD: usize = 1024;
/// Clock ticks a second in /proc, which Linux fixes for user space.
const TICKS: f64 = 100.0;

/// What a contender needed.
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) cpu_microseconds: f64,
}

/// A payload of [`PAYLOAD`] bytes.
pub(crate) fn payload() -> Vec<u8> {
    let head = br#"{"inputs": ["d", ""#;
    [head, "x".repeat(PAYLOAD - head.len() - 3).as_bytes(), b"\"]}"].concat()
}

/// Writes so many requests, and waits until the broker has them.
pub(crate) fn fill(kafka: &Kafka, setup: &Setup<'_>, count: usize) {
    let payload = payload();
    for n in 0..count {
        kafka.send(&setup.requests, Some(&n.to_string()), &[], &payload);
        if n % 10_000 == 0 {
            kafka.flush();
        }
    }
    kafka.flush();
}

/// A Signalbox with this configuration.
pub(crate) fn signalbox(config: &str) -> Process {
    let directory = fresh_directory("signalbox");
    std::fs::write(directory.join("signalbox.yaml"), config).unwrap();
    let command = [env!("CARGO_BIN_EXE_signalbox"), "start", "--config", "signalbox.yaml"];
    Process::start("signalbox", &directory, &[], command)
}

/// Lets a contender answer so many requests.
pub(crate) fn measure(kafka: &Kafka, count: usize, start: impl FnOnce(&Setup<'_>) -> Process) -> Measured {
    let setup = Setup::new(kafka);
    fill(kafka, &setup, count);
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    let replies = || -> usize {
        let end = |partition| consumer.fetch_watermarks(&setup.replies, partition, Duration::from_secs(10)).unwrap().1;
        usize::try_from((0..4).map(end).sum::<i64>()).unwrap()
    };
    let process = start(&setup);
    let at = |share: usize| {
        let reached = || Some(replies()).filter(|replies| *replies >= share);
        let replies = wait_until("the replies", Duration::from_secs(600), reached);
        (Instant::now(), replies, cpu_seconds(process.pid()))
    };
    let (begun, first, cpu_begun) = at(count / 10);
    let (ended, last, cpu_ended) = at(count);
    let done = f64::from(u32::try_from(last - first).unwrap());
    Measured {
        per_second: done / ended.duration_since(begun).as_secs_f64(),
        cpu_microseconds: (cpu_ended - cpu_begun) * 1e6 / done,
    }
}

/// User and system time of a process so far.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS
}
