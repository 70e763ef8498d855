//! The evaluators of a trial: they evaluate what a configuration leaves to Python, apart from a Signalbox that serves.

use std::sync::Arc;
use std::time::Duration;

use super::Evaluators;
use crate::config::{self, Config};
use crate::message::Request;
use crate::models::Models;
use crate::routing::{Answers, ConditionError, Question};
use crate::telemetry::{Metrics, Readiness};

/// Time of an evaluation at least: a machine on which a configuration is checked may be slower than the one that serves.
const LEAST_TIMEOUT: Duration = Duration::from_secs(2);

/// Has Python evaluate each question for its request, in processes that end with this call.
///
/// # Errors
/// Fails when no process can be started, with the reason.
pub fn try_out(config: &Config, asked: &[(Arc<Question>, Arc<Request>)]) -> Result<Vec<Arc<Answers>>, String> {
    // A thread of its own may block, whoever calls.
    let trial = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| error.to_string())?.block_on(answers(config, asked))
    };
    std::thread::scope(|scope| scope.spawn(trial).join().unwrap_or_else(|_| Err("the trial was lost".to_owned())))
}

async fn answers(config: &Config, asked: &[(Arc<Question>, Arc<Request>)]) -> Result<Vec<Arc<Answers>>, String> {
    let (metrics, readiness) = (Metrics::new().map_err(|error| error.to_string())?, Readiness::default());
    // Nothing is loaded, so the template needs none of the libraries of models.
    let models = config::Models {
        python: config.models.python.clone(),
        template: config::Template { libraries: Vec::new(), exclude: Vec::new() },
        ..config::Models::default()
    };
    let models = Models::start(&models, &config.registry, &metrics).map_err(|error| error.to_string())?;
    let timeout = config.conditions.timeout.max(LEAST_TIMEOUT);
    let conditions = config::Conditions { evaluators: 1, timeout, ..config.conditions.clone() };
    let evaluators = Evaluators::start(&conditions, &models, &config.models.python, &metrics, &readiness);
    let mut said = Vec::with_capacity(asked.len());
    for (question, request) in asked {
        let answers = evaluators.ask(question, request).await;
        if answers.iter().any(|answer| matches!(answer, Err(ConditionError::Unavailable(_)))) {
            break;
        }
        said.push(Arc::new(answers));
    }
    let reason = readiness.report().into_values().flatten().next();
    evaluators.shutdown().await;
    models.shutdown().await;
    if said.len() < asked.len() { Err(reason.unwrap_or_else(|| "Python does not start".to_owned())) } else { Ok(said) }
}
