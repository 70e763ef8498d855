use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::Response as Answer;
use axum::routing::any;
use tokio::net::TcpListener;

use super::*;
use crate::message::Headers;

const LARGEST: usize = 5 << 20;

/// Runs a server that answers everything by `answer`, for as long as the test runs.
async fn served<F>(answer: fn(Request) -> F) -> HttpBackend
where
    F: Future<Output = Answer<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(any(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    backend(&format!("http://{address}/invocations"))
}

fn backend(url: &str) -> HttpBackend {
    HttpBackend::new(url.parse().unwrap(), "models:/m/1".into(), ServerOwner::Others, 4).unwrap()
}

#[tokio::test]
async fn failure_is_permanent_when_our_own_server_fails_over_request() {
    let theirs =
        served(|_| async { Answer::builder().status(500).body(Body::from("Internal Server Error")).unwrap() }).await;
    let ours = HttpBackend::new(theirs.invocations.clone(), "models:/m/1".into(), ServerOwner::Signalbox, 4).unwrap();
    for (backend, retryable) in [(theirs, true), (ours, false)] {
        let fault =
            backend.invoke(call("application/json", &Headers::default()), LARGEST_REPLY).await.unwrap_err().fault;
        assert_eq!((fault.code, fault.retryable), (Code::ModelError, retryable), "{fault}");
    }
}

fn call<'a>(content_type: &'a str, headers: &'a Headers) -> Call<'a> {
    Call { content_type, payload: Bytes::from_static(b"\xff{}"), headers, timeout: Duration::from_secs(10) }
}

#[tokio::test]
async fn backend_passes_payload_headers_and_answer_on_untouched() {
    let backend = served(|request: Request| async move {
        let (parts, body) = request.into_parts();
        assert_eq!((parts.method.as_str(), parts.uri.path()), ("POST", "/invocations"));
        let seen = ["content-type", "x-user-id", "traceparent", "endpoint"]
            .map(|name| parts.headers.get(name).map_or("-", |value| value.to_str().unwrap_or("?")).to_owned());
        assert_eq!(seen, ["text/csv; charset=utf-8", "7", "00-1", "-"]);
        Answer::builder().status(201).header("content-type", "text/x").body(body).unwrap()
    })
    .await;
    let headers = Headers::from_pairs([
        ("endpoint", &b"a"[..]),
        ("X-User-Id", b"7"),
        ("traceparent", b"00-1"),
        ("x-not http", b"1"),
        ("x-bad", b"a\nb"),
    ]);
    let reply = backend.invoke(call("text/csv; charset=utf-8", &headers), LARGEST_REPLY).await.unwrap();
    assert_eq!((reply.content_type.as_str(), &reply.body[..]), ("text/x", &b"\xff{}"[..]));
}

#[tokio::test]
async fn answer_arrives_whole_when_large() {
    let backend = served(|_| async { Answer::new(Body::from(vec![b'x'; LARGEST])) }).await;
    let reply = backend.invoke(call("application/json", &Headers::default()), LARGEST).await.unwrap();
    assert_eq!(reply.body.len(), LARGEST);
}

#[tokio::test]
async fn answer_is_refused_when_larger_than_limit() {
    let announced = served(|_| async { Answer::new(Body::from(vec![0; LARGEST + 1])) }).await;
    let endless = served(|_| async {
        let pieces = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 1 << 16]));
        Answer::new(Body::from_stream(pieces))
    })
    .await;
    for backend in [announced, endless] {
        let failure = backend.invoke(call("application/json", &Headers::default()), LARGEST).await.unwrap_err();
        assert_eq!((failure.fault.code, failure.fault.retryable), (Code::PayloadTooLarge, false));
        assert!(failure.fault.message.contains("larger than 5 MiB"), "{}", failure.fault);
    }
}

#[tokio::test]
async fn error_stays_error_when_its_body_is_long() {
    let backend =
        served(|_| async { Answer::builder().status(500).body(Body::from(vec![b'x'; 8 << 20])).unwrap() }).await;
    let failure = backend.invoke(call("application/json", &Headers::default()), LARGEST_REPLY).await.unwrap_err();
    assert_eq!((failure.fault.code, failure.fault.retryable), (Code::ModelError, true));
}

#[tokio::test]
async fn error_keeps_retry_after() {
    let backend = served(|_| async {
        Answer::builder().status(503).header("retry-after", "9").body(Body::from("full")).unwrap()
    })
    .await;
    let failure = backend.invoke(call("application/json", &Headers::default()), LARGEST_REPLY).await.unwrap_err();
    assert_eq!(failure.fault.retry_after, Some(Duration::from_secs(9)));
    assert!(failure.fault.retryable && !failure.disconnected);
}

#[tokio::test]
async fn call_fails_when_http_cannot_carry_content_type() {
    let backend = backend("http://127.0.0.1:9/invocations");
    let failure = backend.invoke(call("text/csv\n", &Headers::default()), LARGEST_REPLY).await.unwrap_err();
    assert_eq!(failure.fault.code, Code::UnsupportedMediaType);
}

#[tokio::test]
async fn failure_may_pass_when_nothing_listens() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let backend = backend(&format!("http://{address}/invocations?token=secret"));
    assert!(!backend.ping().await);
    let failure = backend.invoke(call("application/json", &Headers::default()), LARGEST_REPLY).await.unwrap_err();
    assert!(failure.disconnected && !backend.is_listening().await && failure.fault.retryable);
    assert_eq!(failure.fault.code, Code::TemporarilyUnavailable);
    assert!(failure.fault.message.contains("refused"), "{}", failure.fault);
    assert!(failure.fault.message.contains(&address.to_string()), "{}", failure.fault);
    assert!(!failure.fault.message.contains("secret"), "{}", failure.fault);
}

#[tokio::test]
async fn failure_may_pass_when_connection_breaks() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = backend(&format!("http://{}/invocations", listener.local_addr().unwrap()));
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            drop(connection);
        }
    });
    let failure = backend.invoke(call("application/json", &Headers::default()), LARGEST_REPLY).await.unwrap_err();
    assert_eq!(failure.fault.code, Code::TemporarilyUnavailable);
    assert!(failure.disconnected && failure.fault.message.contains("broke"), "{}", failure.fault);
    assert!(backend.is_listening().await);
}

#[tokio::test]
async fn call_exceeds_deadline_when_answer_is_late() {
    let backend = served(|_| std::future::pending()).await;
    let headers = Headers::default();
    let call = Call { timeout: Duration::from_millis(50), ..call("application/json", &headers) };
    let failure = backend.invoke(call, LARGEST_REPLY).await.unwrap_err();
    assert_eq!(failure.fault.code, Code::DeadlineExceeded);
    assert!(failure.fault.message.contains("within 50ms"), "{}", failure.fault);
}

#[test]
fn loopback_is_recognised() {
    for (url, loopback) in [
        ("http://127.0.0.1:1/", true),
        ("http://127.9.9.9/", true),
        ("http://[::1]:1/", true),
        ("http://localhost/", true),
        ("http://10.0.0.1/", false),
        ("http://localhost.example/", false),
    ] {
        assert_eq!(is_loopback(&url.parse().unwrap()), loopback, "{url}");
    }
}

#[test]
fn durations_are_written_in_whole_milliseconds() {
    let words = |nanoseconds| in_words(Duration::from_nanos(nanoseconds));
    let told = [733_198_622, 9_998_613_000, 1_500_000_000, 120_000_000_000, 1_000, 0].map(words);
    assert_eq!(told, ["733ms", "9.999s", "1.5s", "120s", "1µs", "0ns"]);
}
