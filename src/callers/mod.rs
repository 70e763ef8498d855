//! The HTTP callers of this process: those who wait for an answer, and those who have hung up.
//!
//! A caller waits under the correlation id of his request, and gets one answer: at once from the publisher, when the
//! reply was made in this process, or from the shim's reply consumer, when the reply's record arrives. A later answer
//! finds nobody. The callers who have hung up are remembered, so that nothing more is done for them. A request that
//! another process has taken in is not known here: its reply goes over its topic, and its deadline bounds the work for
//! it.
//!
//! The callers are sharded by id, so that callers and answers seldom meet at one lock; no lock is held while anything
//! waits.

mod recent_ids;
#[cfg(test)]
mod tests;

use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use self::recent_ids::RecentIds;
use crate::message::{Code, Fault, Headers, Request, Stage, header, wall_clock};

/// Number of shards, each with a lock of its own; more of them are less contention, and more memory for remembered ids.
const SHARDS: usize = 64;

/// Holds a record of the replies topic, or of a reply that is still to be written there.
#[derive(Debug)]
pub struct ReplyRecord {
    /// The record's headers.
    pub headers: Headers,
    /// The record's value.
    pub body: Bytes,
}

/// Holds the answer to a waiting caller: the reply, or the fault that says why there will be none.
pub type ReplyResult = Result<ReplyRecord, Fault>;

/// Registers the callers of this process: those who wait, and those who hung up a short while ago. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Callers(Arc<CallerRegistry>);

/// Refers to one caller by his correlation id; he may not be a caller of this process.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    callers: &'a Callers,
    id: Uuid,
}

/// Waits for one caller's answer. Dropping it before the answer is there is hanging up.
#[derive(Debug)]
pub struct WaitingCaller {
    callers: Callers,
    id: Uuid,
    answer: oneshot::Receiver<ReplyResult>,
}

/// Tells whose reply a received record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipient {
    /// The reply is a waiting caller's, who has it now.
    Waiting,
    /// The reply is that of a caller who got it ahead of its record.
    AnsweredAhead,
    /// The reply is nobody's in this process: it is late, repeated, or another instance's.
    Unknown,
}

#[derive(Debug)]
struct CallerRegistry {
    /// The topic and partition of the replies for the shim. Without a shim there is none, and nobody waits.
    address: OnceLock<(String, i32)>,
    /// Tells whether replies can be read. Changed before the shards are drained, and read under a shard's lock, so no
    /// caller begins to wait in a shard that has been drained.
    open: AtomicBool,
    /// Number of remembered callers who have hung up. While it is 0, no lock is taken to learn whether one has.
    hung_up: AtomicUsize,
    shards: [Shard; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    state: Mutex<ShardState>,
    /// Notified whenever a caller of the shard hangs up.
    hang_ups: Notify,
}

#[derive(Debug, Default)]
struct ShardState {
    waiting: HashMap<Uuid, oneshot::Sender<ReplyResult>>,
    /// Callers who have hung up, until their replies arrive.
    hung_up: RecentIds,
    /// Callers who were answered ahead of the records of their replies, until those arrive.
    answered: RecentIds,
}

impl Default for CallerRegistry {
    fn default() -> Self {
        Self {
            address: OnceLock::new(),
            open: AtomicBool::new(false),
            hung_up: AtomicUsize::new(0),
            shards: std::array::from_fn(|_| Shard::default()),
        }
    }
}

impl Callers {
    /// Lets callers wait from now on, as the replies in this partition are read.
    pub fn open(&self, topic: &str, partition: i32) {
        // The partition of an instance never changes, so the first address stays.
        self.0.address.get_or_init(|| (topic.to_owned(), partition));
        self.0.open.store(true, Ordering::SeqCst);
    }

    /// Refuses callers from now on, and answers the waiting ones with a fault.
    pub fn close(&self) {
        self.0.open.store(false, Ordering::SeqCst);
        for shard in &self.0.shards {
            for (_, caller) in lock(shard).waiting.drain() {
                // A caller who has just hung up needs no answer.
                let _ = caller.send(Err(closed_fault()));
            }
        }
    }

    /// Checks that callers may wait.
    ///
    /// # Errors
    /// When no reply could be read.
    pub fn ensure_open(&self) -> Result<(), Fault> {
        if self.0.open.load(Ordering::SeqCst) { Ok(()) } else { Err(closed_fault()) }
    }

    /// Registers a caller under this correlation id. To be called before the request is produced: the reply may be
    /// faster than the producer's return.
    ///
    /// # Errors
    /// When no reply could be read.
    pub fn wait(&self, id: Uuid) -> Result<WaitingCaller, Fault> {
        let (caller, answer) = oneshot::channel();
        let mut state = lock(self.shard(id));
        self.ensure_open()?;
        state.waiting.insert(id, caller);
        drop(state);
        Ok(WaitingCaller { callers: self.clone(), id, answer })
    }

    /// Gives a received reply record to the caller with its correlation id, if he still waits for it.
    pub fn receive(&self, id: Uuid, reply: impl FnOnce() -> ReplyRecord) -> Recipient {
        let mut state = lock(self.shard(id));
        let caller = state.waiting.remove(&id);
        let is_answered = state.answered.remove(id);
        self.forget(&mut state, id);
        drop(state);
        if is_answered {
            return Recipient::AnsweredAhead;
        }
        match caller.map(|caller| caller.send(Ok(reply()))) {
            Some(Ok(())) => Recipient::Waiting,
            Some(Err(_)) | None => Recipient::Unknown,
        }
    }

    /// Answers a caller with the fault for which his request has not reached the broker, so that no reply will come.
    pub fn fail(&self, id: Uuid, fault: Fault) {
        let mut state = lock(self.shard(id));
        let caller = state.waiting.remove(&id);
        self.forget(&mut state, id);
        drop(state);
        // A caller who has just hung up needs no answer.
        let _ = caller.map(|caller| caller.send(Err(fault)));
    }

    /// Tells whether the shim of this process reads the replies in this partition.
    pub fn read_replies_of(&self, topic: &str, partition: Option<i32>) -> bool {
        let Some((own_topic, own_partition)) = self.0.address.get() else { return false };
        partition == Some(*own_partition) && topic == own_topic
    }

    /// Finds the caller of a request, if it came in over HTTP.
    pub fn of(&self, request: &Request) -> Option<Caller<'_>> {
        request.headers.get(header::HTTP_TARGET)?;
        let id = Uuid::try_parse_ascii(request.headers.get(header::CORRELATION_ID)?).ok()?;
        Some(self.by_id(id))
    }

    /// Refers to the caller with this correlation id.
    pub fn by_id(&self, id: Uuid) -> Caller<'_> {
        Caller { callers: self, id }
    }

    fn hang_up_at(&self, id: Uuid, now: SystemTime) {
        let shard = self.shard(id);
        let mut state = lock(shard);
        if state.waiting.remove(&id).is_none() {
            return;
        }
        // The set may drop old ids as it takes this one. The global count is raised before it is lowered, so that it is
        // never 0 while a caller of this shard has hung up.
        let before = state.hung_up.len();
        state.hung_up.insert(id, now);
        self.0.hung_up.fetch_add(state.hung_up.len(), Ordering::AcqRel);
        self.0.hung_up.fetch_sub(before, Ordering::AcqRel);
        drop(state);
        shard.hang_ups.notify_waiters();
    }

    /// Forgets that a caller has hung up, as nobody will ask again.
    fn forget(&self, state: &mut ShardState, id: Uuid) {
        if state.hung_up.remove(id) {
            self.0.hung_up.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn has_anybody_hung_up(&self) -> bool {
        self.0.hung_up.load(Ordering::Acquire) > 0
    }

    fn shard(&self, id: Uuid) -> &Shard {
        // The last byte of a version 7 UUID is random.
        &self.0.shards[usize::from(id.as_bytes()[15]) % SHARDS]
    }
}

impl Caller<'_> {
    /// Gives the caller his reply ahead of its record; false when he does not wait in this process, or not any more.
    pub fn answer(&self, reply: ReplyRecord) -> bool {
        let mut state = lock(self.callers.shard(self.id));
        let Some(caller) = state.waiting.remove(&self.id) else { return false };
        state.answered.insert(self.id, wall_clock());
        drop(state);
        caller.send(Ok(reply)).is_ok()
    }

    /// Tells whether the caller has hung up.
    pub fn has_hung_up(&self) -> bool {
        self.callers.has_anybody_hung_up() && lock(self.callers.shard(self.id)).hung_up.contains(self.id)
    }

    /// Waits until the caller hangs up.
    pub async fn hung_up(&self) {
        loop {
            // The notification is requested before the check, so that no hang-up between the two is missed.
            let hang_up = self.callers.shard(self.id).hang_ups.notified();
            if self.has_hung_up() {
                return;
            }
            hang_up.await;
        }
    }
}

impl WaitingCaller {
    /// Returns the reply, or the fault that says why there will be none.
    pub async fn answer(&mut self) -> ReplyResult {
        // The sender is only ever dropped after it has sent.
        (&mut self.answer).await.unwrap_or_else(|_| Err(closed_fault()))
    }
}

impl Drop for WaitingCaller {
    fn drop(&mut self) {
        self.callers.hang_up_at(self.id, wall_clock());
    }
}

fn lock(shard: &Shard) -> MutexGuard<'_, ShardState> {
    shard.state.lock()
}

fn closed_fault() -> Fault {
    let message = "this instance is starting or shutting down and takes no calls; try again, or another instance";
    Fault::passing(Code::TemporarilyUnavailable, Stage::Publish, message).with_retry_after(Duration::from_secs(1))
}

#[cfg(test)]
impl Callers {
    /// Counts the waiting callers.
    pub(crate) fn waiting(&self) -> usize {
        self.0.shards.iter().map(|shard| lock(shard).waiting.len()).sum()
    }
}
