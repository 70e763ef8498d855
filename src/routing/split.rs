//! How routes share what comes to them: those of an endpoint without a condition, and those with the same one.
//!
//! Shares are kept by weighted rendezvous hashing: each value has a distance from each route, which the route's weight
//! divides, and belongs to the nearest. When one weight changes, the only values that move are those that this route gains
//! or loses, whatever the number and order of routes; nobody is moved between two others.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::sticky;
use crate::config::Strategy;

/// How long, in seconds, a call of a route is taken to last that has not ended one yet: as long as the fastest of the
/// others, so that it is tried, but no longer than this, so that one which only fails is not preferred to it.
const UNKNOWN: f64 = 0.1;

/// Routes that share.
#[derive(Debug)]
pub(super) struct Split {
    strategy: Strategy,
    members: Vec<Member>,
    /// Whose turn it is.
    turn: AtomicUsize,
}

/// One of the routes that share.
#[derive(Debug)]
pub(super) struct Member {
    /// Its index in the endpoint's routes.
    pub(super) route: usize,
    /// Its part of all weights, from 0 to 1.
    pub(super) share: f64,
    /// Tells it from all other routes.
    salt: u64,
}

/// What a route has to do, for `least_loaded`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Requests that it has and has not answered, those that wait for their turn included.
    pub in_flight: usize,
    /// How long a call takes, in seconds, if one has been seen.
    pub mean: Option<f64>,
}

/// Tells what routes have to do.
pub trait Loads {
    /// Of the route with this index in its endpoint.
    fn load(&self, route: usize) -> Load;
}

/// Where nobody knows what routes have to do, or it does not matter: all of them nothing.
#[derive(Debug, Clone, Copy)]
pub struct Idle;

impl Loads for Idle {
    fn load(&self, _: usize) -> Load {
        Load::default()
    }
}

impl Member {
    /// A route with a weight of its own.
    pub(super) fn new(endpoint: &str, alias: &str, route: usize, weight: f64) -> Self {
        Self { route, share: weight, salt: sticky::salt(endpoint, alias) }
    }

    /// How far it is from a value, which belongs to whichever of the members is the nearest. One without a share is
    /// infinitely far away.
    pub(super) fn distance(&self, value: u64) -> f64 {
        -sticky::position(self.salt, value).ln() / self.share
    }
}

impl Split {
    /// Routes in their order, with weights of 0 or more.
    pub(super) fn new(strategy: Strategy, mut members: Vec<Member>) -> Self {
        // In two steps, since the sum of large weights may be too large for a float.
        let largest = members.iter().map(|member| member.share).fold(0.0, f64::max);
        divide(&mut members, largest);
        let sum = members.iter().map(|member| member.share).sum();
        divide(&mut members, sum);
        Self { strategy, members, turn: AtomicUsize::new(0) }
    }

    /// How its routes share; the only one has nobody to share with.
    pub(super) fn strategy(&self) -> Strategy {
        if self.members.len() > 1 { self.strategy } else { Strategy::First }
    }

    /// In the order of the routes.
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// The first.
    pub(super) fn first(&self) -> Option<usize> {
        self.members.first().map(|member| member.route)
    }

    /// The one that a chance, from 0 up to and without 1, falls on.
    pub(super) fn by_chance(&self, chance: f64) -> Option<usize> {
        let mut left = chance;
        let drawn = self.members.iter().filter(|member| member.share > 0.0).find(|member| {
            left -= member.share;
            left < 0.0
        });
        // All shares make 1, but for what was lost in rounding.
        let drawn = drawn.or_else(|| self.members.iter().rfind(|member| member.share > 0.0));
        drawn.map(|member| member.route)
    }

    /// The one that a value belongs to.
    pub(super) fn by_hash(&self, value: u64) -> Option<usize> {
        let able = self.members.iter().filter(|member| member.share > 0.0);
        let distances = able.map(|member| (member.distance(value), member));
        let nearest = distances.min_by(|(one, a), (other, b)| one.total_cmp(other).then(a.salt.cmp(&b.salt)));
        nearest.map(|(_, member)| member.route)
    }

    /// The one whose turn it is.
    pub(super) fn in_turn(&self) -> Option<usize> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.members.get(turn.checked_rem(self.members.len())?).map(|member| member.route)
    }

    /// The one that would have answered one more request first. Of several, one by chance, which `below` gives: a number
    /// below the one it is given.
    pub(super) fn least_loaded(
        &self,
        loads: &(impl Loads + ?Sized),
        mut below: impl FnMut(usize) -> usize,
    ) -> Option<usize> {
        let means = self.members.iter().filter_map(|member| loads.load(member.route).mean);
        let unknown = means.fold(UNKNOWN, f64::min);
        let mut best: Option<(f64, usize)> = None;
        let mut ties = 0;
        for member in &self.members {
            let load = loads.load(member.route);
            let wait = (load.in_flight + 1) as f64 * load.mean.unwrap_or(unknown);
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
