use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::Response as Answer;
use axum::routing::any;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::message::Code;
use crate::models::host::{Template, TemplateSpec};
use crate::models::registry::{Provenance, Registration, RegistryAddresses};

/// Tracking server that serves files.
struct Server {
    address: String,
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    /// Entries that are listed beside the files, whatever the directory.
    also_listed: Arc<Mutex<Vec<serde_json::Value>>>,
    /// The number of files that were asked for.
    downloads: Arc<AtomicUsize>,
    /// The `authorization` header of each request, empty without one.
    authorizations: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let files = files.iter().map(|(path, content)| ((*path).to_owned(), content.to_vec())).collect();
        let server = Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            files: Arc::new(Mutex::new(files)),
            also_listed: Arc::default(),
            downloads: Arc::default(),
            authorizations: Arc::default(),
        };
        let (files, also, downloads, seen) = (
            Arc::clone(&server.files),
            Arc::clone(&server.also_listed),
            Arc::clone(&server.downloads),
            Arc::clone(&server.authorizations),
        );
        let handler = move |request: Request| async move {
            let authorization = request.headers().get("authorization").and_then(|value| value.to_str().ok());
            seen.lock().push(authorization.unwrap_or_default().to_owned());
            let files = files.lock();
            let path = request.uri().path().strip_prefix("/api/2.0/mlflow-artifacts/artifacts").unwrap();
            if let Some(directory) = request.uri().query() {
                let root = directory.strip_prefix("path=").unwrap().replace("%2F", "/").replace('+', " ");
                return Answer::new(Body::from(listing(&files, &root, &also.lock()).to_string()));
            }
            downloads.fetch_add(1, Ordering::Relaxed);
            match files.get(&path[1..].replace("%20", " ")) {
                Some(content) => Answer::new(Body::from(content.clone())),
                None => Answer::builder()
                    .status(404)
                    .body(Body::from(r#"{"error_code":"RESOURCE_DOES_NOT_EXIST"}"#))
                    .unwrap(),
            }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(any(handler))).await });
        server
    }

    fn registry(&self) -> Registry {
        registry(&self.address, &[])
    }

    fn downloads(&self) -> usize {
        self.downloads.load(Ordering::Relaxed)
    }
}

fn listing(files: &BTreeMap<String, Vec<u8>>, root: &str, also: &[serde_json::Value]) -> serde_json::Value {
    let below = files.iter().filter_map(|(path, content)| Some((path.strip_prefix(root)?.strip_prefix('/')?, content)));
    let listed: BTreeMap<&str, serde_json::Value> = below
        .map(|(path, content)| match path.split_once('/') {
            Some((directory, _)) => (directory, json!({"path": directory, "is_dir": true})),
            None => (path, json!({"path": path, "is_dir": false, "file_size": content.len()})),
        })
        .collect();
    json!({"files": listed.into_values().chain(also.iter().cloned()).collect::<Vec<_>>()})
}

fn registry(tracking_uri: &str, env: &[(&str, &str)]) -> Registry {
    let env: Vec<(String, String)> = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let lookup = move |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let template = Template::new(TemplateSpec::default(), TaskTracker::new(), &CancellationToken::new());
    Registry::new(RegistryAddresses::read(Some(tracking_uri), &lookup).unwrap(), &lookup, template).unwrap()
}

fn version(number: u32, artifact_uri: &str) -> RegistryEntry {
    RegistryEntry {
        name: format!("a model/{number}"),
        registration: Registration { version: number.to_string().into(), provenance: Provenance::default() },
        uri: format!("models:/a model/{number}"),
        artifact_uri: artifact_uri.into(),
        own_way: false,
        is_tagged: false,
    }
}

fn open(cache: &TempDir, limit: u64) -> Artifacts {
    Artifacts::open(Some(cache.path()), limit, &|_| None)
}

/// Lists the directories in the cache, without their hashes.
fn kept(cache: &TempDir) -> Vec<String> {
    let names = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.map(|name| name.rsplit_once('-').unwrap().0.to_owned()).collect();
    names.sort();
    names
}

/// Waits until the cache has been pruned as often as a version was fetched.
async fn pruned(artifacts: &Artifacts) {
    artifacts.tasks.close();
    artifacts.tasks.wait().await;
    artifacts.tasks.reopen();
}

const FILES: [(&str, &[u8]); 4] = [
    ("1/models/m-1/artifacts/MLmodel", b"flavors: {}"),
    ("1/models/m-1/artifacts/empty", b""),
    ("1/models/m-1/artifacts/data/a b/weights", &[7; 300_000]),
    ("1/models/m-10/artifacts/MLmodel", b"flavors: {x: y}"),
];

#[tokio::test]
async fn model_is_fetched_whole_and_once() {
    let (server, cache) = (Server::start(&FILES).await, tempfile::tempdir().unwrap());
    let (artifacts, registry) = (open(&cache, 1 << 30), server.registry());
    let resolved = version(3, "mlflow-artifacts:/1/models/m-1/artifacts");
    let fetches = (0..20).map(|_| artifacts.fetch(&registry, &resolved));
    let fetched = futures_util::future::join_all(fetches).await;
    let cached = fetched.into_iter().map(Result::unwrap).next_back().unwrap();
    assert_eq!((server.downloads(), cached.bytes, kept(&cache)), (3, 300_011, vec!["a-model-3".to_owned()]));
    assert_eq!(fs::read(cached.directory.join("data/a b/weights")).unwrap(), vec![7; 300_000]);
    assert_eq!(fs::read(cached.directory.join("empty")).unwrap(), b"");
    assert_eq!(fs::read_dir(&cached.directory).unwrap().count(), 3);
    // After a restart the version is there, and so is its noted memory.
    assert_eq!(cached.remembered_memory(), None);
    cached.remember_memory(12_345);
    drop(cached);
    let cached = open(&cache, 1 << 30).fetch(&registry, &resolved).await.unwrap();
    assert_eq!((server.downloads(), cached.remembered_memory()), (3, Some(12_345)));
}

#[tokio::test]
async fn entry_is_fetched_again_when_damaged() {
    let (server, cache) = (Server::start(&FILES).await, tempfile::tempdir().unwrap());
    let (artifacts, registry) = (open(&cache, 1 << 30), server.registry());
    let resolved = version(3, "mlflow-artifacts:/1/models/m-1/artifacts");
    let damages: [fn(&Path); 4] = [
        |model| fs::write(model.join("MLmodel"), "flavors").unwrap(),
        |model| fs::remove_file(model.join("data/a b/weights")).unwrap(),
        |model| fs::remove_dir_all(model).unwrap(),
        |model| fs::write(model.with_file_name("manifest.json"), "{").unwrap(),
    ];
    for (times, damage) in damages.into_iter().enumerate() {
        damage(&artifacts.fetch(&registry, &resolved).await.unwrap().directory);
        let cached = artifacts.fetch(&registry, &resolved).await.unwrap();
        assert_eq!(fs::read(cached.directory.join("MLmodel")).unwrap(), FILES[0].1);
        assert_eq!(server.downloads(), 3 * (times + 2));
    }
    assert_eq!(kept(&cache), ["a-model-3"]);
}

#[tokio::test]
async fn caches_share_one_directory() {
    let (server, cache) = (Server::start(&FILES).await, tempfile::tempdir().unwrap());
    let (registry, resolved) = (server.registry(), version(3, "mlflow-artifacts:/1/models/m-1/artifacts"));
    for _ in 0..20 {
        let (one, other) = (open(&cache, 0), open(&cache, 0));
        let (first, second) = tokio::join!(one.fetch(&registry, &resolved), other.fetch(&registry, &resolved));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(first.directory, second.directory);
        assert!(first.directory.join("data/a b/weights").exists());
        drop((first, second));
        prune::prune(cache.path(), 0);
        pruned(&one).await;
        pruned(&other).await;
    }
    // A directory that lost the race is removed in the background.
    sweep_until_empty(&cache);
}

fn sweep_until_empty(cache: &TempDir) {
    while fs::read_dir(cache.path()).unwrap().next().is_some() {
        sweep(cache.path());
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn prune_removes_the_least_recently_used_and_spares_those_in_use() {
    let (server, cache) = (Server::start(&FILES).await, tempfile::tempdir().unwrap());
    let registry = server.registry();
    let large = "mlflow-artifacts:/1/models/m-1/artifacts";
    let artifacts = open(&cache, 700_000);
    for (number, minutes_ago) in [(1, 30), (2, 20)] {
        let cached = artifacts.fetch(&registry, &version(number, large)).await.unwrap();
        let entry = cached.directory.parent().unwrap().to_owned();
        drop(cached);
        let used = crate::message::wall_clock() - Duration::from_secs(60 * minutes_ago);
        fs::File::options().append(true).open(entry.join("manifest.json")).unwrap().set_modified(used).unwrap();
    }
    let first = artifacts.fetch(&registry, &version(1, large)).await.unwrap();
    drop(artifacts.fetch(&registry, &version(3, large)).await.unwrap());
    pruned(&artifacts).await;
    assert_eq!(kept(&cache), ["a-model-1", "a-model-3"]);
    // Another Signalbox keeps the versions that are in use here.
    prune::prune(cache.path(), 0);
    assert_eq!(kept(&cache), ["a-model-1"]);
    assert!(first.directory.join("MLmodel").exists());
    // A version that is too large by itself works as long as it is used.
    let tight = open(&cache, 1);
    let second = tight.fetch(&registry, &version(2, large)).await.unwrap();
    pruned(&tight).await;
    assert!(second.directory.join("MLmodel").exists());
    assert_eq!(kept(&cache), ["a-model-1", "a-model-2"]);
}

#[tokio::test]
async fn fetch_fails_cleanly_when_there_is_no_model() {
    let (server, cache) = (Server::start(&FILES).await, tempfile::tempdir().unwrap());
    let (artifacts, registry) = (open(&cache, 1 << 30), server.registry());
    let fault = artifacts.fetch(&registry, &version(1, "mlflow-artifacts:/1/models/m-2/artifacts")).await.unwrap_err();
    assert_eq!((fault.code, fault.retryable), (Code::ResourceDoesNotExist, false));
    assert!(fault.message.contains("1/models/m-2/artifacts") && fault.message.contains("MLmodel"), "{fault}");
    for name in ["../outside", "/etc/outside", "a\\b", "..", "sub/../../outside"] {
        *server.also_listed.lock() = vec![json!({"path": name, "is_dir": false, "file_size": 1})];
        let fault =
            artifacts.fetch(&registry, &version(1, "mlflow-artifacts:/1/models/m-1/artifacts")).await.unwrap_err();
        assert!(fault.message.contains("forbidden name"), "{fault}");
    }
    sweep_until_empty(&cache);
}

#[tokio::test]
async fn fetch_fails_when_a_size_differs_from_the_listing() {
    let (server, cache) = (Server::start(&FILES).await, tempfile::tempdir().unwrap());
    let listed = json!({"path": "MLmodel", "is_dir": false, "file_size": "16"});
    *server.also_listed.lock() = vec![listed];
    let resolved = version(1, "mlflow-artifacts:/1/models/m-10/artifacts");
    let fault = open(&cache, 1 << 30).fetch(&server.registry(), &resolved).await.unwrap_err();
    assert_eq!((fault.code, fault.retryable), (Code::TemporarilyUnavailable, true));
    assert!(fault.message.contains("has 16 bytes, of which 15 came"), "{fault}");
    sweep_until_empty(&cache);
}

#[tokio::test]
async fn credentials_go_to_the_tracking_server_alone() {
    let (server, other) = (Server::start(&FILES).await, Server::start(&FILES).await);
    let token = [("MLFLOW_TRACKING_TOKEN", "secret")];
    let host = other.address.strip_prefix("http://").unwrap();
    for (uri, asked, told) in [
        ("mlflow-artifacts:/1/models/m-1/artifacts".to_owned(), &server, true),
        (format!("{}/api/2.0/mlflow-artifacts/artifacts/1/models/m-1/artifacts", server.address), &server, true),
        (format!("mlflow-artifacts://{host}/1/models/m-1/artifacts"), &other, false),
        (format!("{}/api/2.0/mlflow-artifacts/artifacts/1/models/m-1/artifacts", other.address), &other, false),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let registry = registry(&server.address, &token);
        open(&cache, 1 << 30).fetch(&registry, &version(1, &uri)).await.unwrap();
        let seen = std::mem::take(&mut *asked.authorizations.lock());
        assert!(!seen.is_empty() && seen.iter().all(|value| (value == "Bearer secret") == told), "{uri}: {seen:?}");
    }
}

#[tokio::test]
async fn fault_names_the_key_when_the_cache_is_not_writable() {
    let (server, cache) = (Server::start(&FILES).await, tempfile::tempdir().unwrap());
    let file = cache.path().join("file");
    fs::write(&file, "").unwrap();
    let resolved = version(1, "mlflow-artifacts:/1/models/m-1/artifacts");
    let artifacts = Artifacts::open(Some(&file.join("below")), 1, &|_| None);
    let fault = artifacts.fetch(&server.registry(), &resolved).await.unwrap_err();
    assert_eq!((fault.code, fault.retryable), (Code::TemporarilyUnavailable, true));
    assert!(fault.message.contains(file.to_str().unwrap()), "{fault}");
    assert!(fault.message.contains("models.cache.directory"), "{fault}");
    let nowhere = Artifacts::open(None, 1, &|_| None).fetch(&server.registry(), &resolved).await.unwrap_err();
    assert!(nowhere.message.contains("models.cache.directory"), "{nowhere}");
}

#[test]
fn default_directory_is_the_users_cache() {
    let env = |known: &[(&str, &str)]| {
        let known: Vec<_> = known.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        usual_directory(&|name| known.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
    };
    let (cache, home) = (("XDG_CACHE_HOME", "/c"), ("HOME", "/h"));
    assert_eq!(env(&[cache, home]), Some("/c/signalbox/models".into()));
    assert_eq!(env(&[("XDG_CACHE_HOME", "relative"), home]), Some("/h/.cache/signalbox/models".into()));
    assert_eq!(env(&[("HOME", "")]), None);
}

#[tokio::test]
async fn cache_directory_is_private() {
    let (server, parent) = (Server::start(&FILES).await, tempfile::tempdir().unwrap());
    let cache = parent.path().join("signalbox/models");
    let artifacts = Artifacts::open(Some(&cache), 1 << 30, &|_| None);
    artifacts.fetch(&server.registry(), &version(1, "mlflow-artifacts:/1/models/m-10/artifacts")).await.unwrap();
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn partial_directory_is_removed_when_dropped() {
    let cache = tempfile::tempdir().unwrap();
    let partial = Partial::create(cache.path()).unwrap();
    fs::create_dir(partial.path().join("model")).unwrap();
    sweep(cache.path());
    assert!(partial.path().exists(), "it is in use");
    drop(partial);
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
}

/// The process that is killed runs this test alone.
#[test]
fn partial_entry_is_swept_after_a_kill() {
    const CACHE: &str = "SIGNALBOX_TEST_CACHE";
    if let Some(cache) = crate::config::environment(CACHE) {
        let partial = Partial::create(Path::new(&cache)).unwrap();
        fs::create_dir(partial.path().join("model")).unwrap();
        fs::write(partial.path().join("model/MLmodel"), "half").unwrap();
        fs::write(Path::new(&cache).join("ready"), "").unwrap();
        loop {
            std::thread::park();
        }
    }
    let cache = tempfile::tempdir().unwrap();
    let test = "models::artifacts::tests::partial_entry_is_swept_after_a_kill";
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(CACHE, cache.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !cache.path().join("ready").exists() {
        assert!(process.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    fs::remove_file(cache.path().join("ready")).unwrap();
    let artifacts = open(&cache, 0);
    prune::prune(cache.path(), 0);
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1, "it is still being filled");
    process.kill().unwrap();
    process.wait().unwrap();
    drop(artifacts);
    open(&cache, 0);
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
}

mod mlflow; // the same with MLflow itself, in each of its forms
