//! Covers models of a real MLflow, which are found in its registry, loaded, and called.

use std::time::Duration;

use bytes::Bytes;
use signalbox::config;
use signalbox::invocation::Call;
use signalbox::message::{Code, Deadline, Fault, Headers, Reply, Stage};
use signalbox::models::{HandleOptions, Lease, ModelHandle, ModelUri, Models};
use signalbox::telemetry::Metrics;

use crate::support::{Mlflow, fresh_directory};

const ROWS: &str =
    r#"{"dataframe_split": {"columns": ["text"], "data": [["what a wonderful day"], ["terrible food"]]}}"#;

fn real_models() -> Models {
    let python = Mlflow::python().to_string_lossy().into_owned();
    let tracking_uri = Some(Mlflow::shared().tracking_uri());
    let cache = config::Cache { directory: Some(fresh_directory("cache")), ..Default::default() };
    let config = config::Models { python, cache, ..Default::default() };
    let registry = config::Registry { tracking_uri, ..Default::default() };
    Models::start(&config, &registry, &Metrics::new().unwrap()).unwrap()
}

async fn invoke(lease: &mut Lease, payload: &'static str) -> Result<Reply, Fault> {
    let headers = Headers::default();
    let payload = Bytes::from_static(payload.as_bytes());
    let timeout = Duration::from_secs(30);
    let call = Call { content_type: "application/json", payload, headers: &headers, timeout };
    lease.invoke(&call).await.map_err(|failure| failure.fault)
}

fn handle(models: &Models, uri: &str) -> ModelHandle {
    models.handle(&ModelUri::parse(uri).unwrap(), HandleOptions::default())
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn stage_and_alias_resolve_to_models_that_answer() {
    let models = real_models();
    let by_stage = handle(&models, "models:/sentiment-model-fast/production");
    let by_alias = handle(&models, "models:/sentiment-model-accurate@champion");
    let (mut by_stage, mut by_alias) =
        tokio::try_join!(by_stage.lease(Deadline::NONE), by_alias.lease(Deadline::NONE)).unwrap();
    for lease in [&mut by_stage, &mut by_alias] {
        assert!(lease.version().parse::<u32>().is_ok());
        let reply = invoke(lease, ROWS).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(
            (reply.content_type.as_str(), body["predictions"].as_array().unwrap().len()),
            ("application/json", 2)
        );
    }
    let fault =
        invoke(&mut by_stage, r#"{"dataframe_split": {"columns": ["nope"], "data": [["x"]]}}"#).await.unwrap_err();
    assert_eq!(fault.code, Code::BadRequest);
    assert!(fault.message.contains("missing inputs ['text']"), "{fault}");
    models.shutdown().await;
    assert!(invoke(&mut by_stage, ROWS).await.is_err());
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn fault_distinguishes_model_error_from_refused_payload() {
    let models = real_models();
    let mut lease = handle(&models, "models:/raises-model/1").lease(Deadline::NONE).await.unwrap();
    let fault = invoke(&mut lease, ROWS).await.unwrap_err();
    assert_eq!((fault.code, fault.retryable), (Code::ModelError, false), "{fault}");
    assert!(!fault.message.contains("Traceback") && fault.message.contains("raised"), "{fault}");
    models.shutdown().await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn missing_model_is_a_404() {
    let models = real_models();
    for (uri, says) in [
        ("models:/nope/Production", "Registered Model with name=nope not found"),
        ("models:/nope/latest", "Registered Model with name=nope not found"),
        ("models:/sentiment-model-fast/Archived", "no version in stage Archived"),
        ("models:/sentiment-model-fast@nope", "alias nope not found"),
        ("models:/sentiment-model-fast/99", "version=99) not found"),
        ("models:/m-00000000000000000000000000000000", "not found"),
    ] {
        let fault = handle(&models, uri).lease(Deadline::NONE).await.unwrap_err();
        assert_eq!(
            (fault.code, fault.stage, fault.retryable),
            (Code::ResourceDoesNotExist, Stage::Load, false),
            "{fault}"
        );
        assert!(fault.message.contains(says), "{fault}");
    }
}
