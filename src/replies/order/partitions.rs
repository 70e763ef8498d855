//! Partitions of reply topics for replies that leave in order, chosen so that their order can be seen.

use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tracing::debug;

use crate::broker::{BrokerError, Cluster};

/// Time for which a missing topic counts as missing without another question.
const MISSING_FOR: Duration = Duration::from_secs(10);
/// Most missing topics that are remembered. Their names come from any client that sends requests, so they must not fill
/// the memory.
const MAX_MISSING: usize = 1000;
/// Pause between two questions to a broker that cannot be reached.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Remembers how many partitions topics have, as it was when each was first written to: were more added meanwhile, keys
/// would move between two of their replies.
pub(super) struct Partitions {
    cluster: Arc<Cluster>,
    known: Mutex<HashMap<Arc<str>, PartitionCount>>,
    /// Admits one question at a time.
    asking: tokio::sync::Mutex<()>,
}

/// Partition count of a topic, as the broker last said it.
struct PartitionCount {
    /// None when there was no such topic.
    count: Option<i32>,
    at: Instant,
}

impl Partitions {
    /// Starts with the count of the default topic. Blocks; not for the runtime's workers.
    pub(super) fn of_default(cluster: Arc<Cluster>, topic: &str) -> Result<Self, BrokerError> {
        let count = cluster.partitions(topic)?;
        let partitions = Self { cluster, known: Mutex::default(), asking: tokio::sync::Mutex::default() };
        partitions.remember(Arc::from(topic), count);
        Ok(partitions)
    }

    /// Returns the partition count of a topic, if it is known and the topic exists.
    pub(super) fn known(&self, topic: &str) -> Option<i32> {
        self.lock().get(topic)?.count
    }

    /// Returns the partition count of a topic, and asks the broker for it if need be. None when there is no such topic,
    /// or `is_futile` before a broker has answered.
    pub(super) async fn count(&self, topic: &Arc<str>, is_futile: impl Fn() -> bool) -> Option<i32> {
        if let Some(count) = self.remembered(topic) {
            return count;
        }
        let _turn = self.asking.lock().await;
        while !is_futile() {
            if let Some(count) = self.remembered(topic) {
                return count;
            }
            let (cluster, name) = (self.cluster.clone(), topic.clone());
            match spawn_blocking(move || cluster.partitions(&name)).await {
                Ok(Ok(count)) => self.remember(topic.clone(), count),
                // Without a broker the reply could not go anywhere, so it waits here.
                Ok(Err(error)) => {
                    debug!(%topic, %error, "it is not known yet how many partitions a reply topic has");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                Err(_) => return None,
            }
        }
        None
    }

    fn remembered(&self, topic: &str) -> Option<Option<i32>> {
        let known = self.lock();
        let known = known.get(topic)?;
        (known.count.is_some() || known.at.elapsed() < MISSING_FOR).then_some(known.count)
    }

    fn remember(&self, topic: Arc<str>, count: Option<i32>) {
        let mut known = self.lock();
        if known.len() >= MAX_MISSING {
            known.retain(|_, known| known.count.is_some());
        }
        known.insert(topic, PartitionCount { count, at: Instant::now() });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, PartitionCount>> {
        self.known.lock()
    }
}

/// Chooses the partition for a key as Java's default partitioner, and `murmur2` of librdkafka, do.
pub(in crate::replies) fn partition_of(key: &[u8], count: i32) -> i32 {
    i32::try_from(murmur2(key) & 0x7fff_ffff).unwrap_or_default() % count.max(1)
}

/// Hashes as `org.apache.kafka.common.utils.Utils` does.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mut hash = SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(M);
        mixed = (mixed ^ (mixed >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ mixed;
    }
    if !rest.is_empty() {
        let last = rest.iter().rev().fold(0, |last, byte| last << 8 | u32::from(*byte));
        hash = (hash ^ last).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_hashes_as_kafka_does() {
        // These are Kafka's own test vectors.
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
        assert_eq!(partition_of(b"abc", 4), 479_470_107 % 4);
        assert_eq!(partition_of(b"21", 7), (-973_932_308_i32 & 0x7fff_ffff) % 7);
    }
}
