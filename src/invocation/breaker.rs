//! The circuit breaker: a pure policy that keeps calls from a failing route for a while. Times are given in, as
//! durations since some moment.

use std::fmt;
use std::time::Duration;

use crate::config;

/// Parts in which the window slides: the oldest tenth is forgotten at once.
const BUCKETS: usize = 10;

/// Lets calls through until too many of them fail or are slow; then refuses all for a while; then lets probes through,
/// one after the other.
#[derive(Debug)]
pub struct Breaker {
    policy: config::Breaker,
    window: SlidingWindow,
    state: State,
    /// Number of changes of the state, so that calls let through before a change are told from those after it.
    generation: u64,
}

/// Names the states of a breaker. The numbers are those of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerPhase {
    /// Lets calls through.
    Closed = 0,
    /// Lets one call through at a time, as a probe.
    HalfOpen = 1,
    /// Lets no call through.
    Open = 2,
}

/// Permits one call. A pass must be brought back with [`Breaker::end`].
#[derive(Debug)]
#[must_use]
pub struct CallPass {
    generation: u64,
}

/// Tells the outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallOutcome {
    /// Tells whether the call failed through no fault of its caller's.
    pub failed: bool,
    /// Duration of the call.
    pub took: Duration,
}

/// Tells why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerOpen {
    /// Time since the breaker opened.
    pub open_for: Duration,
    /// Time for which it still stays open.
    pub left: Duration,
    /// Reason for which it opened.
    pub trip: Trip,
}

/// Tells why a breaker opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trip {
    /// Too many calls failed.
    Errors(CallCounts),
    /// Too many calls were slow.
    Slow(CallCounts),
    /// A probe was answered badly.
    Probe,
}

/// Counts calls that have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallCounts {
    /// All calls.
    pub calls: usize,
    /// Calls that failed.
    pub errors: usize,
    /// Calls that were slow, whether they failed or not.
    pub slow: usize,
}

#[derive(Debug)]
enum State {
    Closed,
    Open { since: Duration, trip: Trip },
    HalfOpen { since: Duration, trip: Trip, good: usize, probing: bool },
}

/// Counts the calls of late in parts, of which the oldest is forgotten as a whole.
#[derive(Debug, Default)]
struct SlidingWindow {
    buckets: [CallCounts; BUCKETS],
    /// Number of the newest bucket, since the beginning of time.
    newest: u128,
}

impl Breaker {
    /// Makes a closed breaker that has seen nothing.
    pub fn new(policy: config::Breaker) -> Self {
        Self { policy, window: SlidingWindow::default(), state: State::Closed, generation: 0 }
    }

    /// Returns the state.
    pub fn phase(&self) -> BreakerPhase {
        match self.state {
            State::Closed => BreakerPhase::Closed,
            State::Open { .. } => BreakerPhase::Open,
            State::HalfOpen { .. } => BreakerPhase::HalfOpen,
        }
    }

    /// Returns the reason why the breaker is not closed.
    pub fn trip(&self) -> Option<&Trip> {
        match &self.state {
            State::Closed => None,
            State::Open { trip, .. } | State::HalfOpen { trip, .. } => Some(trip),
        }
    }

    /// Tells whether a call would be refused now.
    pub fn refuses(&self, now: Duration) -> bool {
        match self.state {
            State::Closed => false,
            State::Open { since, .. } => now < since.saturating_add(self.policy.open_for),
            State::HalfOpen { probing, .. } => probing,
        }
    }

    /// Lets a call through, or tells why not. Once the breaker has been open for long enough, the next call is a probe.
    ///
    /// # Errors
    /// When the call is not to be made.
    pub fn admit(&mut self, now: Duration) -> Result<CallPass, BreakerOpen> {
        if let State::Open { since, trip } = &self.state
            && !self.refuses(now)
        {
            let (since, trip) = (*since, trip.clone());
            self.change(State::HalfOpen { since, trip, good: 0, probing: false });
        }
        match &mut self.state {
            State::Closed => {}
            State::HalfOpen { probing, .. } if !*probing => *probing = true,
            State::HalfOpen { since, trip, .. } | State::Open { since, trip } => {
                let open_for = now.saturating_sub(*since);
                let left = self.policy.open_for.saturating_sub(open_for);
                return Err(BreakerOpen { open_for, left, trip: trip.clone() });
            }
        }
        Ok(CallPass { generation: self.generation })
    }

    /// Tells whether the state is still the one in which this call was let through. If not, a call that was not made
    /// yet is made no more.
    pub fn is_valid(&self, pass: &CallPass) -> bool {
        pass.generation == self.generation
    }

    /// Ends a call; `None` when nothing can be concluded from it: the call was given up, or its caller was at fault.
    pub fn end(&mut self, pass: CallPass, now: Duration, ended: Option<CallOutcome>) {
        // A call from before a change of the state says nothing about the time after it.
        if !self.is_valid(&pass) {
            return;
        }
        let slow = |took: Duration| self.policy.slow_call.is_some_and(|limit| took >= limit);
        let verdict = ended.map(|ended| (ended.failed, slow(ended.took)));
        match (&mut self.state, verdict) {
            (State::Closed, Some((failed, slow))) => {
                let width = self.policy.window / BUCKETS as u32;
                let counts = self.window.add(now, width, failed, slow);
                if let Some(trip) = trip(&self.policy, counts) {
                    self.change(State::Open { since: now, trip });
                }
            }
            (State::HalfOpen { good, probing, .. }, Some((false, false))) => {
                *probing = false;
                *good += 1;
                if *good >= self.policy.probes {
                    self.window = SlidingWindow::default();
                    self.change(State::Closed);
                }
            }
            (State::HalfOpen { .. }, Some(_)) => self.change(State::Open { since: now, trip: Trip::Probe }),
            // A lost probe makes room for the next.
            (State::HalfOpen { probing, .. }, None) => *probing = false,
            (State::Closed, None) | (State::Open { .. }, _) => {}
        }
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }
}

fn trip(policy: &config::Breaker, counts: CallCounts) -> Option<Trip> {
    let reaches = |count: usize, share: f64| count as f64 >= share * counts.calls as f64;
    if counts.calls < policy.minimum_calls {
        None
    } else if reaches(counts.errors, policy.error_share) {
        Some(Trip::Errors(counts))
    } else if policy.slow_call.is_some() && reaches(counts.slow, policy.slow_share) {
        Some(Trip::Slow(counts))
    } else {
        None
    }
}

impl SlidingWindow {
    /// Counts a call, and returns the sum of the window. A time before the newest bucket counts as the newest.
    fn add(&mut self, now: Duration, width: Duration, failed: bool, slow: bool) -> CallCounts {
        let number = now.as_nanos() / width.as_nanos().max(1);
        let forgotten = number.saturating_sub(self.newest).min(BUCKETS as u128);
        self.newest = self.newest.max(number);
        for back in 0..forgotten {
            self.buckets[index(self.newest - back)] = CallCounts::default();
        }
        let bucket = &mut self.buckets[index(self.newest)];
        *bucket = bucket.and(CallCounts { calls: 1, errors: failed.into(), slow: slow.into() });
        self.buckets.into_iter().fold(CallCounts::default(), CallCounts::and)
    }
}

fn index(number: u128) -> usize {
    // The remainder of a division by ten fits.
    (number % BUCKETS as u128) as usize
}

impl CallCounts {
    fn and(self, other: Self) -> Self {
        Self { calls: self.calls + other.calls, errors: self.errors + other.errors, slow: self.slow + other.slow }
    }
}

impl BreakerPhase {
    /// Returns the word that metrics use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

impl fmt::Display for Trip {
    /// Writes the reason, such as `12 of 20 calls failed`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errors(counts) => write!(formatter, "{} of {} calls failed", counts.errors, counts.calls),
            Self::Slow(counts) => write!(formatter, "{} of {} calls were slow", counts.slow, counts.calls),
            Self::Probe => formatter.write_str("a probe failed or was slow"),
        }
    }
}

#[cfg(test)]
mod tests;
