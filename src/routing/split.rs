//! The split of requests between routes that share: those of an endpoint without a condition, and those with the same
//! one.
//!
//! Shares are kept by weighted rendezvous hashing: each value has a distance from each route, the route's weight
//! divides that distance, and the value belongs to the nearest route. When one weight changes, the only values that
//! move are those that this route gains or loses, whatever the number and order of routes; no value moves between two
//! others.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::sticky;
use crate::config::Strategy;

/// Assumed time of a call, in seconds, for a route that has not ended one yet. The fastest of the other routes counts
/// instead if it is faster: so an unknown route is tried. A longer time never counts, so that a route which only fails
/// is not preferred.
const UNKNOWN: f64 = 0.1;

/// Routes that share requests, and the strategy by which they do.
#[derive(Debug)]
pub(super) struct Split {
    strategy: Strategy,
    members: Vec<Member>,
    /// Number of requests given out in turn so far; its remainder is the next member.
    turn: AtomicUsize,
}

/// One of the routes of a [`Split`].
#[derive(Debug)]
pub(super) struct Member {
    /// Index of the route in the endpoint's routes.
    pub(super) route: usize,
    /// Part of all weights, from 0 to 1.
    pub(super) share: f64,
    /// Hash of endpoint and alias, which makes the route's distances independent of those of the others.
    salt: u64,
}

/// The work of a route, for the strategy `least_loaded`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LoadReading {
    /// Requests that the route has and has not answered, those in its queue included.
    pub in_flight: usize,
    /// Mean time of a call, in seconds, if one has been seen.
    pub mean: Option<f64>,
}

impl Member {
    /// Makes a member with a weight of its own.
    pub(super) fn new(endpoint: &str, alias: &str, route: usize, weight: f64) -> Self {
        Self { route, share: weight, salt: sticky::salt(endpoint, alias) }
    }

    /// Returns the distance of the member from a value, which belongs to the nearest member. A member without a share
    /// is infinitely far away.
    pub(super) fn distance(&self, value: u64) -> f64 {
        -sticky::position(self.salt, value).ln() / self.share
    }
}

impl Split {
    /// Makes a split of routes in their order, with weights of 0 or more.
    pub(super) fn new(strategy: Strategy, mut members: Vec<Member>) -> Self {
        // Weights are divided in two steps, since the sum of large weights may be too large for a float.
        let largest = members.iter().map(|member| member.share).fold(0.0, f64::max);
        divide(&mut members, largest);
        let sum = members.iter().map(|member| member.share).sum();
        divide(&mut members, sum);
        Self { strategy, members, turn: AtomicUsize::new(0) }
    }

    /// Returns the strategy of the split; a single route takes all.
    pub(super) fn strategy(&self) -> Strategy {
        if self.members.len() > 1 { self.strategy } else { Strategy::First }
    }

    /// Returns the members, in the order of the routes.
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Returns the first route.
    pub(super) fn first(&self) -> Option<usize> {
        self.members.first().map(|member| member.route)
    }

    /// Returns the route that a chance, from 0 up to and without 1, falls on.
    pub(super) fn by_chance(&self, chance: f64) -> Option<usize> {
        let mut left = chance;
        let drawn = self.members.iter().filter(|member| member.share > 0.0).find(|member| {
            left -= member.share;
            left < 0.0
        });
        // The shares sum up to 1, but for rounding: the last able member takes the rest.
        let drawn = drawn.or_else(|| self.members.iter().rfind(|member| member.share > 0.0));
        drawn.map(|member| member.route)
    }

    /// Returns the route that a value belongs to.
    pub(super) fn by_hash(&self, value: u64) -> Option<usize> {
        let able = self.members.iter().filter(|member| member.share > 0.0);
        let distances = able.map(|member| (member.distance(value), member));
        let nearest = distances.min_by(|(one, a), (other, b)| one.total_cmp(other).then(a.salt.cmp(&b.salt)));
        nearest.map(|(_, member)| member.route)
    }

    /// Returns the route that is next in turn.
    pub(super) fn in_turn(&self) -> Option<usize> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.members.get(turn.checked_rem(self.members.len())?).map(|member| member.route)
    }

    /// Returns the route that would answer one more request first, by the `load` of the route with each index. Ties are
    /// broken by chance: `below` gives a random number below its argument.
    pub(super) fn least_loaded(
        &self,
        load: impl Fn(usize) -> LoadReading,
        mut below: impl FnMut(usize) -> usize,
    ) -> Option<usize> {
        // A route of unknown time counts as fast as the fastest, so that it is tried.
        let means = self.members.iter().filter_map(|member| load(member.route).mean);
        let unknown = means.fold(UNKNOWN, f64::min);
        let mut best: Option<(f64, usize)> = None;
        let mut ties = 0;
        for member in &self.members {
            let load = load(member.route);
            let wait = (load.in_flight + 1) as f64 * load.mean.unwrap_or(unknown);
            // A shorter wait wins; among equals each of `ties` routes is kept with the same chance (reservoir sampling).
            match best {
                Some((least, _)) if wait > least => continue,
                Some((least, _)) if wait == least => ties += 1,
                _ => ties = 1,
            }
            if below(ties) == 0 {
                best = Some((wait, member.route));
            }
        }
        best.map(|(_, route)| route)
    }
}

fn divide(members: &mut [Member], whole: f64) {
    if whole > 0.0 {
        members.iter_mut().for_each(|member| member.share /= whole);
    }
}

#[cfg(test)]
mod tests;
