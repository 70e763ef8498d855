//! Who waits at the HTTP door of this process, and who does so no longer.
//!
//! A caller waits under the correlation id of his request, and gets one answer: from whoever in this process has it, at
//! once, or from the door, when the record of the reply comes by. Whatever comes after that finds nobody. The door also
//! says who has hung up; whoever works for a caller asks, so that nothing more is done for him. A request that another
//! process has let in is not known here: its reply takes the way of its topic, and its deadline bounds it.
//!
//! Sharded, so that callers and those who answer seldom meet; no lock is held while anything waits.

mod recent_ids;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use self::recent_ids::RecentIds;
use crate::message::{Code, Fault, Headers, Request, Stage, header};

const SHARDS: usize = 64;

/// One record of the replies topic, or what will be one.
#[derive(Debug)]
pub struct ReplyRecord {
    /// Its headers.
    pub headers: Headers,
    /// Its value.
    pub body: Bytes,
}

/// What a caller who waits gets: the reply, or why there will be none.
pub type ReplyResult = Result<ReplyRecord, Fault>;

/// Everyone who waits at the door of this process, or has left it a short while ago. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Callers(Arc<CallerRegistry>);

/// One caller of this process, perhaps.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    callers: &'a Callers,
    id: Uuid,
}

/// A caller's own side of waiting. Dropping it before the answer is there is hanging up.
#[derive(Debug)]
pub struct WaitingCaller {
    callers: Callers,
    id: Uuid,
    answer: oneshot::Receiver<ReplyResult>,
}

/// Whose a reply record is that has come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipient {
    /// A caller's, who has it now.
    Waiting,
    /// A caller's, who got this answer ahead of its record.
    AnsweredAhead,
    /// Nobody's who waits here: it is late, repeated, or another instance's.
    Unknown,
}

#[derive(Debug)]
struct CallerRegistry {
    /// Where the replies for the door come. Where there is no door, nobody waits.
    address: OnceLock<(String, i32)>,
    /// Whether replies can be read. Changed before the shards are drained, and read under a shard's lock.
    open: AtomicBool,
    /// How many have gone. While nobody has, nobody takes a lock to know that.
    hung_up: AtomicUsize,
    shards: [Shard; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    known: Mutex<ShardState>,
    /// Told whenever one has gone.
    hang_ups: Notify,
}

#[derive(Debug, Default)]
struct ShardState {
    waiting: HashMap<Uuid, oneshot::Sender<ReplyResult>>,
    /// Those who have hung up, until their replies come by.
    hung_up: RecentIds,
    /// Those who were answered ahead of the records of their replies, until these come by.
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
    /// From now on the replies in this partition are read, so callers may wait for them.
    pub fn open(&self, topic: &str, partition: i32) {
        // A door never moves.
        self.0.address.get_or_init(|| (topic.to_owned(), partition));
        self.0.open.store(true, Ordering::SeqCst);
    }

    /// From now on nobody may wait, and whoever does is told so.
    pub fn close(&self) {
        self.0.open.store(false, Ordering::SeqCst);
        for shard in &self.0.shards {
            for (_, caller) in lock(shard).waiting.drain() {
                // A caller who has just gone needs no answer.
                let _ = caller.send(Err(closed_fault()));
            }
        }
    }

    /// Whether callers may wait.
    ///
    /// # Errors
    /// When no reply could be read.
    pub fn ensure_open(&self) -> Result<(), Fault> {
        if self.0.open.load(Ordering::SeqCst) { Ok(()) } else { Err(closed_fault()) }
    }

    /// Waits under this correlation id. To be called before the request is produced: its reply may be faster than we are.
    ///
    /// # Errors
    /// When no reply could be read.
    pub fn wait(&self, id: Uuid) -> Result<WaitingCaller, Fault> {
        let (caller, answer) = oneshot::channel();
        let mut known = lock(self.shard(id));
        self.ensure_open()?;
        known.waiting.insert(id, caller);
        drop(known);
        Ok(WaitingCaller { callers: self.clone(), id, answer })
    }

    /// A reply record has come by: gives it to the caller with its correlation id, if he waits for it still.
    pub fn receive(&self, id: Uuid, reply: impl FnOnce() -> ReplyRecord) -> Recipient {
        let mut known = lock(self.shard(id));
        let caller = known.waiting.remove(&id);
        let is_answered = known.answered.remove(id);
        self.forget(&mut known, id);
        drop(known);
        if is_answered {
            return Recipient::AnsweredAhead;
        }
        match caller.map(|caller| caller.send(Ok(reply()))) {
            Some(Ok(())) => Recipient::Waiting,
            Some(Err(_)) | None => Recipient::Unknown,
        }
    }

    /// The request with this correlation id has not come to the broker, so no reply will come: its caller is told why.
    pub fn fail(&self, id: Uuid, fault: Fault) {
        let mut known = lock(self.shard(id));
        let caller = known.waiting.remove(&id);
        self.forget(&mut known, id);
        drop(known);
        // A caller who has just gone needs no answer.
        let _ = caller.map(|caller| caller.send(Err(fault)));
    }

    /// Whether it is this process's door that reads the replies there.
    pub fn read_replies_of(&self, topic: &str, partition: Option<i32>) -> bool {
        let Some((own_topic, own_partition)) = self.0.address.get() else { return false };
        partition == Some(*own_partition) && topic == own_topic
    }

    /// Who waits for the answer to this request, if it came in by an HTTP door.
    pub fn of(&self, request: &Request) -> Option<Caller<'_>> {
        request.headers.get(header::HTTP_TARGET)?;
        let id = Uuid::try_parse_ascii(request.headers.get(header::CORRELATION_ID)?).ok()?;
        Some(self.by_id(id))
    }

    /// The caller with this correlation id.
    pub fn by_id(&self, id: Uuid) -> Caller<'_> {
        Caller { callers: self, id }
    }

    fn hang_up_at(&self, id: Uuid, now: SystemTime) {
        let shard = self.shard(id);
        let mut known = lock(shard);
        if known.waiting.remove(&id).is_none() {
            return;
        }
        let before = known.hung_up.len();
        known.hung_up.insert(id, now);
        self.0.hung_up.fetch_add(known.hung_up.len(), Ordering::AcqRel);
        self.0.hung_up.fetch_sub(before, Ordering::AcqRel);
        drop(known);
        shard.hang_ups.notify_waiters();
    }

    /// Nobody asks again whether this caller has gone.
    fn forget(&self, known: &mut ShardState, id: Uuid) {
        if known.hung_up.remove(id) {
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
    /// Gives the caller his answer ahead of its record; false when he does not wait here, or not any more.
    pub fn answer(&self, reply: ReplyRecord) -> bool {
        let mut known = lock(self.callers.shard(self.id));
        let Some(caller) = known.waiting.remove(&self.id) else { return false };
        known.answered.insert(self.id, SystemTime::now());
        drop(known);
        caller.send(Ok(reply)).is_ok()
    }

    /// Whether the caller has hung up.
    pub fn has_gone(&self) -> bool {
        self.callers.has_anybody_hung_up() && lock(self.callers.shard(self.id)).hung_up.contains(self.id)
    }

    /// Waits until the caller hangs up.
    pub async fn gone(&self) {
        loop {
            // From now on no word is missed.
            let hang_up = self.callers.shard(self.id).hang_ups.notified();
            if self.has_gone() {
                return;
            }
            hang_up.await;
        }
    }
}

impl WaitingCaller {
    /// The reply, or why there will be none.
    pub async fn answer(&mut self) -> ReplyResult {
        // The sender is only ever dropped after it has sent.
        (&mut self.answer).await.unwrap_or_else(|_| Err(closed_fault()))
    }
}

impl Drop for WaitingCaller {
    fn drop(&mut self) {
        self.callers.hang_up_at(self.id, SystemTime::now());
    }
}

fn lock(shard: &Shard) -> MutexGuard<'_, ShardState> {
    shard.known.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed_fault() -> Fault {
    let message = "this instance is starting or shutting down and takes no calls; try again, or another instance";
    Fault::passing(Code::TemporarilyUnavailable, Stage::Publish, message).with_retry_after(Duration::from_secs(1))
}

#[cfg(test)]
impl Callers {
    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.0.shards.iter().map(|shard| lock(shard).waiting.len()).sum()
    }
}
