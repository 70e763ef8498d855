use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::Response as Answer;
use axum::routing::any;
use proptest::prelude::*;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::models::host::TemplateSpec;

/// Serves a registry that answers every call by `answer`, given the path and query asked for and the `authorization`
/// header.
async fn answering(answer: fn(&str, Option<&str>) -> (u16, &'static str)) -> String {
    let handler = move |request: Request| async move {
        let authorization = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let (status, body) = answer(request.uri().path_and_query().map_or("", |asked| asked.as_str()), authorization);
        Answer::builder().status(status).body(Body::from(body)).unwrap()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(any(handler))).await });
    format!("http://{address}/")
}

fn registry(tracking_uri: &str, env: &[(&str, &str)]) -> Registry {
    let env: Vec<(String, String)> = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let lookup = move |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let template = Template::new(TemplateSpec::default(), TaskTracker::new(), &CancellationToken::new());
    Registry::new(RegistryAddresses::read(Some(tracking_uri), &lookup).unwrap(), &lookup, template).unwrap()
}

fn target(name: &str, pick: VersionPick) -> ModelTarget {
    ModelTarget::Registered { name: name.to_owned(), pick }
}

async fn resolve(
    pick: VersionPick,
    answer: fn(&str, Option<&str>) -> (u16, &'static str),
) -> Result<RegistryEntry, Fault> {
    registry(&answering(answer).await, &[]).resolve(&target("my model", pick)).await
}

const DOWNLOAD_URI: (u16, &str) = (200, r#"{"artifact_uri": "mlflow-artifacts:/1/models/m-1/artifacts"}"#);

fn resolved(version: &str) -> Result<RegistryEntry, Fault> {
    Ok(RegistryEntry {
        name: format!("my model/{version}"),
        registration: Registration { version: version.into(), provenance: Provenance::default() },
        uri: format!("models:/my model/{version}"),
        artifact_uri: "mlflow-artifacts:/1/models/m-1/artifacts".into(),
        own_way: false,
        is_tagged: false,
    })
}

#[tokio::test]
async fn stage_resolves_to_its_highest_version() {
    let found = resolve(VersionPick::Stage("Production"), |asked, _| {
        if asked == "/api/2.0/mlflow/model-versions/get-download-uri?name=my+model&version=10" {
            return DOWNLOAD_URI;
        }
        assert_eq!(asked, "/api/2.0/mlflow/registered-models/get-latest-versions?name=my+model&stages=Production");
        let body = r#"{"model_versions":[{"name":"my model","version":"9","creation_timestamp":1795338311828,"status":"READY"},
            {"version":"10","creation_timestamp":1795338311829,"source":"models:/m-1","run_id":"","status":"READY"},
            {"version":"2"}]}"#;
        (200, body)
    });
    let mut expected = resolved("10").unwrap();
    let (source, created) = (Some("models:/m-1".to_owned()), Some(1_795_338_311_829));
    expected.registration.provenance = Provenance { source, run_id: None, created };
    assert_eq!(found.await, Ok(expected));
}

#[tokio::test]
async fn latest_resolves_over_every_stage() {
    let found = resolve(VersionPick::Latest, |asked, _| {
        if asked.contains("get-download-uri") {
            return DOWNLOAD_URI;
        }
        assert_eq!(asked, "/api/2.0/mlflow/registered-models/get-latest-versions?name=my+model");
        (
            200,
            r#"{"model_versions":[{"version":"3","current_stage":"None"},{"version":"1","current_stage":"Production"}]}"#,
        )
    });
    assert_eq!(found.await, resolved("3"));
}

#[tokio::test]
async fn version_and_alias_resolve_by_lookup() {
    let version = resolve(VersionPick::Version(7), |asked, _| {
        if asked == "/api/2.0/mlflow/model-versions/get-download-uri?name=my+model&version=7" {
            return DOWNLOAD_URI;
        }
        assert_eq!(asked, "/api/2.0/mlflow/model-versions/get?name=my+model&version=7");
        (
            200,
            r#"{"model_version":{"version":"7","status":"READY","aliases":["champion"],"tags":[{"key":"a","value":"b"},{"key":"c"}]}}"#,
        )
    });
    assert_eq!(version.await, resolved("7"));
    let alias = resolve(VersionPick::Alias("Champion".into()), |asked, _| {
        if asked.contains("get-download-uri") {
            return DOWNLOAD_URI;
        }
        assert_eq!(asked, "/api/2.0/mlflow/registered-models/alias?name=my+model&alias=Champion");
        (200, r#"{"model_version":{"version":"4","tags":[{"key":"signalbox.batch","value":"rows"}]}}"#)
    });
    assert_eq!(alias.await, resolved("4").map(|resolved| RegistryEntry { is_tagged: true, ..resolved }));
}

#[tokio::test]
async fn logged_model_resolves_to_its_id() {
    let address = answering(|asked, _| {
        assert_eq!(asked, "/api/2.0/mlflow/logged-models/m-1");
        (
            200,
            r#"{"model":{"info":{"model_id":"m-1","status":"LOGGED_MODEL_READY","tags":[],"artifact_uri":"s3://b/m-1"},"data":{}}}"#,
        )
    });
    let found = registry(&address.await, &[]).resolve(&ModelTarget::Logged { model_id: "m-1".into() }).await;
    let found = found.unwrap();
    assert_eq!((&*found.name, &*found.registration.version, &*found.uri), ("m-1", "m-1", "models:/m-1"));
    assert_eq!(found.artifact_uri, "s3://b/m-1");
}

#[tokio::test]
async fn resolve_fails_permanently_when_nothing_is_there() {
    let stage = resolve(VersionPick::Stage("Staging"), |_, _| (200, "{}")).await.unwrap_err();
    assert!(stage.message.contains("no version in stage Staging"), "{stage}");
    let alias = resolve(VersionPick::Alias("nope".into()), |_, _| {
        (400, r#"{"error_code": "INVALID_PARAMETER_VALUE", "message": "Registered model alias nope not found."}"#)
    });
    let alias = alias.await.unwrap_err();
    assert_eq!(alias.message, "models:/my model@nope: Registered model alias nope not found.");
    let model = resolve(VersionPick::Latest, |_, _| {
        (404, r#"{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Registered Model with name=nope not found"}"#)
    });
    let model = model.await.unwrap_err();
    let failed = resolve(VersionPick::Version(1), |_, _| {
        (200, r#"{"model_version":{"version":"1","status":"FAILED_REGISTRATION"}}"#)
    });
    let failed = failed.await.unwrap_err();
    for fault in [stage, alias, model, failed] {
        assert_eq!(
            (fault.code, fault.stage, fault.retryable),
            (Code::ResourceDoesNotExist, Stage::Load, false),
            "{fault}"
        );
    }
}

#[tokio::test]
async fn resolve_fails_retryably_when_the_registry_may_recover() {
    let pending = resolve(VersionPick::Version(1), |_, _| {
        (200, r#"{"model_version":{"version":"1","status":"PENDING_REGISTRATION"}}"#)
    });
    for (fault, says) in [
        (pending.await, "not ready (PENDING_REGISTRATION)"),
        (resolve(VersionPick::Latest, |_, _| (401, "You are not authenticated")).await, "MLFLOW_TRACKING_USERNAME"),
        (
            resolve(VersionPick::Latest, |_, _| (403, "Invalid Host header - possible DNS rebinding")).await,
            "Invalid Host header",
        ),
        (resolve(VersionPick::Latest, |_, _| (404, "<!doctype html>")).await, "no MLflow tracking server"),
        (resolve(VersionPick::Latest, |_, _| (200, "hello")).await, "no MLflow tracking server"),
        (resolve(VersionPick::Latest, |_, _| (500, "<html>")).await, "failed (500"),
    ] {
        let fault = fault.unwrap_err();
        assert_eq!((fault.code, fault.retryable), (Code::TemporarilyUnavailable, true), "{fault}");
        assert!(fault.message.contains(says), "{fault}");
    }
}

#[tokio::test]
async fn unreachable_registry_fault_names_the_setting() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let registry = registry(&format!("http://ann:secret@{address}"), &[]);
    let fault = registry.resolve(&target("a", VersionPick::Latest)).await.unwrap_err();
    assert_eq!((fault.code, fault.stage, fault.retryable), (Code::TemporarilyUnavailable, Stage::Load, true));
    assert!(fault.message.contains(&address.to_string()) && fault.message.contains("refused"), "{fault}");
    assert!(!fault.message.contains("secret") && fault.message.contains("registry.tracking_uri"), "{fault}");
}

#[tokio::test]
async fn username_wins_when_a_token_is_set_too() {
    let address = answering(|asked, authorization| match authorization {
        Some(_) if asked.contains("get-download-uri") => DOWNLOAD_URI,
        Some("Basic YW5uOnB3") => (200, r#"{"model_version":{"version":"1"}}"#),
        Some("Bearer t") => (200, r#"{"model_version":{"version":"2"}}"#),
        _ => (401, ""),
    });
    let address = address.await;
    let username = ("MLFLOW_TRACKING_USERNAME", "ann");
    let password = ("MLFLOW_TRACKING_PASSWORD", "pw");
    let token = ("MLFLOW_TRACKING_TOKEN", "t");
    for (env, version) in [(&[username, password, token][..], Some("1")), (&[token], Some("2")), (&[], None)] {
        let registry = registry(&address, env);
        assert!(!format!("{registry:?}").contains("pw"));
        let found = registry.resolve(&target("a", VersionPick::Version(1))).await.ok();
        assert_eq!(found.as_ref().map(|found| &*found.registration.version), version);
    }
}

#[tokio::test]
async fn registry_uri_separates_the_registry_from_logged_models() {
    let tracking = answering(|asked, _| {
        assert_eq!(asked, "/api/2.0/mlflow/logged-models/m-1%2F..");
        (200, r#"{"model":{"info":{"artifact_uri":"mlflow-artifacts:/a"}}}"#)
    });
    let models = answering(|asked, _| {
        assert_eq!(asked, "/api/2.0/mlflow/registered-models/get?name=a");
        (200, r#"{"registered_model":{"name":"a"}}"#)
    });
    let (tracking, models) = tokio::join!(tracking, models);
    let registry = registry(&tracking, &[("MLFLOW_REGISTRY_URI", &models)]);
    registry.resolve(&ModelTarget::Logged { model_id: "m-1/..".into() }).await.unwrap();
    let snapshot = registry.current("a", &[VersionPick::Latest].into()).await.unwrap();
    assert_eq!(snapshot.get(&VersionPick::Latest), None);
    assert!(registry.identity().starts_with(models.trim_end_matches('/')));
}

/// Model as MLflow keeps it: each version with its stage and provenance, and the version behind each alias.
#[derive(Debug, Clone, Default)]
struct World {
    versions: BTreeMap<u64, (&'static str, Made)>,
    aliases: BTreeMap<String, u64>,
}

/// Source, run, and time of registration of a version.
type Made = (Option<char>, Option<char>, u64);

impl World {
    fn shown(&self, version: u64) -> serde_json::Value {
        let (stage, (source, run_id, created)) = &self.versions[&version];
        let mut shown = json!({"version": version.to_string(), "current_stage": stage, "creation_timestamp": created});
        for (key, value) in [("source", source), ("run_id", run_id)] {
            if let Some(value) = value {
                shown[key] = json!(value.to_string());
            }
        }
        shown
    }

    /// Lists versions as MLflow 3.17 answers; the highest of each stage, in no order that could be relied on.
    fn latest(&self, stage: Option<&str>) -> Vec<serde_json::Value> {
        let mut highest = HashMap::new();
        for (version, (of, _)) in &self.versions {
            if stage.is_none_or(|stage| stage.eq_ignore_ascii_case(of)) {
                highest.insert(*of, *version);
            }
        }
        highest.into_values().map(|version| self.shown(version)).collect()
    }

    fn answer(&self, path: &str, query: &HashMap<String, String>) -> (u16, serde_json::Value) {
        let missing = |code: &str| json!({"error_code": code, "message": "not found"});
        match path.trim_start_matches("/api/2.0/mlflow/") {
            "model-versions/get-download-uri" => (200, json!({"artifact_uri": "s3://bucket"})),
            "model-versions/get" => match query["version"].parse() {
                Ok(version) if self.versions.contains_key(&version) => {
                    (200, json!({"model_version": self.shown(version)}))
                }
                _ => (404, missing("RESOURCE_DOES_NOT_EXIST")),
            },
            "registered-models/get-latest-versions" => match self.latest(query.get("stages").map(String::as_str)) {
                versions if versions.is_empty() => (200, json!({})),
                versions => (200, json!({"model_versions": versions})),
            },
            "registered-models/alias" => match self.aliases.get(&query["alias"]) {
                Some(version) => (200, json!({"model_version": self.shown(*version)})),
                None => (400, missing("INVALID_PARAMETER_VALUE")),
            },
            "registered-models/get" => {
                let aliases = self.aliases.iter();
                let aliases: Vec<_> =
                    aliases.map(|(alias, version)| json!({"alias": alias, "version": version.to_string()})).collect();
                let mut model = json!({"name": "a"});
                for (key, values) in [("latest_versions", self.latest(None)), ("aliases", aliases)] {
                    if !values.is_empty() {
                        model[key] = values.into();
                    }
                }
                (200, json!({"registered_model": model}))
            }
            _ => (404, json!({})),
        }
    }
}

fn worlds() -> impl Strategy<Value = World> {
    let stage = prop_oneof![Just("None"), Just("Staging"), Just("Production"), Just("Archived")];
    let text = || proptest::option::of(proptest::sample::select(vec!['a', 'b']));
    let versions = proptest::collection::btree_map(1..30u64, (stage, (text(), text(), 1..3u64)), 0..8);
    versions.prop_flat_map(|versions| {
        let known: Vec<u64> = versions.keys().copied().collect();
        let version = if known.is_empty() { Just(0).boxed() } else { proptest::sample::select(known).boxed() };
        let aliases = proptest::collection::btree_map("[aA]b?", version, 0..3);
        aliases.prop_map(move |mut aliases| {
            aliases.retain(|_, version| *version > 0);
            World { versions: versions.clone(), aliases }
        })
    })
}

#[test]
fn picked_versions_equal_resolved_ones() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = Arc::new(Mutex::new(World::default()));
    let served = Arc::clone(&world);
    let handler = move |axum::extract::Query(query): axum::extract::Query<HashMap<String, String>>,
                        uri: axum::http::Uri| async move {
        let (status, body) = served.lock().answer(uri.path(), &query);
        Answer::builder().status(status).body(Body::from(body.to_string())).unwrap()
    };
    let address = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(any(handler))).await });
        address
    });
    let registry = registry(&format!("http://{address}"), &[]);
    let aliases = ["a", "A", "ab", "nope"].map(|alias| VersionPick::Alias(alias.into()));
    let stages = ["None", "Staging", "Production", "Archived"].map(VersionPick::Stage);
    let named = [1, 2, 3, 99].map(VersionPick::Version);
    let picks: HashSet<VersionPick> =
        [VersionPick::Latest].into_iter().chain(aliases).chain(stages).chain(named).collect();
    proptest!(ProptestConfig::with_cases(64), |(now in worlds())| {
        *world.lock() = now;
        runtime.block_on(async {
            let snapshot = registry.current("a", &picks).await.unwrap();
            for pick in &picks {
                let resolved = registry.resolve(&target("a", pick.clone())).await.ok().map(|found| found.registration);
                prop_assert_eq!(snapshot.get(pick), resolved.as_ref(), "{:?}", pick);
            }
            Ok(())
        })?;
    });
}
