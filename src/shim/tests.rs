//! Tests of the shim end to end, on the embedded broker, with a responder that knows nothing but the wire contract.

mod fixture;

use std::time::Instant;

use bytes::Bytes;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(super) use self::fixture::endpoint;
use self::fixture::{CALL, CannedReply, Fixture, LONG, RunningShim, empty_config, fault, header, until};
use super::*;

#[tokio::test]
async fn call_becomes_contract_record_and_answer_keeps_every_byte() {
    let (seen, requests) = std::sync::mpsc::channel();
    let reply: &[u8] = b"{\"predictions\": [ {\"label\":\"\xc3\xa9\",  \"score\": 0.950} ]}\n";
    let fixture = Fixture::new(move |request| {
        seen.send((request.headers.clone(), request.body.clone())).unwrap();
        let headers = vec![
            ("content-type", "application/json; charset=utf-8".to_owned()),
            ("endpoint", "sentiment-router".to_owned()),
            ("route", "fast".to_owned()),
            ("model-version", "models:/m/3".to_owned()),
        ];
        Some(CannedReply { status: "200", headers, body: Bytes::from_static(reply), times: 1 })
    })
    .await;
    let running = fixture.shim(config::Server::default(), LONG).await;

    let before = crate::message::wall_clock().duration_since(std::time::UNIX_EPOCH).unwrap();
    let answer = running
        .client
        .post(format!("{}/invocations?a=b", running.base))
        .header("X-Endpoint", "sentiment-router")
        .header("X-Tier", "gold")
        .header("Authorization", "Bearer secret")
        .header("traceparent", "00-1-2-03")
        .body("text\nhello\n")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "content-type"), "application/json; charset=utf-8");
    assert_eq!(header(&answer, "x-route"), "fast");
    assert_eq!(header(&answer, "x-model-version"), "models:/m/3");
    let correlation = header(&answer, "x-correlation-id");
    assert_eq!(&answer.bytes().await.unwrap()[..], reply);

    let (headers, body) = requests.recv().unwrap();
    assert_eq!(&body[..], b"text\nhello\n");
    let said = |name: &str| headers.text(name).unwrap_or_default().to_owned();
    assert_eq!(said("kafka_correlationId"), correlation);
    assert_eq!(said("kafka_replyTopic"), "inference-replies");
    assert_eq!(headers.get("kafka_replyPartition").unwrap().len(), 4);
    assert_eq!(said("endpoint"), "sentiment-router");
    assert_eq!(said("content-type"), "application/json");
    assert_eq!(said("http-target"), "POST /invocations?a=b");
    assert_eq!((said("x-tier").as_str(), said("traceparent").as_str()), ("gold", "00-1-2-03"));
    assert_eq!(headers.get_ignoring_case("authorization"), None);
    let left = Duration::from_millis(said("deadline").parse().unwrap()) - before;
    assert!(left > LONG - Duration::from_secs(1) && left < LONG + Duration::from_secs(5), "{left:?}");
    assert_eq!(running.counted("200"), 1);
    assert!(running.nothing_pending());
}

#[tokio::test]
async fn call_reaches_endpoint_of_its_path_or_gets_404() {
    let fixture =
        Fixture::new(|request| CannedReply::status("200", request.headers.get("endpoint").unwrap().to_vec())).await;
    let running = fixture.shim(config::Server::default(), LONG).await;
    for path in ["/endpoints/translate/invocations", "/gateway/translate/invocations"] {
        assert_eq!(running.post(path, "{}").await.text().await.unwrap(), "translate");
    }
    let unknown = running.post("/gateway/nobody/invocations", "{}").await;
    assert_eq!(unknown.status(), 404);
    let unknown = fault(unknown).await;
    assert_eq!(unknown["error_code"], "RESOURCE_DOES_NOT_EXIST");
    assert_eq!(unknown["message"], "there is no endpoint 'nobody'; there are: sentiment-router, translate");
    assert_eq!(running.post("/invocations", "{}").await.status(), 404);

    let alone = fixture.shim_of(&["only"], config::Server::default(), LONG).await;
    assert_eq!(alone.post("/invocations", "{}").await.text().await.unwrap(), "only");
}

#[tokio::test]
async fn status_pages_answer_as_mlflow_does() {
    let fixture = Fixture::new(CannedReply::echo).await;
    let running = fixture.shim(config::Server::default(), LONG).await;
    let json = "application/json".to_owned();
    for path in ["/ping", "/health"] {
        assert_eq!(running.get(path).await, (StatusCode::OK, json.clone(), "\n".to_owned()));
    }
    assert_eq!(running.get("/version").await, (StatusCode::OK, json.clone(), "0.1.0".to_owned()));
    let not_found = "{\"detail\":\"Not Found\"}".to_owned();
    assert_eq!(running.get("/nothing").await, (StatusCode::NOT_FOUND, json.clone(), not_found));
    let not_allowed = "{\"detail\":\"Method Not Allowed\"}".to_owned();
    assert_eq!(running.get("/invocations").await, (StatusCode::METHOD_NOT_ALLOWED, json, not_allowed));
    for path in ["/api/2.0/endpoints/", "/api/2.0/endpoints"] {
        let (status, _, body) = running.get(path).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &body["endpoints"][1]["name"]), (StatusCode::OK, &json!("translate")));
    }
    assert!(running.get("/metrics").await.2.contains("signalbox_shim_pending 0"));

    assert_eq!(running.get("/ready").await.2, r#"{"parts":{"shim":{"ready":true}},"ready":true}"#);
    running.readiness.part("intake").waits_for("no partition is assigned");
    let (status, _, body) = running.get("/ready").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["parts"]["intake"], json!({"ready": false, "waits_for": "no partition is assigned"}));
}

#[tokio::test]
async fn body_is_bounded_and_may_come_in_chunks() {
    let fixture = Fixture::new(CannedReply::echo).await;
    let server = config::Server { max_body: bytesize::ByteSize::b(1000), ..config::Server::default() };
    let running = fixture.shim(server, LONG).await;
    assert_eq!(running.post(CALL, vec![b'x'; 1000]).await.status(), 200);
    let answer = running.post(CALL, vec![b'x'; 5_000_000]).await;
    assert_eq!(answer.status(), 413);
    assert_eq!(fault(answer).await["error_code"], "PAYLOAD_TOO_LARGE");

    let chunked = format!(
        "POST {CALL} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
         3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    );
    let mut connection = TcpStream::connect(running.shim.address()).await.unwrap();
    for piece in chunked.as_bytes().chunks(40) {
        connection.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("\r\n\r\nabcde"), "{answer}");
    assert!(running.nothing_pending());
}

#[tokio::test]
async fn answer_passes_through_when_model_refuses() {
    let fixture = Fixture::new(|request| {
        let status = match &request.body[..] {
            b"400" => "400",
            b"415" => "415",
            _ => "503",
        };
        let headers = vec![("content-type", "text/plain".to_owned()), ("retry-after", "7".to_owned())];
        Some(CannedReply { status, headers, body: Bytes::from_static(b"only csv"), times: 1 })
    })
    .await;
    let running = fixture.shim(config::Server::default(), LONG).await;
    for status in [400, 415, 503] {
        let answer = running.post(CALL, status.to_string()).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "content-type").as_str()), (status, "text/plain"));
        assert_eq!(header(&answer, "retry-after"), "7");
        assert_eq!(answer.text().await.unwrap(), "only csv");
        assert_eq!(running.counted(&status.to_string()), 1);
    }
}

#[tokio::test]
async fn call_gets_504_after_deadline_and_late_reply_is_unclaimed() {
    let (fixture, release) = Fixture::held().await;
    let running = fixture.shim(config::Server::default(), Duration::from_millis(60)).await;
    let answer = running.post(CALL, "{}").await;
    assert_eq!(answer.status(), 504);
    let body = fault(answer).await;
    assert_eq!((&body["error_code"], &body["stage"]), (&json!("DEADLINE_EXCEEDED"), &json!("publish")));
    assert_eq!(body["message"], "no reply came within 60ms");
    assert!(running.nothing_pending());
    assert_eq!(running.metrics.shim_unclaimed.get(), 0);
    release.send(()).unwrap();
    until("the late reply is counted", || running.metrics.shim_unclaimed.get() == 1).await;
}

#[tokio::test]
async fn repeated_and_malformed_replies_are_counted_as_unclaimed() {
    let fixture = Fixture::new(|request| CannedReply::echo(request).map(|said| CannedReply { times: 3, ..said })).await;
    let running = fixture.shim(config::Server { reply_partition: Some(1), ..config::Server::default() }, LONG).await;
    let answers = running.post(CALL, "one").await.text().await.unwrap();
    assert_eq!(answers, "one");
    until("repeats are counted", || running.metrics.shim_unclaimed.get() == 2).await;

    // These replies are malformed: no headers, null and foreign correlation ids.
    let producer: BaseProducer = fixture.cluster.client("stranger", &[], |_| DefaultProducerContext).unwrap();
    for id in [None, Some(None), Some(Some(&b"\xff\xfe"[..]))] {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to("inference-replies").partition(1);
        if let Some(value) = id {
            record = record.headers(OwnedHeaders::new().insert(Header { key: "kafka_correlationId", value }));
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(LONG).unwrap();
    until("strangers are counted", || running.metrics.shim_unclaimed.get() == 5).await;
    assert_eq!(running.post(CALL, "two").await.text().await.unwrap(), "two");
}

#[tokio::test]
async fn call_is_forgotten_when_caller_hangs_up() {
    let fixture = Fixture::new(|_| None).await;
    let running = fixture.shim(config::Server::default(), LONG).await;
    let mut connection = TcpStream::connect(running.shim.address()).await.unwrap();
    let call = format!("POST {CALL} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}");
    connection.write_all(call.as_bytes()).await.unwrap();
    until("the call waits", || running.shim.pending.waiting() == 1).await;
    drop(connection);
    until("the call is forgotten", || running.nothing_pending()).await;
    assert_eq!(running.counted("499"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_callers_get_their_own_answers() {
    let fixture = Fixture::new(CannedReply::echo).await;
    // Both shims read the same partition of the replies, as instances do when there are more of them than partitions.
    let server = config::Server { reply_partition: Some(2), ..config::Server::default() };
    let shims = [fixture.shim(server.clone(), LONG).await, fixture.shim(server, LONG).await];
    let callers: Vec<_> = (0..32)
        .map(|caller| {
            let shim = &shims[caller % 2];
            let (client, url) = (shim.client.clone(), format!("{}{CALL}", shim.base));
            tokio::spawn(async move {
                for number in 0..100 {
                    let text = format!("{caller}/{number}");
                    let answer = client.post(&url).body(text.clone()).send().await.unwrap();
                    assert_eq!(answer.text().await.unwrap(), text);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    // Each shim has seen the other's replies and left them alone.
    for shim in &shims {
        assert_eq!(shim.counted("200"), 1600);
        assert!(shim.nothing_pending());
        until("the other's replies are counted", || shim.metrics.shim_unclaimed.get() == 1600).await;
    }
}

#[tokio::test]
async fn call_is_shed_with_429_when_pending_calls_are_full() {
    let (fixture, release) = Fixture::held().await;
    let running = fixture.shim(config::Server { max_pending: 1, ..config::Server::default() }, LONG).await;
    let first = running.post(CALL, "first");
    let second = async {
        until("the first waits", || running.shim.pending.waiting() == 1).await;
        let refused = running.post(CALL, "second").await;
        assert_eq!((refused.status().as_u16(), header(&refused, "retry-after").as_str()), (429, "1"));
        assert_eq!(fault(refused).await["error_code"], "RESOURCE_EXHAUSTED");
        release.send(()).unwrap();
    };
    let (first, ()) = tokio::join!(first, second);
    assert_eq!(first.text().await.unwrap(), "first");
}

#[tokio::test]
async fn calls_are_shed_before_embedded_broker_drops_records() {
    let fixture = Fixture::new(|_| None).await;
    let running = fixture.shim(config::Server::default(), Duration::from_millis(1500)).await;
    let answers = (0..8).map(|_| {
        let call = running.client.post(format!("{}{CALL}", running.base)).body(vec![b'x'; 900_000]).send();
        tokio::spawn(call)
    });
    let mut statuses = Vec::new();
    for answer in answers.collect::<Vec<_>>() {
        statuses.push(answer.await.unwrap().unwrap().status().as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [429, 429, 429, 429, 504, 504, 504, 504]);
    assert!(running.nothing_pending());
}

#[tokio::test]
async fn shutdown_waits_for_callers_and_then_answers_503() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let fixture = Fixture::new(move |request| {
        match &request.body[..] {
            b"left" => return None,
            b"answered" => held.recv().unwrap(),
            _ => {}
        }
        CannedReply::echo(request)
    })
    .await;
    let running = fixture.shim(config::Server::default(), LONG).await;
    // The first call is a warm-up: a producer takes half a second until it may deliver its first record.
    assert_eq!(running.post(CALL, "first").await.status(), 200);
    let RunningShim { shim, base, client, .. } = running;
    let call = |body: &'static str| tokio::spawn(client.post(format!("{base}{CALL}")).body(body).send());
    let (answered, left) = (call("answered"), call("left"));
    until("both wait", || shim.pending.waiting() == 2).await;
    release.send(()).unwrap();
    shim.shutdown(Duration::from_millis(300)).await;
    assert_eq!(answered.await.unwrap().unwrap().status(), 200);
    let left = left.await.unwrap().unwrap();
    assert_eq!((left.status().as_u16(), header(&left, "retry-after").as_str()), (503, "1"));
    assert!(client.post(format!("{base}{CALL}")).send().await.is_err());
}

#[tokio::test]
async fn start_fails_when_port_is_taken_or_partition_is_missing() {
    let fixture = Fixture::new(|_| None).await;
    let start = async |server: config::Server| {
        let config = Config { kafka: fixture.kafka.clone(), server, ..empty_config() };
        let (readiness, metrics) = (Readiness::default(), Metrics::new().unwrap());
        let (operations, callers) = (axum::Router::new(), Callers::default());
        Shim::start(&config, &fixture.cluster, &readiness, &metrics, operations, callers).await
    };
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = start(config::Server { port, ..config::Server::default() }).await.err().unwrap().to_string();
    let expected =
        format!("server.port {port} on 127.0.0.1 is in use by another program; choose another, or 0 for a free one");
    assert_eq!(error, expected);
    let server = config::Server { port: 0, reply_partition: Some(4), ..config::Server::default() };
    assert!(matches!(start(server).await, Err(ShimError::ReplyPartition { partition: 4, count: 4, .. })));
}

/// Prints a figure and checks nothing: `cargo test --release shim::tests::latency -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints how long a call takes"]
async fn latency() {
    let fixture = Fixture::new(CannedReply::echo).await;
    let running = fixture.shim(config::Server::default(), LONG).await;
    let mut times = Vec::new();
    for _ in 0..500 {
        let started = Instant::now();
        assert_eq!(running.post(CALL, vec![b'x'; 1000]).await.status(), 200);
        times.push(started.elapsed());
    }
    let first = times[0];
    times.sort_unstable();
    println!("first {first:?}, p50 {:?}, p99 {:?} of {} calls", times[250], times[495], times.len());
}
