//! Sends requests at a steady rate, each timed until a reader of committed replies has its reply.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::message::{Headers, Message};

use crate::statistics::{at, milliseconds};
use crate::support::{Kafka, Setup};

/// Longest time in which every request must have been answered.
const PATIENCE: Duration = Duration::from_secs(120);

/// Holds percentiles of the latency, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Sends `rate` requests a second for some seconds. The contender that answers them runs already, or is about to.
pub(crate) fn steadily(
    kafka: &Kafka,
    setup: &Setup<'_>,
    rate: u32,
    seconds: u32,
    payload: fn(usize) -> Vec<u8>,
) -> Latency {
    let reader = kafka.reader(&setup.replies);
    let send = |id: usize| {
        let name = id.to_string();
        kafka.send(&setup.requests, Some(&name), &[("kafka_correlationId", &name)], &payload(id));
    };
    // The first replies show that the contender runs, and that all models which it calls do.
    let warm_up = rate as usize / 2;
    (0..warm_up).for_each(send);
    kafka.flush();
    let begun = Instant::now();
    let mut replies = 0;
    while replies < warm_up {
        assert!(begun.elapsed() < PATIENCE, "only {replies} of {warm_up} replies are there");
        replies += usize::from(reader.poll(Duration::from_millis(100)).is_some());
    }

    let count = (rate * seconds) as usize;
    let mut sent = Vec::with_capacity(count);
    let begun = Instant::now();
    let received = thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut received = HashMap::with_capacity(count);
            while received.len() < count {
                assert!(begun.elapsed() < PATIENCE, "only {} of {count} replies are there", received.len());
                let Some(Ok(record)) = reader.poll(Duration::from_millis(100)) else { continue };
                let id = record.headers().and_then(|headers| {
                    let id = headers.iter().find(|header| header.key == "kafka_correlationId")?;
                    std::str::from_utf8(id.value?).ok()?.parse::<usize>().ok()
                });
                received.insert(id.unwrap(), Instant::now());
            }
            received
        });
        for n in 0..count {
            let due = begun + Duration::from_secs(1) / rate * u32::try_from(n).unwrap();
            thread::sleep(due.saturating_duration_since(Instant::now()));
            sent.push(Instant::now());
            send(n);
        }
        kafka.flush();
        reading.join().unwrap()
    });
    let mut took: Vec<_> = received.iter().map(|(id, at)| at.duration_since(sent[*id])).collect();
    took.sort_unstable();
    Latency { p50: milliseconds(at(&took, 0.5)), p99: milliseconds(at(&took, 0.99)) }
}
