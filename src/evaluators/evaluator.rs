//! One evaluator: a process of CPython that evaluates one request after the other.

use std::collections::{HashSet, VecDeque};
use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use prometheus::IntGauge;
use serde::Serialize;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Names;
use super::frames::{self, Head};
use super::job::Job;
use crate::models::frame::{self, Frame};
use crate::models::{Child, Task, Template};
use crate::routing::Question;

/// The child of the template that runs `evaluator.py`.
const TASK: Task = Task::Program { name: "evaluator", source: include_str!("python/evaluator.py") };

/// Time for a new process to get ready. It takes milliseconds, but the machine may be busy.
const START_LIMIT: Duration = Duration::from_secs(3);

/// Time for a process to compile the expressions of one endpoint.
const LEARN_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of the longest answer. Python keeps each value to a mebibyte.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Most questions that a process keeps; then it forgets those of configurations that are no more in use.
const MOST_QUESTIONS: usize = 1024;

/// First message to an evaluator.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Begin {
    pub(super) names: Names,
    /// Bytes that the process may take beyond what it shares with the template.
    pub(super) max_memory: u64,
}

/// The reason why there is no process. It is for operators.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The template cannot fork it.
    #[error("{0}")]
    NotForked(String),
    /// Process that ended, or was late, before it was ready.
    #[error("an evaluator does not start: {0}")]
    Lost(String),
}

/// A process that is ready to evaluate. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Evaluator {
    child: Child,
    stream: UnixStream,
    /// Bytes that were read of the answers to come.
    buffer: BytesMut,
    /// The questions that the process has learned.
    learned: HashSet<u64>,
    _counted: Counted,
}

impl Evaluator {
    /// Forks a process, and waits until it is ready.
    pub(super) async fn start(
        template: &Template,
        begin: &Begin,
        running: &IntGauge,
    ) -> std::result::Result<Self, StartError> {
        let mut child = template.fork(&TASK).await.map_err(|error| StartError::NotForked(error.to_string()))?;
        let stream = child.take_stream().map_err(|lost| StartError::Lost(lost.to_string()))?;
        let counted = Counted::new(running);
        let (buffer, learned) = (BytesMut::new(), HashSet::new());
        let mut evaluator = Self { child, stream, buffer, learned, _counted: counted };
        match evaluator.tell(&Head::Begin(begin), START_LIMIT).await {
            Ok(()) => Ok(evaluator),
            Err(error) => Err(StartError::Lost(format!("{error} {}", evaluator.last_words()).trim_end().to_owned())),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Returns the line of output that explains the end of the process.
    pub(super) fn last_words(&self) -> String {
        self.child.output().reason().unwrap_or_default().to_owned()
    }

    /// Tells whether the process has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.child.is_gone()
    }

    /// Waits for the end of the process.
    pub(super) fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        let gone = self.child.gone();
        async move {
            gone.await;
        }
    }

    /// Has the process compile a question that it does not know.
    pub(super) async fn learn(&mut self, question: &Arc<Question>) -> Result<()> {
        if self.learned.contains(&question.id) {
            return Ok(());
        }
        if self.learned.len() == MOST_QUESTIONS {
            self.learned.clear();
            self.tell(&Head::Forget {}, LEARN_LIMIT).await?;
        }
        self.tell(&Head::learn(question), LEARN_LIMIT).await?;
        self.learned.insert(question.id);
        Ok(())
    }

    /// Asks for several requests, whose questions the process knows.
    pub(super) async fn ask(&mut self, jobs: &VecDeque<Job>) -> Result<()> {
        let head = serde_json::to_vec(&Head::evaluate(jobs)).map_err(Error::from)?;
        match jobs.front() {
            // A large payload is alone, and goes out as it is.
            Some(job) if jobs.len() == 1 && job.request.key.is_none() => {
                frame::write(&mut self.stream, &head, job.request.payload.as_deref().unwrap_or_default()).await
            }
            _ => frame::write(&mut self.stream, &head, &frames::body(jobs)).await,
        }
    }

    /// Waits for the answer for the next request.
    pub(super) async fn answer(&mut self) -> Result<Frame> {
        frame::next(&mut self.stream, &mut self.buffer, MAX_ANSWER_BYTES).await
    }

    /// Tells the process something, and waits until it has understood.
    async fn tell(&mut self, head: &Head<'_>, limit: Duration) -> Result<()> {
        let head = serde_json::to_vec(head).map_err(Error::from)?;
        let told = async {
            frame::write(&mut self.stream, &head, &[]).await?;
            frame::next(&mut self.stream, &mut self.buffer, MAX_ANSWER_BYTES).await.map(drop)
        };
        timeout(limit, told).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
    }
}

/// A process in the gauge of those that run, for as long as this lives.
#[derive(Debug)]
struct Counted(IntGauge);

impl Counted {
    fn new(running: &IntGauge) -> Self {
        running.inc();
        Self(running.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
