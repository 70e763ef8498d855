//! Covers a partition of the replies that has lost its only broker: replies that go there wait, and all else goes on.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::support::{Cluster, Reply, Signalbox, unique, wait_until};

const KEYS: usize = 60;
/// Limit within which brokers find out that one of them is gone, which takes nine seconds; requests under way then have
/// to be tried again.
const FOUND_OUT_WITHIN: Duration = Duration::from_secs(60);

struct Topics {
    requests: String,
    replies: String,
    named: String,
    dead_letters: String,
}

fn config(cluster: &Cluster, topics: &Topics, delivery: &str) -> String {
    let Topics { requests, replies, named, dead_letters } = topics;
    format!(
        "
model_endpoints:
  - {{name: only, routes: [{{model_uri: \"builtin:noop\", alias: only}}]}}
kafka:
  bootstrap_servers: \"{}\"
  requests_topic: {requests}
  replies_topic: {replies}
  dead_letter_topic: {dead_letters}
  group_id: {}
  delivery: {delivery}
  allowed_reply_topics: [{named}]
  retry_delays: []
server: {{port: 0}}
",
        cluster.bootstrap(),
        unique("signalbox"),
    )
}

fn client(cluster: &Cluster) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.bootstrap()).set("log_level", "0");
    config
}

fn send(producer: &BaseProducer, requests: &str, round: usize, reply_topic: Option<(&str, i32)>) {
    for key in 0..KEYS {
        let key = format!("key-{key}");
        let round = round.to_string();
        let mut headers = OwnedHeaders::new().insert(Header { key: "x-round", value: Some(&round) });
        if let Some((topic, partition)) = reply_topic {
            headers = headers.insert(Header { key: "kafka_replyTopic", value: Some(topic) });
            headers = headers.insert(Header { key: "kafka_replyPartition", value: Some(&partition.to_string()) });
        }
        let record = BaseRecord::to(requests).key(&key).payload("{\"inputs\": [1]}").headers(headers);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

/// Holds all replies that have come: which round and key, to which partition, and how often.
struct Watch {
    consumer: BaseConsumer,
    seen: HashMap<(usize, String), (i32, usize)>,
    dead: usize,
}

impl Watch {
    fn new(cluster: &Cluster, topics: &Topics) -> Self {
        let consumer: BaseConsumer = client(cluster)
            .set("group.id", unique("reader"))
            .set("isolation.level", "read_committed")
            .create()
            .unwrap();
        let mut assignment = TopicPartitionList::new();
        for topic in [&topics.replies, &topics.named, &topics.dead_letters] {
            for partition in 0..3 {
                assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
            }
        }
        consumer.assign(&assignment).unwrap();
        Self { consumer, seen: HashMap::new(), dead: 0 }
    }

    fn look(&mut self) {
        while let Some(record) = self.consumer.poll(Duration::from_millis(50)) {
            let Ok(record) = record else { continue };
            let (partition, reply) = (record.partition(), Reply::of(&record.detach()));
            if reply.header("kafka_dlt-original-topic").is_empty() {
                let round = reply.header("x-round").parse().unwrap();
                self.seen.entry((round, reply.key)).or_insert((partition, 0)).1 += 1;
            } else {
                self.dead += 1;
            }
        }
    }

    /// Waits until each of these keys has its reply of a round.
    fn wait(&mut self, what: &str, round: usize, keys: &HashSet<String>, limit: Duration, log: impl Fn() -> String) {
        let began = Instant::now();
        loop {
            self.look();
            let left = keys.iter().filter(|key| !self.seen.contains_key(&(round, (*key).clone()))).count();
            if left == 0 {
                return;
            }
            assert!(began.elapsed() < limit, "{what}: {left} of {} are missing after {limit:?}\n{}", keys.len(), log());
        }
    }
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn replies_wait_only_when_their_partition_is_offline() {
    let mut cluster = Cluster::start();
    for delivery in ["exactly_once", "at_least_once"] {
        let topics = Topics {
            requests: cluster.create_topic("requests", 3),
            replies: cluster.create_topic_without_copies("replies", 3),
            named: cluster.create_topic_without_copies("named", 3),
            dead_letters: cluster.create_topic("dead-letters", 3),
        };
        // The metadata tell by which broker each partition is led.
        let metadata: BaseConsumer = client(&cluster).create().unwrap();
        let led = |topic: &str| -> HashMap<i32, i32> {
            let metadata = metadata.fetch_metadata(Some(topic), Duration::from_secs(30)).unwrap();
            metadata.topics()[0].partitions().iter().map(|it| (it.leader(), it.id())).collect()
        };
        let (away, named_away) = (led(&topics.replies)[&2], led(&topics.named)[&2]);

        let producer: BaseProducer = client(&cluster).create().unwrap();
        let mut signalbox = Signalbox::start(&config(&cluster, &topics, delivery));
        let mut watch = Watch::new(&cluster, &topics);
        let all: HashSet<_> = (0..KEYS).map(|key| format!("key-{key}")).collect();
        send(&producer, &topics.requests, 0, None);
        watch.wait("before", 0, &all, Duration::from_secs(60), || signalbox.log());
        // Replies wait also for a partition to which nothing was written yet.
        let (waiting, others): (HashSet<_>, HashSet<_>) =
            all.iter().cloned().partition(|key| watch.seen[&(0, key.clone())].0 == away);
        assert!(waiting.len() > 5 && others.len() > 20, "{} {}", waiting.len(), others.len());

        cluster.kill(1);
        send(&producer, &topics.requests, 1, None);
        watch.wait("while it is away", 1, &others, FOUND_OUT_WITHIN, || signalbox.log());
        // Replies wait from then on at once.
        send(&producer, &topics.requests, 2, None);
        watch.wait("once that is known", 2, &others, Duration::from_secs(10), || signalbox.log());
        // A caller who has named such a place has a dead letter after a while, and his fault elsewhere.
        let dead = watch.dead;
        send(&producer, &topics.requests, 3, Some((&topics.named, named_away)));
        watch.wait("of a topic that callers have named", 3, &others, Duration::from_secs(60), || signalbox.log());
        wait_until("the dead letters", Duration::from_secs(30), || {
            watch.look();
            // The fault of each of the rest has its place beside the replies that wait.
            (watch.dead >= dead + others.len()).then_some(())
        });

        cluster.start_again(1);
        for round in 1..=3 {
            watch.wait("when it is back", round, &all, Duration::from_secs(90), || signalbox.log());
        }
        assert!(signalbox.terminate().success(), "{}", signalbox.log());
        watch.look();
        if delivery == "exactly_once" {
            let repeated: Vec<_> = watch.seen.iter().filter(|(_, (_, times))| *times > 1).collect();
            assert!(repeated.is_empty() && watch.dead == KEYS, "{} {repeated:?}", watch.dead);
        }
    }
}
