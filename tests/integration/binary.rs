//! Runs the binary as a process that starts, is killed, starts again, and ends when it is told to.

use crate::support::{Kafka, Signalbox};

#[tokio::test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
async fn binary_restarts_when_killed_and_exits_when_terminated() {
    let kafka = Kafka::shared();
    let (requests, replies) = (kafka.create_topic("requests", 2), kafka.create_topic("replies", 2));
    let dead_letters = kafka.create_topic("dead-letters", 2);
    let mut signalbox = Signalbox::start(&format!(
        "model_endpoints:
  - name: smoke
    routes:
      - {{model_uri: 'builtin:noop', alias: noop}}
kafka:
  bootstrap_servers: {}
  requests_topic: {requests}
  replies_topic: {replies}
  dead_letter_topic: {dead_letters}
  group_id: {requests}
server: {{port: 0}}
",
        kafka.bootstrap()
    ));
    assert_eq!(signalbox.broker(), kafka.bootstrap());
    let first = signalbox.pid();
    signalbox.kill();
    signalbox.start_again();
    assert_ne!(signalbox.pid(), first);
    let answer = reqwest::get(format!("{}/ping", signalbox.url())).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(signalbox.terminate().success(), "{}", signalbox.log());
}
