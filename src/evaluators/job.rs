//! One request that waits for its evaluation.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::message::Request;
use crate::routing::{Answers, ConditionError, Question};

/// A request, the question about it, and the caller that waits.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) question: Arc<Question>,
    pub(super) request: Arc<Request>,
    /// The number of evaluators that were lost before they could begin with it.
    pub(super) losses: usize,
    sender: oneshot::Sender<Answers>,
}

impl Job {
    pub(super) fn new(question: Arc<Question>, request: Arc<Request>, sender: oneshot::Sender<Answers>) -> Self {
        Self { question, request, losses: 0, sender }
    }

    /// Counts the bytes that an evaluator is sent of the request, but for its headers.
    pub(super) fn size(&self) -> usize {
        let Request { key, payload, .. } = &*self.request;
        key.as_ref().map_or(0, Bytes::len) + payload.as_ref().map_or(0, Bytes::len)
    }

    /// Tells whether the caller has stopped waiting.
    pub(super) fn is_abandoned(&self) -> bool {
        self.sender.is_closed()
    }

    /// Gives the caller the answers.
    pub(super) fn finish(self, answers: Answers) {
        // The caller may have stopped waiting meanwhile.
        let _ = self.sender.send(answers);
    }

    /// Gives the caller one error for all expressions.
    pub(super) fn fail(self, error: &ConditionError) {
        let answers = failed(&self.question, error);
        self.finish(answers);
    }
}

/// Makes the answers to a question none of whose expressions could be evaluated.
pub(super) fn failed(question: &Question, error: &ConditionError) -> Answers {
    question.expressions.iter().map(|_| Err(error.clone())).collect()
}
