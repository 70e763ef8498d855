//! When a route is not called for a while: a pure policy. Times are given in, as durations since some moment.

use std::fmt;
use std::time::Duration;

use crate::config;

/// In how many parts the window slides.
const BUCKETS: usize = 10;

/// Lets calls through until too many of them fail or are slow; then none for a while; then probes, one after the other.
#[derive(Debug)]
pub struct Breaker {
    policy: config::Breaker,
    window: Window,
    state: State,
    /// Goes up with each change of the state, so that calls let through before it are told from those after it.
    generation: u64,
}

/// What a breaker does with calls. The numbers are those of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Lets them through.
    Closed = 0,
    /// Lets one through at a time.
    HalfOpen = 1,
    /// Lets none through.
    Open = 2,
}

/// The right to make one call. It must be brought back with [`Breaker::end`].
#[derive(Debug)]
#[must_use]
pub struct Pass {
    generation: u64,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Whether it failed through no fault of its caller's.
    pub failed: bool,
    /// How long it took.
    pub took: Duration,
}

/// Why a call is not let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// How long ago it opened.
    pub open_for: Duration,
    /// How long it still stays open.
    pub left: Duration,
    /// Why it opened.
    pub trip: Trip,
}

/// Why a breaker opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trip {
    /// Too many calls failed.
    Errors(Tally),
    /// Too many calls were slow.
    Slow(Tally),
    /// A probe was answered badly.
    Probe,
}

/// Calls that have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub calls: usize,
    /// Those that failed.
    pub errors: usize,
    /// Those that were slow, whether they failed or not.
    pub slow: usize,
}

#[derive(Debug)]
enum State {
    Closed,
    Open { since: Duration, trip: Trip },
    HalfOpen { since: Duration, trip: Trip, good: usize, probing: bool },
}

/// What was counted of late, in parts of which the oldest is forgotten as a whole.
#[derive(Debug, Default)]
struct Window {
    buckets: [Tally; BUCKETS],
    /// The number of the newest bucket, since the beginning of time.
    newest: u128,
}

impl Breaker {
    /// A closed breaker that has seen nothing.
    pub fn new(policy: config::Breaker) -> Self {
        Self { policy, window: Window::default(), state: State::Closed, generation: 0 }
    }

    /// What it does with calls now.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Closed => Phase::Closed,
            State::Open { .. } => Phase::Open,
            State::HalfOpen { .. } => Phase::HalfOpen,
        }
    }

    /// Why it is not closed.
    pub fn trip(&self) -> Option<&Trip> {
        match &self.state {
            State::Closed => None,
            State::Open { trip, .. } | State::HalfOpen { trip, .. } => Some(trip),
        }
    }

    /// Whether a call would not be let through now.
    pub fn refuses(&self, now: Duration) -> bool {
        match self.state {
            State::Closed => false,
            State::Open { since, .. } => now < since.saturating_add(self.policy.open_for),
            State::HalfOpen { probing, .. } => probing,
        }
    }

    /// Lets a call through, or tells why not. Once it has been open for long enough, the next call is a probe.
    ///
    /// # Errors
    /// When the call is not to be made.
    pub fn admit(&mut self, now: Duration) -> Result<Pass, Refusal> {
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
                return Err(Refusal { open_for, left, trip: trip.clone() });
            }
        }
        Ok(Pass { generation: self.generation })
    }

    /// Whether it still is what it was when it let this call through. A call that was not made yet is made no more when
    /// it is not.
    pub fn is_valid(&self, pass: &Pass) -> bool {
        pass.generation == self.generation
    }

    /// A call has ended; `None` when nothing can be concluded from it: it was given up, or its caller was at fault.
    pub fn end(&mut self, pass: Pass, now: Duration, ended: Option<Ended>) {
        if !self.is_valid(&pass) {
            return;
        }
        let slow = |took: Duration| self.policy.slow_call.is_some_and(|limit| took >= limit);
        let verdict = ended.map(|ended| (ended.failed, slow(ended.took)));
        match (&mut self.state, verdict) {
            (State::Closed, Some((failed, slow))) => {
                let width = self.policy.window / BUCKETS as u32;
                let tally = self.window.add(now, width, failed, slow);
                if let Some(trip) = trip(&self.policy, tally) {
                    self.change(State::Open { since: now, trip });
                }
            }
            (State::HalfOpen { good, probing, .. }, Some((false, false))) => {
                *probing = false;
                *good += 1;
                if *good >= self.policy.probes {
                    self.window = Window::default();
                    self.change(State::Closed);
                }
            }
            (State::HalfOpen { .. }, Some(_)) => self.change(State::Open { since: now, trip: Trip::Probe }),
            (State::HalfOpen { probing, .. }, None) => *probing = false,
            (State::Closed, None) | (State::Open { .. }, _) => {}
        }
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }
}

fn trip(policy: &config::Breaker, tally: Tally) -> Option<Trip> {
    let reaches = |count: usize, share: f64| count as f64 >= share * tally.calls as f64;
    if tally.calls < policy.minimum_calls {
        None
    } else if reaches(tally.errors, policy.error_share) {
        Some(Trip::Errors(tally))
    } else if policy.slow_call.is_some() && reaches(tally.slow, policy.slow_share) {
        Some(Trip::Slow(tally))
    } else {
        None
    }
}

impl Window {
    /// Counts a call; what is in the window now. A time before the newest counts as the newest.
    fn add(&mut self, now: Duration, width: Duration, failed: bool, slow: bool) -> Tally {
        let number = now.as_nanos() / width.as_nanos().max(1);
        let forgotten = number.saturating_sub(self.newest).min(BUCKETS as u128);
        self.newest = self.newest.max(number);
        for back in 0..forgotten {
            self.buckets[index(self.newest - back)] = Tally::default();
        }
        let bucket = &mut self.buckets[index(self.newest)];
        *bucket = bucket.and(Tally { calls: 1, errors: failed.into(), slow: slow.into() });
        self.buckets.into_iter().fold(Tally::default(), Tally::and)
    }
}

fn index(number: u128) -> usize {
    // What is left of a division by ten fits.
    (number % BUCKETS as u128) as usize
}

impl Tally {
    fn and(self, other: Self) -> Self {
        Self { calls: self.calls + other.calls, errors: self.errors + other.errors, slow: self.slow + other.slow }
    }
}

impl Phase {
    /// The word that metrics use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

impl fmt::Display for Trip {
    /// Such as `12 of 20 calls failed`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errors(tally) => write!(formatter, "{} of {} calls failed", tally.errors, tally.calls),
            Self::Slow(tally) => write!(formatter, "{} of {} calls were slow", tally.slow, tally.calls),
            Self::Probe => formatter.write_str("a probe failed or was slow"),
        }
    }
}

#[cfg(test)]
mod tests;
