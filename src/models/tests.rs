//! Models end to end, with a stand-in for MLflow (`fake_mlflow.py`) that starts in a blink.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::invocation::Call;
use crate::message::{Code, Headers, Reply, Stage};

/// A directory with an interpreter whose MLflow is the stand-in, and one model.
struct World {
    directory: TempDir,
    models: Models,
    events: Arc<Mutex<Vec<String>>>,
}

impl World {
    /// The model behaves as these words say.
    fn new(behaviour: &str) -> Self {
        Self::with_load_timeout(behaviour, Duration::from_secs(60))
    }

    fn with_load_timeout(behaviour: &str, load_timeout: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::create_dir_all(path.join("lib/mlflow")).unwrap();
        std::fs::write(path.join("lib/mlflow/__main__.py"), include_str!("tests/fake_mlflow.py")).unwrap();
        std::fs::create_dir(path.join("model")).unwrap();
        std::fs::write(path.join("model/MLmodel"), "model_id: m-7\n").unwrap();
        std::fs::write(path.join("model/behaviour"), behaviour).unwrap();
        let python = path.join("python");
        let library = path.join("lib").display().to_string();
        std::fs::write(&python, format!("#!/bin/sh\nPYTHONPATH={library} exec python3 \"$@\"\n")).unwrap();
        std::fs::set_permissions(&python, PermissionsExt::from_mode(0o755)).unwrap();
        let config = config::Models { python: python.display().to_string(), load_timeout, ..Default::default() };
        let registry = config::Registry { tracking_uri: Some("http://127.0.0.1:9".into()), ..Default::default() };
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&events);
        let observer: LoadObserver = Arc::new(move |event: &LoadEvent<'_>| {
            seen.lock().unwrap().push(event.result.map_or_else(ToString::to_string, ToOwned::to_owned));
        });
        Self { models: Models::start(&config, &registry, observer).unwrap(), directory, events }
    }

    fn model(&self) -> PathBuf {
        self.directory.path().join("model")
    }

    fn handle(&self, options: HandleOptions) -> ModelHandle {
        self.models.handle(&ModelUri::parse(self.model().to_str().unwrap()).unwrap(), options)
    }

    /// The processes of each start of the model's server: itself, its supervisor, and a helper of its own.
    fn starts(&self) -> Vec<Vec<u32>> {
        let pids = std::fs::read_to_string(self.model().join("pids")).unwrap_or_default();
        pids.lines().map(|line| line.split(' ').map(|pid| pid.parse().unwrap()).collect()).collect()
    }

    fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().clone()
    }
}

async fn invoke(lease: &Lease, payload: &'static str) -> Result<Reply, Fault> {
    let headers = Headers::default();
    let payload = Bytes::from_static(payload.as_bytes());
    let timeout = Duration::from_secs(30);
    lease.invoke(Call { content_type: "application/json", payload, headers: &headers, timeout }).await
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn many_wait_for_one_load_and_nothing_is_left_after_shutdown() {
    let world = World::new("helper");
    let mut waiting = JoinSet::new();
    for _ in 0..50 {
        let handle = world.handle(HandleOptions::default());
        waiting.spawn(async move {
            let lease = handle.lease(None).await?;
            assert_eq!(&**lease.version(), "m-7");
            assert!(handle.in_use() <= HOSTED_CONCURRENCY);
            invoke(&lease, "{}").await
        });
    }
    for answer in waiting.join_all().await {
        assert!(answer.unwrap().body.starts_with(b"{\"predictions\": ["));
    }
    let starts = world.starts();
    assert_eq!((starts.len(), world.events()), (1, vec!["m-7".to_owned()]));
    assert!(starts[0].iter().all(|pid| is_alive(*pid)));
    world.models.shutdown().await;
    assert!(!starts[0].iter().any(|pid| is_alive(*pid)), "{starts:?}");
    let fault = world.handle(HandleOptions::default()).lease(None).await.unwrap_err();
    assert!(fault.message.contains("stopping"), "{fault}");
}

#[tokio::test]
async fn a_server_that_ends_is_started_again_by_the_next_request() {
    let world = World::new("ok");
    let handle = world.handle(HandleOptions::default());
    let fault = invoke(&handle.lease(None).await.unwrap(), "die").await.unwrap_err();
    assert_eq!((fault.code, fault.retryable), (Code::TemporarilyUnavailable, true), "{fault}");
    // While the kernel takes a process apart, its sockets go one by one: calls at that moment may be cut off as well.
    while let Err(fault) = invoke(&handle.lease(None).await.unwrap(), "{}").await {
        assert!(fault.retryable && world.starts().len() == 1, "{fault}");
    }
    let starts = world.starts();
    assert_eq!(starts.len(), 2);
    world.models.shutdown().await;
    assert!(!starts.iter().flatten().any(|pid| is_alive(*pid)), "{starts:?}");
}

#[tokio::test]
async fn a_failure_is_told_in_one_line_and_not_tried_again_at_once() {
    let world = World::new("fail");
    let handle = world.handle(HandleOptions::default());
    for _ in 0..3 {
        let fault = handle.lease(None).await.unwrap_err();
        assert_eq!((fault.code, fault.stage, fault.retryable), (Code::TemporarilyUnavailable, Stage::Load, true));
        assert!(fault.message.contains("ModuleNotFoundError: No module named 'a_library_that_is_missing'"), "{fault}");
        assert!(fault.retry_after.is_some() && !fault.message.contains("Traceback"), "{fault}");
    }
    assert_eq!((world.starts().len(), world.events().len()), (1, 1));
}

#[tokio::test]
async fn says_what_to_do_about_the_interpreter() {
    let world = World::new("no-mlflow");
    let fault = world.handle(HandleOptions::default()).lease(None).await.unwrap_err();
    assert!(fault.message.contains("has no mlflow") && fault.message.contains("-m pip install mlflow"), "{fault}");
    let options = HandleOptions { python: Some("/nowhere/python".into()), ..Default::default() };
    let fault = world.handle(options).lease(None).await.unwrap_err();
    assert!(fault.message.contains("no Python at /nowhere/python (models.python)"), "{fault}");
}

#[tokio::test]
async fn a_server_that_is_not_ready_in_time_is_stopped() {
    let world = World::with_load_timeout("hang", Duration::from_secs(1));
    let fault = world.handle(HandleOptions::default()).lease(None).await.unwrap_err();
    assert!(fault.message.contains("models.load_timeout (1s)"), "{fault}");
    world.models.shutdown().await;
    assert!(!world.starts().iter().flatten().any(|pid| is_alive(*pid)));
}

#[tokio::test]
async fn a_load_outlives_the_request_that_began_it() {
    let world = World::new("ok");
    let handle = world.handle(HandleOptions::default());
    let fault = handle.lease(Some(Instant::now())).await.unwrap_err();
    assert_eq!((fault.code, fault.stage), (Code::DeadlineExceeded, Stage::Load));
    handle.lease(None).await.unwrap();
    assert_eq!((world.starts().len(), world.events()), (1, vec!["m-7".to_owned()]));
}

#[tokio::test]
async fn a_lease_takes_one_of_the_places() {
    let world = World::new("ok");
    let uri = ModelUri::parse("http://127.0.0.1:9").unwrap();
    let handle = world.models.handle(&uri, HandleOptions { max_concurrency: Some(1), ..Default::default() });
    let lease = handle.lease(None).await.unwrap();
    assert_eq!((&**lease.version(), handle.in_use()), ("external", 1));
    let fault = handle.lease(Some(Instant::now())).await.unwrap_err();
    assert_eq!((fault.code, fault.stage), (Code::DeadlineExceeded, Stage::Invoke));
    assert!(fault.message.contains("all 1 places of http://127.0.0.1:9"), "{fault}");
    drop(lease);
    handle.lease(Some(Instant::now())).await.unwrap();
    assert!(world.events().is_empty());
}

#[tokio::test]
async fn nothing_is_started_for_what_is_built_in() {
    let world = World::new("ok");
    let handle = world.models.handle(&ModelUri::parse("builtin:noop").unwrap(), HandleOptions::default());
    let reply = invoke(&handle.lease(None).await.unwrap(), "anything").await.unwrap();
    assert_eq!((&reply.body[..], handle.in_use()), (&br#"{"predictions": []}"#[..], 0));
    assert!(world.events().is_empty());
}

#[tokio::test]
async fn an_unreachable_registry_is_a_fault_that_may_pass() {
    let world = World::new("ok");
    let handle = world.models.handle(&ModelUri::parse("models:/a/Production").unwrap(), HandleOptions::default());
    let fault = handle.lease(None).await.unwrap_err();
    assert_eq!((fault.code, fault.stage, fault.retryable), (Code::TemporarilyUnavailable, Stage::Load, true));
    assert!(fault.message.contains("http://127.0.0.1:9"), "{fault}");
}
