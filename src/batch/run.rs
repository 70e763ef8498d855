//! Run: blocks become requests, requests are answered, and blocks leave in order when each of their rows has its end.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use super::answer::{Answer, ReceivedReply, RequestFault, RowFault};
use super::block::Block;
use super::error::BatchError;
use super::exchange::{Link, Sent};
use super::progress::{BatchProgress, Counts};
use super::request::{Request, sendable, write_body};
use super::window::{SendNumber, Window};

/// Bytes of rows and answers in memory, about, above which no further block is taken.
const HELD_BYTES: usize = 64 << 20;

/// Blocks in memory for each request that may be under way: one that is answered late holds up those after it.
const HELD_BLOCKS: usize = 4;

/// Longest wait for a reply when nothing else is to be done; a signal is noticed that late.
const WAIT: Duration = Duration::from_millis(100);

/// The same while the input has nothing to give now.
const SHORT_WAIT: Duration = Duration::from_millis(5);

/// Replies that are taken in before something else has its turn.
const REPLIES_AT_ONCE: usize = 500;

/// Time between two looks for requests that nobody has answered in their time, and between two reports.
const LOOK: Duration = Duration::from_millis(100);

/// Silence after which the progress says what is waited for.
const SILENCE: Duration = Duration::from_secs(5);

/// Attempts after each of which the next has twice the time.
const LONGER: u32 = 2;

/// Rows that have failed without one that was answered, after which the run is given up.
const HOPELESS: u64 = 1_000;

/// Settings of the exchange with the router.
#[derive(Debug, Clone)]
pub struct RunSettings {
    /// Greatest number of requests under way at once.
    pub in_flight: usize,
    /// Time for an answer, after which a request is sent again. The next attempts have twice and four times as long.
    pub timeout: Duration,
    /// Attempts at a request that fails for a reason that may pass.
    pub attempts: u32,
    /// Time without any answer after which the run stops.
    pub patience: Duration,
    /// Parameters of the inference, as a JSON object.
    pub params: Option<String>,
    /// True if the prediction is the model's whole answer, and each row goes alone.
    pub whole: bool,
}

/// A block whose rows all have their end.
#[derive(Debug)]
pub(super) struct FinishedBlock {
    pub(super) block: Block,
    pub(super) answers: Vec<Answer>,
}

/// Tells how a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunEnd {
    /// All rows have their end.
    Complete,
    /// Somebody has asked for the end.
    Stopped,
    /// Nobody takes the finished blocks any more.
    Unwritable,
}

/// Runs blocks to their end.
pub(super) struct Run<'a, L> {
    link: &'a L,
    settings: &'a RunSettings,
    window: Window,
    /// Blocks that have not left, in order.
    blocks: VecDeque<OpenBlock>,
    /// Number of the first of them.
    first: u64,
    /// Bytes of those blocks, about.
    held: usize,
    /// Requests that are to be sent.
    ready: VecDeque<Request>,
    /// Requests that wait for their next attempt, by its time.
    paused: BTreeMap<(Instant, u64), Request>,
    under_way: HashMap<u64, SentRequest>,
    /// Number of the next request that is sent.
    number: u64,
    /// Requests that were answered with predictions.
    answered: u64,
    counts: Counts,
    /// The last time that a row has come to its end.
    progressed: Instant,
    /// The last fault that may pass, until something is answered.
    trouble: Option<String>,
    body: Vec<u8>,
}

struct OpenBlock {
    block: Block,
    answers: Vec<Option<Answer>>,
    /// Rows without an end.
    open: usize,
}

struct SentRequest {
    request: Request,
    number: SendNumber,
    /// Time at which it counts as lost.
    due: Instant,
}

impl<'a, L: Link> Run<'a, L> {
    /// Begins with the counts of an earlier run that this one goes on from.
    pub(super) fn new(link: &'a L, settings: &'a RunSettings, counts: Counts) -> Self {
        Self {
            link,
            settings,
            window: Window::new(settings.in_flight),
            blocks: VecDeque::new(),
            first: 0,
            held: 0,
            ready: VecDeque::new(),
            paused: BTreeMap::new(),
            under_way: HashMap::new(),
            number: 0,
            answered: 0,
            counts,
            progressed: Instant::now(),
            trouble: None,
            body: Vec::new(),
        }
    }

    /// Runs until all rows have their end, or something ends it before.
    ///
    /// # Errors
    /// When the input cannot be read, or the router does not answer.
    pub(super) fn finish_all(
        mut self,
        input: &Receiver<Result<Block, BatchError>>,
        finished: &SyncSender<FinishedBlock>,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(BatchProgress),
    ) -> Result<RunEnd, BatchError> {
        let mut has_more = true;
        let mut looked = Instant::now();
        let began = looked;
        while !stop.load(Ordering::Relaxed) {
            self.send_ready()?;
            let is_starved = has_more && self.take_blocks(input, &mut has_more)?;
            self.send_ready()?;
            // With nothing under way there is nothing to wait for but the input.
            let wait = if is_starved && !self.under_way.is_empty() { SHORT_WAIT } else { WAIT };
            self.take_replies(self.next_pause(wait))?;
            self.resume_paused();
            if !self.hand_over(finished) {
                return Ok(RunEnd::Unwritable);
            }
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                self.give_up_silent()?;
                progress(self.progress(began));
            }
            if !has_more && self.blocks.is_empty() {
                progress(self.progress(began));
                return Ok(RunEnd::Complete);
            }
        }
        Ok(RunEnd::Stopped)
    }

    /// Takes blocks from the input as long as there is room. Returns whether there was room, and no block.
    fn take_blocks(
        &mut self,
        input: &Receiver<Result<Block, BatchError>>,
        has_more: &mut bool,
    ) -> Result<bool, BatchError> {
        let most = HELD_BLOCKS * self.settings.in_flight;
        while self.ready.is_empty() && self.window.is_open() && self.held < HELD_BYTES && self.blocks.len() < most {
            match input.try_recv() {
                Ok(block) => self.take(block?)?,
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => {
                    *has_more = false;
                    break;
                }
            }
            self.send_ready()?;
        }
        Ok(false)
    }

    fn take(&mut self, block: Block) -> Result<(), BatchError> {
        let number = self.first + self.blocks.len() as u64;
        let count = block.rows.len();
        let unsendable = |row: &super::row::Row| {
            let message = row.values.as_ref().err()?.clone();
            Some(Answer::Failed(RowFault { code: "BAD_ROW".to_owned(), message, correlation: None }))
        };
        let answers: Vec<_> = block.rows.iter().map(unsendable).collect();
        let bad = answers.iter().flatten().count();
        let last_bad = answers.iter().flatten().last().cloned();
        self.held += block.size;
        self.blocks.push_back(OpenBlock { block, answers, open: count - bad });
        if let Some(Answer::Failed(fault)) = last_bad {
            self.count_failed(bad, &fault)?;
        }
        if bad < count {
            self.ready.push_back(Request::new(number, 0..count));
        }
        Ok(())
    }

    /// Sends the requests that are ready, as far as the window lets them.
    fn send_ready(&mut self) -> Result<(), BatchError> {
        while self.window.is_open() {
            let Some(request) = self.ready.pop_front() else { return Ok(()) };
            let Some(open) = block_of(&self.blocks, self.first, &request) else { continue };
            write_body(&mut self.body, &open.block, &request.rows, self.settings.params.as_deref());
            let timeout = self.settings.timeout.saturating_mul(1 << request.failures.min(LONGER));
            let number = self.number;
            let sent = self.link.send(number, &self.body, timeout);
            match sent {
                Ok(Sent::Yes) => {
                    self.number += 1;
                    let due = Instant::now() + timeout;
                    self.under_way.insert(number, SentRequest { request, number: self.window.send(), due });
                }
                Ok(Sent::Later) => {
                    self.ready.push_front(request);
                    return Ok(());
                }
                Err(error) => {
                    return Err(BatchError::Unavailable(format!("requests cannot be sent: {error}")));
                }
            }
        }
        Ok(())
    }

    fn take_replies(&mut self, wait: Duration) -> Result<(), BatchError> {
        let mut wait = wait;
        for _ in 0..REPLIES_AT_ONCE {
            let Some(reply) = self.link.receive(wait) else { break };
            self.take_reply(&reply)?;
            wait = Duration::ZERO;
        }
        while let Some((number, error)) = self.link.undelivered() {
            let Some(SentRequest { request, number: send_number, .. }) = self.under_way.remove(&number) else {
                continue;
            };
            let code = error.rdkafka_error_code();
            let fault = match code {
                Some(
                    rdkafka::error::RDKafkaErrorCode::MessageSizeTooLarge
                    | rdkafka::error::RDKafkaErrorCode::InvalidMessageSize,
                ) => RequestFault {
                    status: 413,
                    code: "PAYLOAD_TOO_LARGE".to_owned(),
                    message: "the request is larger than the broker takes (its message.max.bytes)".to_owned(),
                    may_pass: false,
                    retry_after: None,
                },
                _ => RequestFault::silence(format!("the broker did not take the request: {error}")),
            };
            self.take_fault(number, request, send_number, fault)?;
        }
        Ok(())
    }

    fn take_reply(&mut self, reply: &ReceivedReply) -> Result<(), BatchError> {
        // A request that was sent again is known by its new number only, so a late or second answer finds nobody.
        let Some(SentRequest { request, number, .. }) = self.under_way.remove(&reply.request) else { return Ok(()) };
        let Some(open) = block_of(&self.blocks, self.first, &request) else { return Ok(()) };
        let rows = sendable(&open.block, &request.rows);
        match reply.predictions(rows.len(), self.settings.whole) {
            Ok(predictions) => {
                self.window.answer();
                self.answered += 1;
                (self.trouble, self.progressed) = (None, Instant::now());
                self.counts.rows += rows.len() as u64;
                self.held += reply.body.len();
                let Some(open) = block_of_mut(&mut self.blocks, self.first, &request) else { return Ok(()) };
                open.block.size += reply.body.len();
                open.open -= rows.len();
                for (row, prediction) in rows.into_iter().zip(predictions) {
                    open.answers[row] = Some(Answer::Prediction(prediction));
                }
                Ok(())
            }
            Err(fault) => self.take_fault(reply.request, request, number, fault),
        }
    }

    /// Decides what becomes of a request that got a fault: it is tried again, or divided, or its row has failed.
    fn take_fault(
        &mut self,
        number: u64,
        mut request: Request,
        send_number: SendNumber,
        fault: RequestFault,
    ) -> Result<(), BatchError> {
        match fault.is_for_want_of_room() {
            true => self.window.refuse(send_number),
            false => self.window.answer(),
        }
        let message = format!("{}: {}", fault.code, fault.message);
        // What no request of this run may have, none after it will get.
        if fault.is_of_the_run() && self.counts.answered() == 0 {
            return Err(BatchError::usage(format!("the router refuses the requests: {message}")));
        }
        if fault.may_pass {
            let (since, answered_then) = *request.trouble.get_or_insert((Instant::now(), self.answered));
            let is_worn_out = match fault.is_refusal() {
                true => {
                    request.refusals += 1;
                    since.elapsed() >= self.settings.patience
                }
                false => {
                    request.failures += 1;
                    request.failures >= self.settings.attempts
                }
            };
            self.trouble = Some(message.clone());
            if !is_worn_out {
                let due = Instant::now() + fault.retry_after.unwrap_or_default().max(request.pause());
                self.paused.insert((due, number), request);
                return Ok(());
            }
            // Others are answered, so it is for this request's own sake. Where none is, the fault is not the rows'.
            if fault.is_for_want_of_room() && self.answered == answered_then {
                return Err(BatchError::Unfinished(format!("nothing is answered any more: {message}")));
            }
        }
        let Some(open) = block_of_mut(&mut self.blocks, self.first, &request) else { return Ok(()) };
        match request.split(&open.block) {
            // Where nobody has tried the request its rows are not to blame; and an answer that cannot be taken apart
            // would not fit the parts of a request either.
            Some((one, other)) if !fault.is_refusal() && fault.code != super::answer::UNUSABLE => {
                self.ready.push_front(other);
                self.ready.push_front(one);
                Ok(())
            }
            _ => {
                let correlation = Some(self.link.correlation(number));
                let fault = RowFault { code: fault.code, message: fault.message, correlation };
                let rows = sendable(&open.block, &request.rows);
                open.open -= rows.len();
                for row in &rows {
                    open.answers[*row] = Some(Answer::Failed(fault.clone()));
                }
                self.count_failed(rows.len(), &fault)
            }
        }
    }

    fn count_failed(&mut self, rows: usize, fault: &RowFault) -> Result<(), BatchError> {
        self.progressed = Instant::now();
        self.counts.rows += rows as u64;
        self.counts.failed += rows as u64;
        if self.counts.answered() == 0 && self.counts.failed >= HOPELESS {
            return Err(BatchError::usage(format!(
                "the first {} rows have all failed, and none is answered: {}: {}",
                self.counts.failed, fault.code, fault.message
            )));
        }
        Ok(())
    }

    fn resume_paused(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.paused.first_entry().filter(|entry| entry.key().0 <= now) {
            self.ready.push_back(entry.remove());
        }
    }

    /// Shortens a wait to the time until a paused request is due.
    fn next_pause(&self, wait: Duration) -> Duration {
        let next = self.paused.first_key_value().map(|((due, _), _)| due.saturating_duration_since(Instant::now()));
        next.map_or(wait, |next| next.min(wait))
    }

    /// Counts requests without an answer in their time as failed, and ends a run that nobody answers.
    fn give_up_silent(&mut self) -> Result<(), BatchError> {
        let now = Instant::now();
        let late: Vec<u64> =
            self.under_way.iter().filter(|(_, sent)| sent.due <= now).map(|(number, _)| *number).collect();
        for number in late {
            let Some(SentRequest { request, number: send_number, .. }) = self.under_way.remove(&number) else {
                continue;
            };
            self.take_fault(number, request, send_number, RequestFault::silence("no reply came in time".to_owned()))?;
        }
        let is_waiting = !self.under_way.is_empty() || !self.paused.is_empty() || !self.ready.is_empty();
        if !is_waiting {
            self.progressed = now;
        }
        if self.progressed.elapsed() >= self.settings.patience {
            let reason = self.waits_for().unwrap_or_default();
            return Err(BatchError::Unfinished(format!("nothing is answered any more; it waited for {reason}")));
        }
        Ok(())
    }

    /// Lets the blocks go that have all their answers. Returns whether somebody takes them.
    fn hand_over(&mut self, finished: &SyncSender<FinishedBlock>) -> bool {
        while self.blocks.front().is_some_and(|open| open.open == 0) {
            let Some(OpenBlock { block, answers, .. }) = self.blocks.pop_front() else { break };
            self.first += 1;
            self.held = self.held.saturating_sub(block.size);
            self.counts.end = block.end;
            // Without an open row every row has its answer.
            let answers = answers.into_iter().flatten().collect();
            if finished.send(FinishedBlock { block, answers }).is_err() {
                return false;
            }
        }
        true
    }

    fn progress(&self, began: Instant) -> BatchProgress {
        let waits_for = (self.progressed.elapsed() >= SILENCE).then(|| self.waits_for()).flatten();
        let under_way = self.window.under_way();
        BatchProgress { counts: self.counts, elapsed: began.elapsed(), under_way, waits_for }
    }

    /// Says what keeps the run from going on.
    fn waits_for(&self) -> Option<String> {
        let seconds = self.progressed.elapsed().as_secs();
        if self.link.is_broker_away() {
            return Some("the broker, which cannot be reached".to_owned());
        }
        if let Some(trouble) = &self.trouble {
            return Some(format!("the router: {trouble}"));
        }
        let waits = !self.under_way.is_empty();
        waits.then(|| format!("answers; none has come for {seconds} s, does a router read the requests?"))
    }
}

fn block_of<'b>(blocks: &'b VecDeque<OpenBlock>, first: u64, request: &Request) -> Option<&'b OpenBlock> {
    blocks.get(usize::try_from(request.block.checked_sub(first)?).ok()?)
}

fn block_of_mut<'b>(blocks: &'b mut VecDeque<OpenBlock>, first: u64, request: &Request) -> Option<&'b mut OpenBlock> {
    blocks.get_mut(usize::try_from(request.block.checked_sub(first)?).ok()?)
}

#[cfg(test)]
mod tests;
