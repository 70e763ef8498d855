//! The clock that a seat keeps, with one timer for many evaluations.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Bounds the time of each of many futures, one after the other. A timer for each would wake another thread each time,
/// which takes longer than most evaluations: this one is only set anew once it has gone off.
#[derive(Debug)]
pub(super) struct Clock {
    limit: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Clock {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, timer: Box::pin(sleep(limit)) }
    }

    /// Waits for a future; `None` if it is not done within the limit. What is done counts, even if nobody comes to look
    /// before the limit.
    pub(super) async fn within<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let due = Instant::now() + self.limit;
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = self.timer.as_mut() => {
                    // It was set for an earlier future, unless this one is due.
                    let is_late = Instant::now() >= due;
                    self.timer.as_mut().reset(if is_late { Instant::now() + self.limit } else { due });
                    if is_late {
                        return None;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn within_bounds_each_future_by_itself() {
        let limit = Duration::from_millis(100);
        let mut clock = Clock::new(limit);
        // Together they take longer than the limit.
        for _ in 0..5 {
            assert_eq!(clock.within(sleep(limit / 2)).await, Some(()));
        }
        for _ in 0..2 {
            let begun = Instant::now();
            assert_eq!(clock.within(pending::<()>()).await, None);
            assert!(begun.elapsed() >= limit, "{:?}", begun.elapsed());
            // A pause between two futures is not counted.
            sleep(limit * 2).await;
        }
    }
}
