//! The operators' pages for models, evaluators and canaries: `/models`, `/evaluators` and `/canaries`.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use uuid::Uuid;

use super::answer;
use super::status::JSON;
use crate::canary::{Canaries, CanaryReport, OperatorAction};
use crate::evaluators::Evaluators;
use crate::message::{Code, Fault, Stage};
use crate::models::Models;

/// Serialises the answer to `GET /canaries`.
#[derive(Serialize)]
struct CanariesPage {
    canaries: Vec<CanaryReport>,
}

/// Serves `GET /models`, `POST /models/{id}/load` and `POST /models/{id}/unload`. An id such as `sentiment/3` holds a
/// slash of its own.
pub fn model_routes(models: Models) -> Router {
    Router::new()
        .route("/models", get(report_models))
        .route("/models/{*id_and_verb}", post(change_model))
        .with_state(models)
}

/// Serves `GET /canaries`, `POST /canaries/{endpoint}/{route}/restart` and `POST /canaries/{endpoint}/{route}/abort`.
pub fn canary_routes(canaries: Canaries) -> Router {
    Router::new()
        .route("/canaries", get(report_canaries))
        .route("/canaries/{endpoint}/{*route_and_verb}", post(change_canary))
        .with_state(canaries)
}

/// Serves `GET /evaluators`.
pub fn evaluator_routes(evaluators: Evaluators) -> Router {
    Router::new().route("/evaluators", get(report_evaluators)).with_state(evaluators)
}

async fn report_evaluators(State(evaluators): State<Evaluators>) -> Response {
    match serde_json::to_vec_pretty(&evaluators.report()) {
        Ok(body) => (JSON, body).into_response(),
        Err(error) => refuse(&Fault::permanent(Code::InternalError, Stage::Route, error.to_string())),
    }
}

async fn report_canaries(State(canaries): State<Canaries>) -> Response {
    page(&CanariesPage { canaries: canaries.report() }, Stage::Route)
}

/// Answers at once; the canary moves in each instance when that has read the new state.
async fn change_canary(
    State(canaries): State<Canaries>,
    Path((endpoint, route_and_verb)): Path<(String, String)>,
) -> Response {
    // A route's alias may hold slashes, so the verb is what follows the last one.
    let action = match route_and_verb.rsplit_once('/') {
        Some((route, "restart")) => Some((route, OperatorAction::Restart)),
        Some((route, "abort")) => Some((route, OperatorAction::Abort)),
        _ => None,
    };
    let Some((route, action)) = action else {
        let message = "POST /canaries/{endpoint}/{route}/restart or POST /canaries/{endpoint}/{route}/abort; GET \
                       /canaries lists them";
        return refuse(&Fault::permanent(Code::ResourceDoesNotExist, Stage::Route, message));
    };
    if !canaries.act(&endpoint, route, action) {
        let message =
            format!("there is no canary `{route}` of endpoint `{endpoint}` of which it is known where it stands");
        return refuse(&Fault::permanent(Code::ResourceDoesNotExist, Stage::Route, message));
    }
    report_canaries(State(canaries)).await
}

async fn report_models(State(models): State<Models>) -> Response {
    page(&models.report(), Stage::Load)
}

/// Loads or unloads a model, and answers as `GET /models` does: after a load has ended, but at once for an unload,
/// which waits for calls under way.
async fn change_model(State(models): State<Models>, Path(id_and_verb): Path<String>) -> Response {
    let result = match id_and_verb.rsplit_once('/') {
        Some((id, "load")) => models.load(id).await,
        Some((id, "unload")) => models.unload(id),
        _ => {
            let message = "POST /models/{id}/load or POST /models/{id}/unload; GET /models lists the ids";
            Err(Fault::permanent(Code::ResourceDoesNotExist, Stage::Load, message))
        }
    };
    match result {
        Ok(()) => report_models(State(models)).await,
        Err(fault) => refuse(&fault),
    }
}

fn page(report: &impl Serialize, stage: Stage) -> Response {
    match serde_json::to_vec_pretty(report) {
        Ok(body) => (JSON, body).into_response(),
        Err(error) => refuse(&Fault::permanent(Code::InternalError, stage, error.to_string())),
    }
}

fn refuse(fault: &Fault) -> Response {
    answer::of_fault(Uuid::new_v4(), None, fault)
}
