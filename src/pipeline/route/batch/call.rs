//! The calls for requests that go together: joined in one call, and split when that is refused.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::queue::{BatchGroup, BatchWaiter};
use super::state::{BatchState, BatchedRoute};
use super::ticket::{BatchAnswer, BatchTicket};
use crate::intake::ExpectedAnswers;
use crate::invocation::body::{Answer, JoinKey, Payload, is_same_but_for_rounding};
use crate::invocation::row_independence::{BatchMode, BatchingRefusal};
use crate::invocation::{Answers, Call, Several};
use crate::message::{Code, Deadline, Headers, Reply, Request};
use crate::models::{CallFailure, Lease};
use crate::pipeline::route::clock::now;

/// Calls the model for a group of requests until each has an answer.
pub(super) struct BatchCall {
    lease: Lease,
    _expected: ExpectedAnswers,
    state: Arc<BatchState>,
    timeout: Duration,
    members: Vec<BatchMember>,
    mode: BatchMode,
    key: JoinKey,
    /// Tells whether the model's host is asked to tell which requests it refuses.
    asks_for_bad_rows: bool,
    /// Rows that were called, and rows that were refused on their own account.
    rows: usize,
    refused: usize,
    /// Duration of the last call.
    took: Duration,
}

/// Keeps one request of a batch, and the channel of its answer.
struct BatchMember {
    payload: Payload,
    request: Arc<Request>,
    deadline: Deadline,
    answer: oneshot::Sender<BatchAnswer>,
    calls: u32,
}

/// Holds those members of a batch that are called at once.
struct SubBatch {
    members: Vec<BatchMember>,
    /// Tells whether this is the first half of a refused batch, the other half of which comes next.
    is_first_half: bool,
    /// Tells whether the other half of a refused batch was sound, so that this one holds the fault.
    is_at_fault: bool,
}

/// Tells the outcome of a call for several requests.
enum BatchOutcome {
    /// One answer with a part for each member that was not refused, its content type, and the refused members.
    Answered(Answer, String, Vec<BatchMember>),
    /// A refusal, for which one of the members may be at fault.
    Refused,
    /// An answer without one entry for each row.
    NotByRow,
    /// A failure that says nothing of the requests.
    Failed(CallFailure),
    /// A failure that ended the host; which request is at fault, is not known.
    Lost(CallFailure),
}

impl BatchCall {
    /// Sends each member of the group its ticket, except the one with the lease, whose ticket is returned: its task is the
    /// caller.
    pub(super) fn new(
        group: BatchGroup,
        lease: Lease,
        state: Arc<BatchState>,
        expected: ExpectedAnswers,
        timeout: Duration,
    ) -> (Self, BatchTicket) {
        let BatchGroup { own, others, mode, key } = group;
        let join = |BatchWaiter { payload, request, deadline, ticket, .. }| {
            let (answer, receiver) = oneshot::channel();
            let member = BatchMember { payload, request, deadline, answer, calls: 0 };
            (member, ticket, BatchTicket { version: Arc::clone(lease.version()), answer: receiver })
        };
        let (first, _, own_ticket) = join(own);
        let mut members = vec![first];
        members.extend(others.into_iter().map(join).map(|(member, sender, ticket)| {
            // A request that has gone away meanwhile is noticed before the call.
            drop(sender.send(ticket));
            member
        }));
        let call = Self {
            lease,
            _expected: expected,
            state,
            timeout,
            members,
            mode,
            key,
            asks_for_bad_rows: true,
            rows: 0,
            refused: 0,
            took: Duration::ZERO,
        };
        (call, own_ticket)
    }

    /// Calls the model until each member has an answer, and records how many rows were refused.
    pub(super) async fn run(mut self) {
        let members = std::mem::take(&mut self.members);
        self.call_until_answered(members).await;
        self.state.queue.lock().rejection_rate.record(&self.key, self.rows, self.refused);
    }

    /// Calls all members at once. When that is refused, calls halves of them, until the members at fault stand alone.
    async fn call_until_answered(&mut self, members: Vec<BatchMember>) {
        let mut batches = vec![SubBatch::of(members)];
        while let Some(SubBatch { mut members, is_first_half, is_at_fault }) = batches.pop() {
            // Members may have gone away or run out of time since the batch was put together.
            members.retain(BatchMember::waits);
            if members.len() <= 1 {
                let Some(member) = members.pop() else { continue };
                if let ControlFlow::Break(failure) = self.call_single(member).await {
                    return self.send_back(batches.into_iter().flat_map(|batch| batch.members), &failure);
                }
                continue;
            }
            // A half that holds the fault is split without a call.
            let outcome = if is_at_fault { BatchOutcome::Refused } else { self.call_joined(&mut members).await };
            match outcome {
                BatchOutcome::Answered(answer, content_type, refused) => {
                    self.deliver(members, &answer, &content_type);
                    if let Some(other_half) = batches.last_mut().filter(|_| is_first_half) {
                        other_half.is_at_fault = true;
                    }
                    // Refused members are called alone, to be told what they would have been told alone.
                    batches.extend(refused.into_iter().map(|member| SubBatch::of(vec![member])));
                }
                BatchOutcome::Refused => {
                    self.state.route.batch_metrics.splits.inc();
                    // The first half is called first, and tells of the second.
                    batches.push(SubBatch::of(members.split_off(members.len() / 2)));
                    batches.push(SubBatch { is_first_half: true, ..SubBatch::of(members) });
                }
                BatchOutcome::NotByRow => {
                    // Such an answer cannot be cut, so each member is called alone.
                    batches.extend(members.into_iter().map(|member| SubBatch::of(vec![member])));
                }
                BatchOutcome::Failed(failure) => members.into_iter().for_each(|member| {
                    member.deliver(Err(failure.clone()), self.took, false);
                }),
                BatchOutcome::Lost(failure) => {
                    let others = batches.into_iter().flat_map(|batch| batch.members);
                    return self.send_back(members.into_iter().chain(others), &failure);
                }
            }
        }
    }

    /// Calls members with one payload, and takes those out that are refused.
    async fn call_joined(&mut self, members: &mut Vec<BatchMember>) -> BatchOutcome {
        let payloads: Vec<_> = members.iter().map(|member| &member.payload).collect();
        let rows: Vec<_> = payloads.iter().map(|payload| payload.rows()).collect();
        let joined = Payload::join(&payloads);
        members.iter_mut().for_each(|member| member.calls += 1);
        let Some(BatchMember { request, payload: first, .. }) = members.first() else { return BatchOutcome::NotByRow };
        let (request, first) = (Arc::clone(request), first.clone());
        // The call may take as long as any member waits. The search for bad rows may not: the time of no member may run
        // out, nor may the host be taken for stuck, so the search has half of what there is.
        let begin = Instant::now();
        let left = || members.iter().map(|member| member.deadline.left_at(begin));
        let (least, most) = (left().min().unwrap_or_default(), left().max().unwrap_or_default());
        let asked_rows: &[usize] = if self.asks_for_bad_rows { &rows } else { &[] };
        let several = Several { rows: asked_rows, patience: self.timeout.min(least) / 2 };
        let called = self.call_for(&request, &Headers::default(), joined, &rows, several, most).await;
        // A failure is blamed on the host, on nobody, or on one of the members.
        let Answers { reply, refused } = match called {
            Ok(answers) => answers,
            Err(failure) if !self.lease.is_usable() || failure.crashed || failure.disconnected => {
                return BatchOutcome::Lost(failure);
            }
            Err(failure) => {
                return match failure.fault.code {
                    Code::TemporarilyUnavailable | Code::ResourceExhausted => BatchOutcome::Failed(failure),
                    Code::DeadlineExceeded => BatchOutcome::Lost(failure),
                    _ => {
                        // A host that has not found the bad rows once would not do so with half of them.
                        self.asks_for_bad_rows = false;
                        BatchOutcome::Refused
                    }
                };
            }
        };
        let refused = take_out(members, &refused);
        if !refused.is_empty() {
            self.state.route.batch_metrics.splits.inc();
        }
        // The answer is cut only if it has one entry for each row, and if spot checks do not speak against it.
        let rows = members.iter().map(|member| member.payload.rows()).sum();
        let Some(answer) = Answer::read(&reply.body, rows) else {
            self.refuse_batching(&first, BatchingRefusal::NotByRow);
            members.extend(refused);
            return BatchOutcome::NotByRow;
        };
        if self.mode == BatchMode::Sampled && !self.passes_spot_check(members, &answer).await {
            self.refuse_batching(&first, BatchingRefusal::NotAlone);
            members.extend(refused);
            return BatchOutcome::NotByRow;
        }
        BatchOutcome::Answered(answer, reply.content_type, refused)
    }

    /// Calls a sample of the members alone as well, and tells whether each of them gets the same answer, but for rounding.
    async fn passes_spot_check(&mut self, members: &[BatchMember], answer: &Answer) -> bool {
        let payloads: Vec<_> = members.iter().map(|member| &member.payload).collect();
        let parts: Vec<_> = parts(answer, payloads.iter().map(|payload| payload.rows())).collect();
        for number in self.lease.row_independence().spot_checks(&self.key, &payloads) {
            let (Some(member), Some(part)) = (members.get(number), parts.get(number)) else { continue };
            let (request, payload) = (Arc::clone(&member.request), member.payload.clone());
            match self.call(&request, &request.headers, payload.bytes().clone(), payload.rows(), Duration::MAX).await {
                Ok(reply) if !is_same_but_for_rounding(part, &reply.body) => return false,
                Err(failure) if !failure.fault.retryable => return false,
                _ => {}
            }
            if !self.lease.is_usable() {
                break;
            }
        }
        true
    }

    /// Cuts an answer, and delivers each member its part.
    fn deliver(&mut self, members: Vec<BatchMember>, answer: &Answer, content_type: &str) {
        let rows: Vec<_> = members.iter().map(|member| member.payload.rows()).collect();
        self.rows += rows.iter().sum::<usize>();
        let parts = parts(answer, rows.into_iter());
        for (member, body) in members.into_iter().zip(parts) {
            let reply = Reply { content_type: content_type.to_owned(), body };
            member.deliver(Ok(reply), self.took, false);
        }
    }

    /// Calls one member by itself. Breaks with the failure after which no other member can be called.
    async fn call_single(&mut self, mut member: BatchMember) -> ControlFlow<CallFailure> {
        if !member.waits() {
            return ControlFlow::Continue(());
        }
        member.calls += 1;
        self.rows += member.payload.rows();
        self.state.route.batch_metrics.refused.inc();
        let (request, payload) = (Arc::clone(&member.request), member.payload.bytes().clone());
        let rows = member.payload.rows();
        let result = self.call(&request, &request.headers, payload, rows, member.deadline.left()).await;
        if result.as_ref().is_err_and(|failure| !failure.fault.retryable) {
            self.refused += member.payload.rows();
        }
        let lost = result.as_ref().err().filter(|_| !self.lease.is_usable()).cloned();
        member.deliver(result, self.took, false);
        lost.map_or(ControlFlow::Continue(()), ControlFlow::Break)
    }

    /// Calls the model once, for one request.
    async fn call(
        &mut self,
        request: &Request,
        headers: &Headers,
        payload: Bytes,
        rows: usize,
        left: Duration,
    ) -> Result<Reply, CallFailure> {
        let answers = self.call_for(request, headers, payload, &[rows], Several::default(), left).await;
        answers.map(|answers| answers.reply)
    }

    /// Calls the model once, for as many requests as there are numbers of `rows`, and records how long that took.
    async fn call_for(
        &mut self,
        request: &Request,
        headers: &Headers,
        payload: Bytes,
        rows: &[usize],
        several: Several<'_>,
        left: Duration,
    ) -> Result<Answers, CallFailure> {
        // A host is not ended because its callers are in a hurry.
        let timeout = if self.lease.is_hosted() { self.timeout } else { self.timeout.min(left) };
        let begun = Instant::now();
        let BatchedRoute { largest_answer, load, metrics, batch_metrics, .. } = &self.state.route;
        // The limit is that of all requests together.
        self.lease.limit_answer(largest_answer.saturating_mul(rows.len()));
        let call = Call { content_type: request.content_type(), payload, headers, timeout };
        let result = self.lease.invoke_for(&call, several).await;
        self.took = begun.elapsed();
        metrics.invocation_duration.observe(self.took.as_secs_f64());
        let is_late = result.as_ref().is_err_and(|failure| failure.fault.code == Code::DeadlineExceeded);
        match &result {
            Ok(_) => load.record_success(self.took.as_secs_f64()),
            Err(failure) => load.record_failure(&failure.fault, self.timeout),
        }
        let rows = rows.iter().sum::<usize>();
        batch_metrics.rows.observe(rows as f64);
        // The time for a search for bad rows says nothing of how many rows there should be, nor of how long a call takes.
        if result.as_ref().is_ok_and(|answers| answers.refused.is_empty()) || is_late {
            self.state.queue.lock().size.record(rows, self.took);
            self.state.service_times.record_at(self.took, now());
        }
        result
    }

    /// Sends members back, to be called alone each: the host that was to answer, or has answered others, is lost.
    fn send_back(&self, members: impl IntoIterator<Item = BatchMember>, failure: &CallFailure) {
        for member in members {
            member.deliver(Err(failure.clone()), self.took, true);
        }
    }

    /// Has payloads of a form called singly from now on, and logs why.
    fn refuse_batching(&self, payload: &Payload, refusal: BatchingRefusal) {
        if self.lease.row_independence().refuse_batching(payload.form(), refusal) {
            let (model, version) = (&*self.state.route.model_uri, &**self.lease.version());
            tracing::warn!(model, version, why = %refusal, "model is called singly from now on");
        }
    }
}

/// Cuts an answer into the parts of requests with these numbers of rows.
fn parts(answer: &Answer, rows: impl Iterator<Item = usize>) -> impl Iterator<Item = Bytes> {
    let mut from = 0;
    rows.map(move |rows| {
        from += rows;
        answer.part(from - rows..from)
    })
}

/// Takes the members with these numbers out.
fn take_out(members: &mut Vec<BatchMember>, numbers: &[usize]) -> Vec<BatchMember> {
    let mut next = 0;
    let is_taken = |_: &mut BatchMember| {
        next += 1;
        numbers.contains(&(next - 1))
    };
    members.extract_if(.., is_taken).collect()
}

impl SubBatch {
    fn of(members: Vec<BatchMember>) -> Self {
        Self { members, is_first_half: false, is_at_fault: false }
    }
}

impl BatchMember {
    /// Tells whether the answer is still waited for.
    fn waits(&self) -> bool {
        !self.answer.is_closed() && !self.deadline.is_over()
    }

    fn deliver(self, result: Result<Reply, CallFailure>, took: Duration, in_batch: bool) {
        let calls = self.calls;
        // A request that does not wait any longer has dropped the receiver.
        let _ = self.answer.send(BatchAnswer { result, calls, took, in_batch });
    }
}
