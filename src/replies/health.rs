//! Whether anything can be published: since when nothing could, though something waits for it, and why.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The state of publishing. Cheap to clone; all clones are one. Counting costs atomics only.
#[derive(Debug, Clone)]
pub struct PublishHealth(Arc<State>);

#[derive(Debug)]
struct State {
    start: Instant,
    under_way: AtomicUsize,
    /// When something was published last, or began to wait when nothing else did; milliseconds after the start.
    progress: AtomicU64,
    /// The last failure since then.
    reason: Mutex<Option<String>>,
}

/// One ending on its way to the broker; dropped once it is there, or is another's to publish.
#[derive(Debug)]
pub(super) struct UnderWay(PublishHealth);

impl Default for PublishHealth {
    fn default() -> Self {
        Self(Arc::new(State {
            start: Instant::now(),
            under_way: AtomicUsize::new(0),
            progress: AtomicU64::new(0),
            reason: Mutex::new(None),
        }))
    }
}

impl PublishHealth {
    /// How long nothing could be published, and the reason as far as it is known. None when nothing waits for that. In
    /// good times it is as long as one publishing takes.
    pub fn blocked(&self) -> Option<(Duration, String)> {
        if self.0.under_way.load(Ordering::Acquire) == 0 {
            return None;
        }
        let progress = Duration::from_millis(self.0.progress.load(Ordering::Acquire));
        let reason = self.0.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reason = reason.unwrap_or_else(|| "the broker has acknowledged nothing".to_owned());
        Some((self.0.start.elapsed().saturating_sub(progress), reason))
    }

    /// Counts one ending for as long as it is kept.
    pub(super) fn begin(&self) -> UnderWay {
        if self.0.under_way.fetch_add(1, Ordering::AcqRel) == 0 {
            self.touch();
        }
        UnderWay(self.clone())
    }

    /// The broker has something.
    pub(super) fn published(&self) {
        self.touch();
    }

    /// An attempt came to nothing.
    pub(super) fn failed(&self, reason: impl ToString) {
        *self.0.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_string());
    }

    fn touch(&self) {
        let now = u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.progress.store(now, Ordering::Release);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    #[test]
    fn it_is_blocked_from_the_last_success_on_while_something_waits() {
        let health = PublishHealth::default();
        health.failed("no broker");
        assert_eq!(health.blocked(), None);
        sleep(Duration::from_millis(30));
        let (first, second) = (health.begin(), health.begin());
        let (time, reason) = health.blocked().unwrap();
        assert!(time < Duration::from_millis(30) && reason == "no broker", "{time:?} {reason}");
        sleep(Duration::from_millis(30));
        assert!(health.blocked().unwrap().0 >= Duration::from_millis(29));
        health.published();
        drop(first);
        assert!(health.blocked().unwrap().0 < Duration::from_millis(29));
        drop(second);
        assert_eq!(health.blocked(), None);
    }
}
