//! Explanation of a decision by the routes at work, for operators.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::Pipeline;
use crate::message::{Request, header};
use crate::routing::{Answers, Endpoint, Explanation, Question};

impl Pipeline {
    /// Decides on a request as `signalbox route` does, and explains the decision. No model and no decision service is
    /// called.
    pub async fn explain(&self, request: &Arc<Request>) -> Explanation {
        let snapshot = self.shared.snapshot.load_full();
        let endpoint = match snapshot.table.endpoint(request) {
            Ok(endpoint) => endpoint,
            Err(fault) => {
                return Explanation::of_fault(request.headers.text(header::ENDPOINT).unwrap_or("").into(), &fault);
            }
        };
        let answers = self.answers(endpoint.question(), request).await;
        let mut explanation = endpoint.explain(request, answers.as_ref());
        // Parts are compiled anew, which blocks for a moment.
        let (compiling, index) = (Arc::clone(&snapshot), endpoint.index);
        let parts = spawn_blocking(move || compiling.table.at(index).map(Endpoint::parts));
        let parts = parts.await.ok().flatten().unwrap_or_default();
        for (condition, parts) in explanation.conditions.iter_mut().zip(&parts) {
            let answers = self.answers(parts.question(), request).await;
            condition.show(parts.values(request, answers));
        }
        explanation
    }

    async fn answers(&self, question: Option<&Arc<Question>>, request: &Arc<Request>) -> Option<Arc<Answers>> {
        let question = question?;
        Some(Arc::new(self.shared.evaluators.ask(question, request).await))
    }

    /// Returns the endpoint and the route that a mark names by its place. None after a reload, for requests that began
    /// before it.
    pub fn route_at(&self, place: u32) -> Option<(Arc<str>, Arc<str>)> {
        self.shared.snapshot.load().route_at(place)
    }
}
