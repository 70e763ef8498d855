//! A bounded set of recent correlation ids, whose replies are still to come. Some replies never come, hence the bounds.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// Ids remembered at most, in each shard. An id that is forgotten too early has its request answered for nobody, or has
/// its reply record taken for another instance's.
pub(super) const CAPACITY: usize = 1024;

/// Longest time that an id is remembered without its reply: few requests may take that long.
pub(super) const RETENTION: Duration = Duration::from_secs(600);

/// Keeps correlation ids, the oldest first: version 7 UUIDs begin with their time.
#[derive(Debug, Default)]
pub(super) struct RecentIds(BTreeSet<Uuid>);

impl RecentIds {
    /// Adds an id, and removes the oldest ones while there are too many or they are too old.
    pub(super) fn insert(&mut self, id: Uuid, now: SystemTime) {
        self.0.insert(id);
        while let Some(oldest) =
            self.0.first().copied().filter(|oldest| self.0.len() > CAPACITY || is_old(*oldest, now))
        {
            self.0.remove(&oldest);
        }
    }

    /// Removes an id; false when it was not in the set.
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
