//! Makes topics of one's own on a broker, and the config that routes over them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;

use super::{Kafka, Mlflow, Process, Reply, fresh_directory, unique};

/// Script of an HTTP model that answers after `sys.argv[1]` milliseconds with `sys.argv[2]` characters.
const HTTP_MODEL: &str = r#"
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Model(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        time.sleep(float(sys.argv[1]) / 1000)
        body = b'{"predictions": ["%s"]}' % (b"x" * int(sys.argv[2]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
ThreadingHTTPServer.request_queue_size = 256
server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
server.daemon_threads = True
print(f"listening on {server.server_address[1]}", flush=True)
server.serve_forever()
"#;

/// Names topics that no other test has.
pub(crate) struct Setup<'a> {
    kafka: &'a Kafka,
    pub(crate) requests: String,
    pub(crate) replies: String,
    pub(crate) dead_letters: String,
    group: String,
}

/// Reads every partition of a replies topic from the beginning, a bit at a time.
pub(crate) struct ReplyReader(BaseConsumer);

impl<'a> Setup<'a> {
    pub(crate) fn new(kafka: &'a Kafka) -> Self {
        Self::with_partitions(kafka, 4)
    }

    /// Creates topics with this many partitions each.
    pub(crate) fn with_partitions(kafka: &'a Kafka, partitions: i32) -> Self {
        let topic = |name| kafka.create_topic(name, partitions);
        Self {
            kafka,
            requests: topic("requests"),
            replies: topic("replies"),
            dead_letters: topic("dead-letters"),
            group: unique("signalbox"),
        }
    }

    /// Creates topics, with settings of the replies topic.
    pub(crate) fn with_replies(kafka: &'a Kafka, settings: &[(&str, &str)]) -> Self {
        Self { replies: kafka.create_topic_with("replies", 4, settings), ..Self::new(kafka) }
    }

    /// Returns the consumer group.
    pub(crate) fn group(&self) -> &str {
        &self.group
    }

    /// Routes to the two sentiment models by the condition of the example.
    pub(crate) fn sentiment_config(&self, mlflow: &Mlflow) -> String {
        let routes = r#"
  - name: sentiment-router
    timeout: 60s
    routes:
      - {model_uri: "models:/sentiment-model-fast/production", alias: fast}
      - model_uri: "models:/sentiment-model-accurate/production"
        alias: accurate
        model_request_condition: "request.json()['dataframe_split']['data'][0][0].startswith('Domain specific text')"
"#;
        self.config(routes, "", &mlflow.tracking_uri())
    }

    /// Writes a config with one route to one model.
    pub(crate) fn single_config(&self, model_uri: &str, kafka_keys: &str) -> String {
        let endpoint = format!(
            "\n  - {{name: only, routes: [{{model_uri: \"{model_uri}\", alias: only, max_concurrency: 256}}]}}\n"
        );
        self.config(&endpoint, kafka_keys, "http://127.0.0.1:9")
    }

    /// Writes a config of these endpoints over these topics, with more keys of `kafka`, each on a line of its own.
    pub(crate) fn config(&self, endpoints: &str, kafka_keys: &str, tracking_uri: &str) -> String {
        format!(
            "model_endpoints:{endpoints}
kafka:
{}
{kafka_keys}
server: {{port: 0}}
registry: {{tracking_uri: \"{tracking_uri}\"}}
models: {{python: \"{}\", cache: {{directory: \"{}\"}}}}
",
            self.kafka_section(),
            Mlflow::python().display(),
            fresh_directory("cache").display(),
        )
    }

    /// Writes the section `kafka` of a config.
    pub(crate) fn kafka_section(&self) -> String {
        format!(
            "  bootstrap_servers: {}\n  requests_topic: {}\n  replies_topic: {}\n  dead_letter_topic: {}\n  \
             group_id: {}",
            self.kafka.bootstrap(),
            self.requests,
            self.replies,
            self.dead_letters,
            self.group,
        )
    }

    /// Waits for this many replies, or for what has come when `limit` is over.
    pub(crate) fn replies(&self, count: usize, limit: Duration) -> Vec<Reply> {
        self.kafka.consume(&self.replies, count, limit).iter().map(Reply::of).collect()
    }

    /// Makes a reader that starts at the first reply.
    pub(crate) fn reply_reader(&self) -> ReplyReader {
        ReplyReader(self.kafka.reader(&self.replies))
    }
}

impl ReplyReader {
    /// Counts some of the replies that have come since, by key; returns at the latest when none is left.
    pub(crate) fn count_into(&self, answered: &mut HashMap<String, usize>) {
        for _ in 0..50 {
            match self.0.poll(Duration::from_millis(100)) {
                Some(Ok(record)) => *answered.entry(Reply::of(&record.detach()).key).or_default() += 1,
                Some(Err(_)) => {}
                None => return,
            }
        }
    }

    /// Counts all replies that are there.
    pub(crate) fn count_rest_into(&self, answered: &mut HashMap<String, usize>) {
        while let Some(record) = self.0.poll(Duration::from_secs(2)) {
            if let Ok(record) = record {
                *answered.entry(Reply::of(&record.detach()).key).or_default() += 1;
            }
        }
    }
}

/// Starts an HTTP model that answers after so many milliseconds, and returns the process and its address.
pub(crate) fn http_model(milliseconds: u32) -> (Process, String) {
    start_http_model(milliseconds, 1)
}

/// Starts an HTTP model whose answer has this many characters.
pub(crate) fn http_model_of_size(characters: usize) -> (Process, String) {
    start_http_model(0, characters)
}

fn start_http_model(milliseconds: u32, characters: usize) -> (Process, String) {
    let directory: PathBuf = fresh_directory("model");
    let python = Mlflow::python();
    let (delay, size) = (milliseconds.to_string(), characters.to_string());
    let command = [python.to_str().unwrap(), "-c", HTTP_MODEL, &delay, &size];
    let mut process = Process::start("model", &directory, &[], command);
    let port = process.wait_for("a model that listens", Duration::from_secs(30), |log| {
        log.split_once("listening on ").map(|(_, port)| port.trim().to_owned()).filter(|port| !port.is_empty())
    });
    (process, format!("http://127.0.0.1:{port}"))
}
