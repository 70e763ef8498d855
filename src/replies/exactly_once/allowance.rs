//! Size limit of transactions, adapted to what the broker has lately written in time. Pure.

use std::time::Duration;

/// Bytes of the first transaction.
const START: usize = 4 << 20;
/// Most bytes that any transaction may have.
const MOST: usize = 64 << 20;
/// Time in which a full transaction should be written. It is far less than what the coordinator gives a transaction,
/// since another may be under way beside it, and most of all since a transaction that is late is written in vain.
const TARGET: Duration = Duration::from_secs(1);

/// Adapts how many bytes one transaction may have. One publication may always be in it.
#[derive(Debug)]
pub(super) struct Allowance {
    bytes: usize,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { bytes: START }
    }
}

impl Allowance {
    /// Returns the bytes from which on a transaction takes nothing more.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in that this many bytes were written in this time.
    pub(super) fn written(&mut self, bytes: usize, took: Duration) {
        if took > TARGET && bytes >= self.bytes / 2 {
            // The limit falls to what would have been in time, but by no more than half, since much else may have taken
            // that time.
            let in_time = (bytes as f64 * TARGET.as_secs_f64() / took.as_secs_f64()) as usize;
            self.bytes = in_time.max(self.bytes / 2).clamp(1, MOST);
        } else if took < TARGET / 2 && bytes >= self.bytes {
            self.bytes = (self.bytes * 2).min(MOST);
        }
    }

    /// Takes in that this many bytes were not written in time.
    pub(super) fn late(&mut self, bytes: usize) {
        self.bytes = (self.bytes.min(bytes) / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Time that the coordinator gives a transaction.
    const PATIENCE: Duration = Duration::from_secs(7);

    /// Gathers publications of that size as a transaction does.
    fn gathered(allowance: &Allowance, publication: usize, waiting: usize) -> usize {
        let mut bytes = publication;
        while bytes < allowance.bytes() && bytes < waiting {
            bytes += publication;
        }
        bytes
    }

    proptest! {
        /// Simulates a link that is slow from the first or becomes slow, and that two transactions share: all is
        /// written in the end.
        #[test]
        fn allowance_drains_backlog_whatever_link_takes(
            bytes_per_second in 20_000_usize..2_000_000_000,
            publication in 100_usize..1_000_000,
            before in 1_usize..MOST,
        ) {
            // One publication has to be written in time.
            prop_assume!(publication * 2 < bytes_per_second * 6);
            let mut allowance = Allowance { bytes: before };
            let (mut late, mut time, mut written) = (0, 0.0, 0);
            for _ in 0..400 {
                let bytes = gathered(&allowance, publication, usize::MAX);
                let took = Duration::from_secs_f64(bytes as f64 * 2.0 / bytes_per_second as f64);
                if took > PATIENCE {
                    allowance.late(bytes);
                    late += 1;
                    continue;
                }
                allowance.written(bytes, took);
                written += bytes;
                time += took.as_secs_f64();
            }
            prop_assert!(late <= 24, "{late} late ones");
            prop_assert!(written as f64 >= time * bytes_per_second as f64 / 2.5, "{written} bytes in {time} s");
        }

        #[test]
        fn allowance_stays_within_bounds(
            steps in prop::collection::vec((any::<bool>(), 1_usize..100_000_000, 0_u64..100_000), 0..200),
        ) {
            let mut allowance = Allowance::default();
            for (late, bytes, milliseconds) in steps {
                if late { allowance.late(bytes) } else { allowance.written(bytes, Duration::from_millis(milliseconds)) }
                prop_assert!((1..=MOST).contains(&allowance.bytes()));
            }
        }
    }

    #[test]
    fn allowance_halves_down_to_one_publication_and_grows_again() {
        let mut allowance = Allowance::default();
        (0..30).for_each(|_| allowance.late(allowance.bytes()));
        assert_eq!(allowance.bytes(), 1);
        (0..30).for_each(|_| allowance.written(allowance.bytes(), Duration::from_millis(20)));
        assert_eq!(allowance.bytes(), MOST);
        // A transaction that was small anyway says nothing.
        allowance.written(1_000, Duration::from_secs(5));
        assert_eq!(allowance.bytes(), MOST);
        allowance.written(MOST, Duration::from_secs(4));
        assert_eq!(allowance.bytes(), MOST / 2);
    }
}
