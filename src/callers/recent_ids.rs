//! Callers who have left the door, and whose replies are still to come by. Bounded: some never come.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// So many are remembered at most, in each shard. If the oldest is forgotten too early, it is answered for nobody, or
/// its record is taken for another's.
pub(super) const CAPACITY: usize = 1024;

/// Whose reply has not come by then is forgotten: few requests may take that long.
pub(super) const RETENTION: Duration = Duration::from_secs(600);

/// Their correlation ids, the oldest first: version 7 UUIDs begin with their time.
#[derive(Debug, Default)]
pub(super) struct RecentIds(BTreeSet<Uuid>);

impl RecentIds {
    /// Remembers one, and forgets the oldest if that is too many or too long ago.
    pub(super) fn insert(&mut self, id: Uuid, now: SystemTime) {
        self.0.insert(id);
        while let Some(oldest) =
            self.0.first().copied().filter(|oldest| self.0.len() > CAPACITY || is_old(*oldest, now))
        {
            self.0.remove(&oldest);
        }
    }

    /// Forgets one; whether it was known.
    pub(super) fn remove(&mut self, id: Uuid) -> bool {
        self.0.remove(&id)
    }

    pub(super) fn contains(&self, id: Uuid) -> bool {
        self.0.contains(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

fn is_old(id: Uuid, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    id.get_timestamp().is_some_and(|came| Duration::from_secs(came.to_unix().0) + RETENTION < now)
}
