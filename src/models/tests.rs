//! Tests of models that need no process of ours; tests/integration has the others.

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::invocation::Call;
use crate::message::{Code, Deadline, Headers, Reply, Stage};

/// Builds models with this interpreter, and a cache of their own.
fn models(python: &str) -> (TempDir, Models) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("MLmodel"), "model_id: m-7\n").unwrap();
    let cache = config::Cache { directory: Some(directory.path().join("cache")), ..Default::default() };
    let config = config::Models { python: python.to_owned(), cache, ..Default::default() };
    let registry = config::Registry { tracking_uri: Some("http://127.0.0.1:9".into()), ..Default::default() };
    let models = Models::start(&config, &registry, &Metrics::new().unwrap()).unwrap();
    (directory, models)
}

fn handle(models: &Models, uri: &str, options: HandleOptions) -> ModelHandle {
    models.handle(&ModelUri::parse(uri).unwrap(), options)
}

async fn invoke(lease: &mut Lease) -> Result<Reply, CallFailure> {
    let headers = Headers::default();
    let payload = Bytes::from_static(b"{}");
    let timeout = Duration::from_secs(30);
    lease.invoke(&Call { content_type: "application/json", payload, headers: &headers, timeout }).await
}

#[tokio::test]
async fn lease_takes_one_place() {
    let (_directory, models) = models("python3");
    let options = HandleOptions { max_concurrency: Some(1), ..Default::default() };
    let handle = handle(&models, "http://127.0.0.1:9", options);
    let lease = handle.lease(Deadline::NONE).await.unwrap();
    assert_eq!(&**lease.version(), "external");
    let fault = handle.lease(Deadline::NONE.within(Duration::ZERO)).await.unwrap_err();
    assert_eq!((fault.code, fault.stage), (Code::DeadlineExceeded, Stage::Invoke));
    assert!(fault.message.contains("all places of http://127.0.0.1:9"), "{fault}");
    drop(lease);
    handle.lease(Deadline::NONE.within(Duration::ZERO)).await.unwrap();
}

#[tokio::test]
async fn spare_lease_yields_while_requests_wait() {
    let (_directory, models) = models("python3");
    let of = |places| HandleOptions { max_concurrency: Some(places), ..Default::default() };
    let soon = || Deadline::NONE.within(Duration::from_millis(20));

    let two = handle(&models, "http://127.0.0.1:9", of(2));
    let spare = two.spare_lease(soon()).await.unwrap();
    assert_eq!(two.spare_lease(soon()).await.unwrap_err().code, Code::DeadlineExceeded);
    two.lease(soon()).await.unwrap();
    drop(spare);

    // A single place is taken when no request waits for it.
    let one = handle(&models, "http://127.0.0.1:9", of(1));
    let first = one.lease(Deadline::NONE).await.unwrap();
    let spare = tokio::spawn({
        let one = one.clone();
        async move { one.spare_lease(Deadline::NONE).await.unwrap() }
    });
    tokio::task::yield_now().await;
    let second = tokio::spawn({
        let one = one.clone();
        async move { one.lease(Deadline::NONE).await.unwrap() }
    });
    tokio::task::yield_now().await;
    drop(first);
    let second = second.await.unwrap();
    assert!(!spare.is_finished());
    drop(second);
    spare.await.unwrap();
}

#[tokio::test]
async fn external_server_is_not_retried_when_gone() {
    let (_directory, models) = models("python3");
    let mut lease =
        handle(&models, "http://127.0.0.1:9", HandleOptions::default()).lease(Deadline::NONE).await.unwrap();
    let failure = invoke(&mut lease).await.unwrap_err();
    assert!(!failure.crashed && failure.fault.message.contains("cannot be reached"), "{}", failure.fault);
}

#[tokio::test]
async fn builtin_model_answers_without_a_process() {
    let (_directory, models) = models("/nowhere/python");
    let mut lease = handle(&models, "builtin:noop", HandleOptions::default()).lease(Deadline::NONE).await.unwrap();
    assert_eq!(&invoke(&mut lease).await.unwrap().body[..], br#"{"predictions": []}"#);
    let report = models.report();
    assert!(report.models.is_empty() && report.following.is_empty());
}

#[tokio::test]
async fn lease_fails_retryably_when_registry_is_unreachable() {
    let (_directory, models) = models("python3");
    let handle = handle(&models, "models:/a/Production", HandleOptions::default());
    let fault = handle.lease(Deadline::NONE).await.unwrap_err();
    assert_eq!((fault.code, fault.stage, fault.retryable), (Code::TemporarilyUnavailable, Stage::Load, true));
    assert!(fault.message.contains("http://127.0.0.1:9") && fault.retry_after.is_some(), "{fault}");
    let following = &models.report().following;
    assert!(following[0].version.is_none() && following[0].reason.as_ref().unwrap().contains("127.0.0.1:9"));
}

#[tokio::test]
async fn fault_names_the_key_when_interpreter_is_missing() {
    let (directory, models) = models("/nowhere/python");
    let uri = directory.path().to_str().unwrap();
    let handle = handle(&models, uri, HandleOptions::default());
    for _ in 0..2 {
        let fault = handle.lease(Deadline::NONE).await.unwrap_err();
        assert_eq!((fault.code, fault.stage), (Code::TemporarilyUnavailable, Stage::Load));
        assert!(
            fault.message.contains("no Python at /nowhere/python (models.python, or the route's `python`)"),
            "{fault}"
        );
    }
    let version = &models.report().models[0];
    assert_eq!((version.state, version.id.as_str(), version.loads), ("failed", uri, 0));
    assert!(version.reason.as_ref().unwrap().contains("no Python at"));
}

#[tokio::test]
async fn load_and_unload_fail_when_id_is_unknown() {
    let (directory, models) = models("/nowhere/python");
    let fault = models.load("nope/1").await.unwrap_err();
    assert_eq!((fault.code, fault.message.contains("no version nope/1 is known")), (Code::ResourceDoesNotExist, true));
    let uri = directory.path().to_str().unwrap();
    handle(&models, uri, HandleOptions::default()).lease(Deadline::NONE).await.unwrap_err();
    let fault = models.unload(uri).unwrap_err();
    assert!(fault.message.contains("is not loaded"), "{fault}");
}

#[tokio::test]
async fn lease_fails_after_shutdown() {
    let (directory, models) = models("/nowhere/python");
    models.shutdown().await;
    let handle = handle(&models, directory.path().to_str().unwrap(), HandleOptions::default());
    let fault = handle.lease(Deadline::NONE.within(Duration::from_secs(30))).await.unwrap_err();
    assert!(fault.message.contains("stopping") || fault.message.contains("interrupted"), "{fault}");
}

#[tokio::test]
async fn catalog_forgets_models_without_routes() {
    let (_directory, models) = models("/nowhere/python");
    let uris = || models.report().following.into_iter().map(|it| it.model_uri).collect::<Vec<_>>();
    let [kept, gone] =
        ["models:/a/Production", "models:/b/Production"].map(|uri| handle(&models, uri, HandleOptions::default()));
    models.serving.catalog.forget_unused();
    assert_eq!(uris(), ["models:/a/Production", "models:/b/Production"]);
    drop(gone);
    models.serving.catalog.forget_unused();
    assert_eq!(uris(), ["models:/a/Production"]);
    drop(kept);
}
