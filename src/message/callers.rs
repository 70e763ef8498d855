//! Callers at the HTTP door of this process who have hung up, so that nothing more is done for their requests.
//!
//! The door says who has gone; whoever works for a caller asks. A request that another process has let in is not known
//! here: its deadline bounds it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use uuid::Uuid;

use super::{Request, header};

const SHARDS: usize = 64;

/// So many are remembered at most, in each shard. If the oldest is forgotten too early, it is answered for nobody.
const MOST: usize = 1024;

/// Whose reply has not come by then is forgotten: few requests may take that long.
const MEMORY: Duration = Duration::from_secs(600);

/// Those who have hung up before their answer came. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Callers(Arc<Shared>);

/// One caller of this process, perhaps.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    callers: &'a Callers,
    id: Uuid,
}

#[derive(Debug)]
struct Shared {
    /// How many have gone. While nobody has, nobody takes a lock to know that.
    gone: AtomicUsize,
    shards: [Shard; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    /// Their correlation ids, the oldest first: version 7 UUIDs begin with their time.
    gone: Mutex<BTreeSet<Uuid>>,
    /// Told whenever one has gone.
    left: Notify,
}

impl Default for Callers {
    fn default() -> Self {
        Self(Arc::new(Shared { gone: AtomicUsize::new(0), shards: std::array::from_fn(|_| Shard::default()) }))
    }
}

impl Callers {
    /// The caller with this correlation id does not wait for the answer any more, which has not come yet.
    pub fn hung_up(&self, id: Uuid) {
        self.hung_up_at(id, SystemTime::now());
    }

    fn hung_up_at(&self, id: Uuid, now: SystemTime) {
        let shard = self.shard(id);
        let mut gone = lock(shard);
        let before = gone.len();
        gone.insert(id);
        while let Some(oldest) = gone.first().copied().filter(|oldest| gone.len() > MOST || is_old(*oldest, now)) {
            gone.remove(&oldest);
        }
        self.0.gone.fetch_add(gone.len(), Ordering::AcqRel);
        self.0.gone.fetch_sub(before, Ordering::AcqRel);
        drop(gone);
        shard.left.notify_waiters();
    }

    /// The request with this correlation id is answered: nobody asks for its caller again.
    pub fn forget(&self, id: Uuid) {
        if !self.is_empty() && lock(self.shard(id)).remove(&id) {
            self.0.gone.fetch_sub(1, Ordering::AcqRel);
        }
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

    fn is_empty(&self) -> bool {
        self.0.gone.load(Ordering::Acquire) == 0
    }

    fn shard(&self, id: Uuid) -> &Shard {
        // The last byte of a version 7 UUID is random.
        &self.0.shards[usize::from(id.as_bytes()[15]) % SHARDS]
    }
}

impl Caller<'_> {
    /// Whether the caller has hung up.
    pub fn has_gone(&self) -> bool {
        !self.callers.is_empty() && lock(self.callers.shard(self.id)).contains(&self.id)
    }

    /// Waits until the caller hangs up.
    pub async fn gone(&self) {
        loop {
            // From now on no word is missed.
            let left = self.callers.shard(self.id).left.notified();
            if self.has_gone() {
                return;
            }
            left.await;
        }
    }
}

fn is_old(id: Uuid, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    id.get_timestamp().is_some_and(|came| Duration::from_secs(came.to_unix().0) + MEMORY < now)
}

fn lock(shard: &Shard) -> MutexGuard<'_, BTreeSet<Uuid>> {
    shard.gone.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::message::{Headers, Source};

    fn request(headers: &[(&str, &str)]) -> Request {
        Request {
            source: Source { topic: "requests".into(), partition: 0, offset: 0 },
            timestamp: None,
            key: None,
            payload: None,
            headers: Headers::from_pairs(headers.iter().map(|(name, value)| (*name, value.as_bytes()))),
            parked: None,
        }
    }

    fn count(callers: &Callers) -> usize {
        let counted = callers.0.gone.load(Ordering::SeqCst);
        let held: usize = callers.0.shards.iter().map(|shard| lock(shard).len()).sum();
        assert_eq!(counted, held);
        counted
    }

    #[test]
    fn only_who_has_hung_up_has_gone_until_the_reply_comes_by() {
        let callers = Callers::default();
        let ids = [Uuid::now_v7(), Uuid::now_v7()];
        let [caller, other] = ids.map(|id| callers.by_id(id));
        let mut gone = Box::pin(caller.gone());
        assert!(!caller.has_gone() && gone.as_mut().now_or_never().is_none());
        (0..2).for_each(|_| callers.hung_up(ids[0]));
        assert!(caller.has_gone() && !other.has_gone());
        assert!(gone.now_or_never().is_some() && other.gone().now_or_never().is_none());
        assert_eq!(count(&callers), 1);
        callers.forget(ids[1]);
        callers.forget(ids[0]);
        callers.forget(ids[0]);
        assert!(!caller.has_gone() && callers.is_empty());
        assert_eq!(count(&callers), 0);
    }

    #[test]
    fn those_who_came_over_kafka_are_nobodys_callers() {
        let (callers, id) = (Callers::default(), Uuid::now_v7().to_string());
        let correlation = ("kafka_correlationId", &*id);
        assert!(callers.of(&request(&[correlation])).is_none());
        assert!(callers.of(&request(&[(header::HTTP_TARGET, "POST /invocations")])).is_none());
        let named = ("kafka_correlationId", "order-1");
        assert!(callers.of(&request(&[named, (header::HTTP_TARGET, "POST /invocations")])).is_none());
        let request = request(&[correlation, (header::HTTP_TARGET, "POST /invocations")]);
        assert_eq!(callers.of(&request).unwrap().id.to_string(), id);
    }

    #[test]
    fn whose_reply_never_comes_is_forgotten_in_the_end() {
        let callers = Callers::default();
        let ids: Vec<_> = (0..3 * MOST * SHARDS).map(|_| Uuid::now_v7()).collect();
        ids.iter().for_each(|id| callers.hung_up(*id));
        assert_eq!(count(&callers), MOST * SHARDS);
        let has_gone = |id| callers.by_id(id).has_gone();
        assert!(!has_gone(ids[0]) && has_gone(ids[ids.len() - 1]));
        // One in each shard comes later.
        let later = SystemTime::now() + MEMORY + Duration::from_secs(2);
        for last in 0..SHARDS as u8 {
            let mut bytes = *ids[0].as_bytes();
            bytes[15] = last;
            callers.hung_up_at(Uuid::from_bytes(bytes), later);
        }
        assert_eq!(count(&callers), 0);
    }
}
