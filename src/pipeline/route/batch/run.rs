//! The calls that are made for requests that go together.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::queue::{Group, Waiting};
use super::{Answered, Company};
use crate::intake::Expected;
use crate::invocation::body::{Answer, Key, Payload, is_same_but_for_rounding};
use crate::invocation::trust::{Joining, Objection};
use crate::invocation::{Answers, Call, Several};
use crate::message::{Code, Fault, Headers, Reply, Request};
use crate::models::{CallFailure, Lease};
use crate::pipeline::attempt::is_over;
use crate::pipeline::route::Target;
use crate::telemetry::BatchMetrics;

/// Requests that go together, and the place that they have.
pub(super) struct Batch {
    lease: Lease,
    _expected: Expected,
    target: Arc<Target>,
    timeout: Duration,
    members: Vec<Member>,
    joining: Joining,
    key: Key,
    /// Whether what answers is asked to find out who is refused.
    asks: bool,
    /// Rows that were called, and those that were refused on their own account.
    rows: usize,
    refused: usize,
    /// How long the last call took.
    took: Duration,
}

/// One of them.
struct Member {
    payload: Payload,
    request: Arc<Request>,
    deadline: Option<Instant>,
    answer: oneshot::Sender<Answered>,
    calls: u32,
}

/// Some of them, who are called at once.
struct Part {
    members: Vec<Member>,
    number: usize,
    /// The other half of what was refused. If nothing was wrong with that, it is this.
    other: Option<usize>,
}

/// What came of a call for several.
enum Together {
    /// An answer for each who was not refused, and those who were.
    Answered(Answer, String, Vec<Member>),
    /// One of them is at fault, perhaps.
    Refused,
    /// The answer is not one for each.
    NotByRow,
    /// It says nothing of the requests.
    Failed(CallFailure),
    /// What answers is gone; who is at fault, is not known.
    Lost(CallFailure),
}

impl Batch {
    /// Tells each of them. What the first of them waits for is given back.
    pub(super) fn of(
        group: Group,
        lease: Lease,
        expected: Expected,
        target: Arc<Target>,
        timeout: Duration,
    ) -> (Self, Company) {
        let Group { members, joining, key } = group;
        let mut companies = Vec::with_capacity(members.len());
        let members = members.into_iter().map(|waiting| {
            let Waiting { payload, request, deadline, taken, .. } = waiting;
            let (answer, receiver) = oneshot::channel();
            companies.push((taken, Company { version: Arc::clone(lease.version()), answer: receiver }));
            Member { payload, request, deadline, answer, calls: 0 }
        });
        let members = members.collect();
        let mut own = None;
        for (taken, company) in companies {
            match own {
                None => own = Some(company),
                // Who has gone away meanwhile is noticed before the call.
                Some(_) => drop(taken.send(company)),
            }
        }
        let own = own.unwrap_or_else(|| Company { version: Arc::clone(lease.version()), answer: oneshot::channel().1 });
        (
            Self {
                lease,
                _expected: expected,
                target,
                timeout,
                members,
                joining,
                key,
                asks: true,
                rows: 0,
                refused: 0,
                took: Duration::ZERO,
            },
            own,
        )
    }

    /// Calls the model until each has an answer.
    pub(super) async fn run(mut self) {
        let members = std::mem::take(&mut self.members);
        self.together(members).await;
        if let Some(batcher) = &self.target.batcher {
            batcher.queue().suspicion.saw(&self.key, self.rows, self.refused);
        }
    }

    /// All at once. When that is refused, halves of them, until who is at fault stands alone.
    async fn together(&mut self, members: Vec<Member>) {
        let mut is_sound = vec![false];
        let mut parts = vec![Part { members, number: 0, other: None }];
        while let Some(Part { mut members, number, other }) = parts.pop() {
            members.retain(Member::waits);
            if members.len() <= 1 {
                let Some(member) = members.pop() else { continue };
                if let ControlFlow::Break(failure) = self.alone(member).await {
                    return self.abandon(parts.into_iter().flat_map(|part| part.members), &failure);
                }
                continue;
            }
            let is_known = other.is_some_and(|other| is_sound.get(other) == Some(&true));
            let result = if is_known { Together::Refused } else { self.call_together(&mut members).await };
            match result {
                Together::Answered(answer, content_type, refused) => {
                    self.deliver(members, &answer, &content_type);
                    // Each in a part of its own, to be told what it would have been told alone.
                    parts.extend(refused.into_iter().map(Part::of));
                    if let Some(is_sound) = is_sound.get_mut(number) {
                        *is_sound = true;
                    }
                }
                Together::Refused => {
                    self.count(|metrics| metrics.splits.inc());
                    let second = members.split_off(members.len() / 2);
                    let number = is_sound.len();
                    is_sound.extend([false, false]);
                    parts.push(Part { members: second, number: number + 1, other: Some(number) });
                    parts.push(Part { members, number, other: None });
                }
                Together::NotByRow => {
                    // Each in a part of its own.
                    parts.extend(members.into_iter().map(Part::of));
                }
                Together::Failed(failure) => members.into_iter().for_each(|member| {
                    member.answered(Err(failure.clone()), self.took, false);
                }),
                Together::Lost(failure) => {
                    let others = parts.into_iter().flat_map(|part| part.members);
                    return self.abandon(members.into_iter().chain(others), &failure);
                }
            }
        }
    }

    /// Those who are refused are taken out.
    async fn call_together(&mut self, members: &mut Vec<Member>) -> Together {
        let payloads: Vec<_> = members.iter().map(|member| &member.payload).collect();
        let rows: Vec<_> = payloads.iter().map(|payload| payload.rows()).collect();
        let joined = Payload::join(&payloads);
        members.iter_mut().for_each(|member| member.calls += 1);
        let Some(Member { request, payload: first, .. }) = members.first() else { return Together::NotByRow };
        let (request, first) = (Arc::clone(request), first.clone());
        // As long as one of them waits.
        let deadlines: Option<Vec<_>> = members.iter().map(|member| member.deadline).collect();
        let latest = deadlines.and_then(|deadlines| deadlines.into_iter().max());
        let earliest = members.iter().filter_map(|member| member.deadline).min();
        let several = Several { rows: if self.asks { &rows } else { &[] }, patience: self.patience(earliest) };
        let called = self.call_for(&request, &Headers::default(), joined, &rows, several, latest).await;
        let Answers { reply, refused, told } = match called {
            Ok(answers) => answers,
            Err(failure) if !self.lease.is_usable() || failure.crashed || failure.disconnected => {
                return Together::Lost(failure);
            }
            Err(failure) => {
                return match failure.fault.code {
                    Code::TemporarilyUnavailable | Code::ResourceExhausted => Together::Failed(failure),
                    Code::DeadlineExceeded => Together::Lost(failure),
                    _ => {
                        // What has not found them out once would not do so with half of them.
                        self.asks = false;
                        Together::Refused
                    }
                };
            }
        };
        let refused = take_out(members, &refused);
        if !refused.is_empty() {
            self.count(|metrics| metrics.splits.inc());
        }
        let rows = members.iter().map(|member| member.payload.rows()).sum();
        let Some(answer) = Answer::read(&reply.body, rows) else {
            self.object(&first, Objection::NotByRow);
            members.extend(refused);
            return Together::NotByRow;
        };
        if self.joining == Joining::Watched && !self.is_same_alone(members, &answer).await {
            self.object(&first, Objection::NotAlone);
            members.extend(refused);
            return Together::NotByRow;
        }
        let mut refused = refused.into_iter();
        for (result, member) in told.into_iter().zip(refused.by_ref()) {
            self.tell(member, result);
        }
        Together::Answered(answer, reply.content_type, refused.collect())
    }

    /// One that was called alone by who found it out.
    fn tell(&mut self, mut member: Member, result: Result<Reply, Fault>) {
        member.calls += 1;
        self.rows += member.payload.rows();
        self.count(|metrics| metrics.refused.inc());
        if result.as_ref().is_err_and(|fault| !fault.retryable) {
            self.refused += member.payload.rows();
        }
        let result =
            result.map_err(|fault| CallFailure { fault, crashed: false, in_company: false, disconnected: false });
        member.answered(result, self.took, false);
    }

    /// Whether those who are looked at get the same answer alone, but for rounding.
    async fn is_same_alone(&mut self, members: &[Member], answer: &Answer) -> bool {
        let payloads: Vec<_> = members.iter().map(|member| &member.payload).collect();
        let parts: Vec<_> = parts(answer, payloads.iter().map(|payload| payload.rows())).collect();
        for number in self.lease.trust().looks(&self.key, &payloads) {
            let (Some(member), Some(part)) = (members.get(number), parts.get(number)) else { continue };
            let (request, payload) = (Arc::clone(&member.request), member.payload.clone());
            match self.call(&request, &request.headers, payload.bytes().clone(), payload.rows(), None).await {
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

    fn deliver(&mut self, members: Vec<Member>, answer: &Answer, content_type: &str) {
        let rows: Vec<_> = members.iter().map(|member| member.payload.rows()).collect();
        self.rows += rows.iter().sum::<usize>();
        let parts = parts(answer, rows.into_iter());
        for (member, body) in members.into_iter().zip(parts) {
            let reply = Reply { content_type: content_type.to_owned(), body };
            member.answered(Ok(reply), self.took, false);
        }
    }

    /// One by itself. Tells why nobody else can be called, if that is so.
    async fn alone(&mut self, mut member: Member) -> ControlFlow<CallFailure> {
        if !member.waits() {
            return ControlFlow::Continue(());
        }
        member.calls += 1;
        self.rows += member.payload.rows();
        self.count(|metrics| metrics.refused.inc());
        let (request, payload) = (Arc::clone(&member.request), member.payload.bytes().clone());
        let rows = member.payload.rows();
        let result = self.call(&request, &request.headers, payload, rows, member.deadline).await;
        if result.as_ref().is_err_and(|failure| !failure.fault.retryable) {
            self.refused += member.payload.rows();
        }
        let gone = result.as_ref().err().filter(|_| !self.lease.is_usable()).cloned();
        member.answered(result, self.took, false);
        gone.map_or(ControlFlow::Continue(()), ControlFlow::Break)
    }

    /// How long a host may look for those it refuses: it must not be taken for stuck, nor may anybody's time run out.
    fn patience(&self, earliest: Option<Instant>) -> Duration {
        let left = earliest.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        self.timeout.min(left.unwrap_or(Duration::MAX)) / 2
    }

    /// One call of the model, with one payload.
    async fn call(
        &mut self,
        request: &Request,
        headers: &Headers,
        payload: Bytes,
        rows: usize,
        deadline: Option<Instant>,
    ) -> Result<Reply, CallFailure> {
        let answers = self.call_for(request, headers, payload, &[rows], Several::default(), deadline).await;
        answers.map(|answers| answers.reply)
    }

    /// The same, for several.
    async fn call_for(
        &mut self,
        request: &Request,
        headers: &Headers,
        payload: Bytes,
        rows: &[usize],
        several: Several<'_>,
        deadline: Option<Instant>,
    ) -> Result<Answers, CallFailure> {
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        // A host is not ended because its callers are in a hurry.
        let timeout = if self.lease.is_hosted() { self.timeout } else { self.timeout.min(left) };
        let begun = Instant::now();
        // Of all of them together.
        self.lease.limit_answer(self.target.largest_answer.saturating_mul(rows.len()));
        let call = Call { content_type: request.content_type(), payload, headers, timeout };
        let result = self.lease.invoke_for(&call, several).await;
        self.took = begun.elapsed();
        self.target.metrics.invocation_duration.observe(self.took.as_secs_f64());
        let is_late = result.as_ref().is_err_and(|failure| failure.fault.code == Code::DeadlineExceeded);
        match &result {
            Ok(_) => self.target.load.took(self.took.as_secs_f64()),
            Err(failure) => self.target.load.failed(&failure.fault, self.timeout),
        }
        if let Some(batcher) = &self.target.batcher {
            let rows = rows.iter().sum::<usize>();
            batcher.metrics.rows.observe(rows as f64);
            // What looking for the refused takes says nothing of how many rows there should be.
            if result.as_ref().is_ok_and(|answers| answers.refused.is_empty()) || is_late {
                batcher.took(rows, self.took);
            }
        }
        result
    }

    /// What they were called with is lost, or what they were to be called with. Each is to be called alone.
    fn abandon(&self, members: impl IntoIterator<Item = Member>, failure: &CallFailure) {
        for member in members {
            member.answered(Err(failure.clone()), self.took, true);
        }
    }

    fn count(&self, count: impl FnOnce(&BatchMetrics)) {
        if let Some(batcher) = &self.target.batcher {
            count(&batcher.metrics);
        }
    }

    fn object(&self, payload: &Payload, objection: Objection) {
        if self.lease.trust().object(payload.form(), objection) {
            let (model, version) = (&**self.target.model.uri().text(), &**self.lease.version());
            tracing::warn!(model, version, why = %objection, "model is called singly from now on");
        }
    }
}

fn parts(answer: &Answer, rows: impl Iterator<Item = usize>) -> impl Iterator<Item = Bytes> {
    let mut from = 0;
    rows.map(move |rows| {
        from += rows;
        answer.part(from - rows..from)
    })
}

/// Takes out those of these numbers, which are in their order.
fn take_out(members: &mut Vec<Member>, numbers: &[usize]) -> Vec<Member> {
    // From the end, so that no number changes.
    let mut taken: Vec<_> = numbers.iter().rev().map(|number| members.remove(*number)).collect();
    taken.reverse();
    taken
}

impl Part {
    /// One by itself.
    fn of(member: Member) -> Self {
        Self { members: vec![member], number: 0, other: None }
    }
}

impl Member {
    /// Whether its answer is still waited for.
    fn waits(&self) -> bool {
        !self.answer.is_closed() && !is_over(self.deadline)
    }

    fn answered(self, result: Result<Reply, CallFailure>, took: Duration, in_company: bool) {
        let calls = self.calls;
        // Whoever does not wait any longer does not want to know.
        let _ = self.answer.send(Answered { result, calls, took, in_company });
    }
}
