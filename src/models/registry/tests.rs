use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::Response as Answer;
use axum::routing::any;
use tokio::net::TcpListener;

use super::*;

/// A registry that answers every call by `answer`, given the path and query asked for and the `authorization` header.
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

fn registry(tracking_uri: &str, env: &[(&str, &str)]) -> Result<Registry, RegistryError> {
    let env: Vec<(String, String)> = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let lookup = move |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    Registry::new(Some(tracking_uri), &lookup)
}

async fn resolve(pick: Pick, answer: fn(&str, Option<&str>) -> (u16, &'static str)) -> Result<Resolved, Fault> {
    registry(&answering(answer).await, &[]).unwrap().resolve("my model", &pick).await
}

fn resolved(version: &str) -> Result<Resolved, Fault> {
    Ok(Resolved { version: version.into(), uri: format!("models:/my model/{version}") })
}

#[tokio::test]
async fn the_highest_version_of_a_stage_counts() {
    let found = resolve(Pick::Stage("Production"), |asked, _| {
        assert_eq!(asked, "/api/2.0/mlflow/registered-models/get-latest-versions?name=my+model&stages=Production");
        let body = r#"{"model_versions":[{"name":"my model","version":"9","creation_timestamp":1795338311828,"status":"READY"},
            {"version":"10","status":"READY"},{"version":"2"}]}"#;
        (200, body)
    });
    assert_eq!(found.await, resolved("10"));
}

#[tokio::test]
async fn latest_asks_for_every_stage() {
    let found = resolve(Pick::Latest, |asked, _| {
        assert_eq!(asked, "/api/2.0/mlflow/registered-models/get-latest-versions?name=my+model");
        (
            200,
            r#"{"model_versions":[{"version":"3","current_stage":"None"},{"version":"1","current_stage":"Production"}]}"#,
        )
    });
    assert_eq!(found.await, resolved("3"));
}

#[tokio::test]
async fn versions_and_aliases_are_looked_up() {
    let version = resolve(Pick::Version(7), |asked, _| {
        assert_eq!(asked, "/api/2.0/mlflow/model-versions/get?name=my+model&version=7");
        (200, r#"{"model_version":{"version":"7","status":"READY","aliases":["champion"]}}"#)
    });
    assert_eq!(version.await, resolved("7"));
    let alias = resolve(Pick::Alias("Champion".into()), |asked, _| {
        assert_eq!(asked, "/api/2.0/mlflow/registered-models/alias?name=my+model&alias=Champion");
        (200, r#"{"model_version":{"version":"4"}}"#)
    });
    assert_eq!(alias.await, resolved("4"));
}

#[tokio::test]
async fn a_logged_model_is_its_own_version() {
    let address = answering(|asked, _| {
        assert_eq!(asked, "/api/2.0/mlflow/logged-models/m-1");
        (200, r#"{"model":{"info":{"model_id":"m-1","status":"LOGGED_MODEL_READY","tags":[]},"data":{}}}"#)
    });
    let found = registry(&address.await, &[]).unwrap().resolve_logged("m-1").await.unwrap();
    assert_eq!((&*found.version, found.uri.as_str()), ("m-1", "models:/m-1"));
}

#[tokio::test]
async fn what_is_not_there_is_a_404() {
    let stage = resolve(Pick::Stage("Staging"), |_, _| (200, "{}")).await.unwrap_err();
    assert!(stage.message.contains("no version in stage Staging"), "{stage}");
    let alias = resolve(Pick::Alias("nope".into()), |_, _| {
        (400, r#"{"error_code": "INVALID_PARAMETER_VALUE", "message": "Registered model alias nope not found."}"#)
    });
    let alias = alias.await.unwrap_err();
    assert!(alias.message.contains("alias nope not found"), "{alias}");
    let model = resolve(Pick::Latest, |_, _| {
        (404, r#"{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Registered Model with name=nope not found"}"#)
    });
    let model = model.await.unwrap_err();
    let failed =
        resolve(Pick::Version(1), |_, _| (200, r#"{"model_version":{"version":"1","status":"FAILED_REGISTRATION"}}"#));
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
async fn what_may_come_right_is_a_503() {
    let pending =
        resolve(Pick::Version(1), |_, _| (200, r#"{"model_version":{"version":"1","status":"PENDING_REGISTRATION"}}"#));
    for (fault, says) in [
        (pending.await, "not ready (PENDING_REGISTRATION)"),
        (resolve(Pick::Latest, |_, _| (401, "You are not authenticated")).await, "MLFLOW_TRACKING_USERNAME"),
        (
            resolve(Pick::Latest, |_, _| (403, "Invalid Host header - possible DNS rebinding")).await,
            "Invalid Host header",
        ),
        (resolve(Pick::Latest, |_, _| (404, "<!doctype html>")).await, "no MLflow tracking server"),
        (resolve(Pick::Latest, |_, _| (200, "hello")).await, "no MLflow tracking server"),
        (resolve(Pick::Latest, |_, _| (500, "<html>")).await, "failed (500"),
    ] {
        let fault = fault.unwrap_err();
        assert_eq!((fault.code, fault.retryable), (Code::TemporarilyUnavailable, true), "{fault}");
        assert!(fault.message.contains(says), "{fault}");
    }
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_a_503_that_says_what_to_check() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let registry = registry(&format!("http://ann:secret@{address}"), &[]).unwrap();
    let fault = registry.resolve("a", &Pick::Latest).await.unwrap_err();
    assert_eq!((fault.code, fault.stage, fault.retryable), (Code::TemporarilyUnavailable, Stage::Load, true));
    assert!(fault.message.contains(&address.to_string()) && fault.message.contains("refused"), "{fault}");
    assert!(!fault.message.contains("secret") && fault.message.contains("registry.tracking_uri"), "{fault}");
}

#[tokio::test]
async fn a_username_wins_over_a_token() {
    let address = answering(|_, authorization| match authorization {
        Some("Basic YW5uOnB3") => (200, r#"{"model_version":{"version":"1"}}"#),
        Some("Bearer t") => (200, r#"{"model_version":{"version":"2"}}"#),
        _ => (401, ""),
    });
    let address = address.await;
    let username = ("MLFLOW_TRACKING_USERNAME", "ann");
    let password = ("MLFLOW_TRACKING_PASSWORD", "pw");
    let token = ("MLFLOW_TRACKING_TOKEN", "t");
    for (env, version) in [(&[username, password, token][..], Some("1")), (&[token], Some("2")), (&[], None)] {
        let registry = registry(&address, env).unwrap();
        assert!(!format!("{registry:?}").contains("pw"));
        let found = registry.resolve("a", &Pick::Version(1)).await.ok();
        assert_eq!(found.as_ref().map(|found| &*found.version), version);
    }
}

#[test]
fn only_addresses_of_tracking_servers_will_do() {
    for text in ["sqlite:///mlflow.db", "file:///mlruns", "mlruns", "databricks", "postgresql://ann:secret@h/db"] {
        let error = registry(text, &[]).unwrap_err().to_string();
        assert!(error.contains("registry.tracking_uri") && error.contains("mlflow server"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    assert!(matches!(registry("http://", &[]), Err(RegistryError::NotAnAddress(..))));
    let from_env =
        Registry::new(None, &|name| (name == "MLFLOW_TRACKING_URI").then(|| "sqlite://".into())).unwrap_err();
    assert!(from_env.to_string().contains("MLFLOW_TRACKING_URI"), "{from_env}");
    assert_eq!(Registry::new(None, &|_| None).unwrap().tracking_uri(), "http://127.0.0.1:5001");
}
