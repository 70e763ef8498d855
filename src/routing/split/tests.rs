use proptest::prelude::{ProptestConfig, prop, prop_assert, prop_assert_eq, prop_assume, proptest};

use super::*;
use crate::routing::condition::Value;

const REQUESTS: usize = 200_000;

fn split(strategy: Strategy, weights: &[f64]) -> Split {
    let member = |(route, weight): (usize, &f64)| Member::new("endpoint", &format!("route-{route}"), route, *weight);
    Split::new(strategy, weights.iter().enumerate().map(member).collect())
}

fn weighted(weights: &[f64]) -> Split {
    split(Strategy::Weighted, weights)
}

/// Counts the draws of each route.
fn counts(routes: usize, draw: impl FnMut(usize) -> Option<usize>) -> Vec<usize> {
    let mut counts = vec![0; routes];
    (0..REQUESTS).map(draw).for_each(|route| counts[route.unwrap()] += 1);
    counts
}

/// Returns the hash of a caller, as a header would name it.
fn caller(number: usize) -> u64 {
    sticky::hash_of(&Value::text(format!("user-{number}"))).unwrap().unwrap()
}

/// Tells whether the counts are those that chance makes of the shares in all but one of ten thousand cases: Pearson's
/// chi square, for one and two degrees of freedom. A route without a share must never be drawn.
fn fits(counts: &[usize], weights: &[f64]) -> bool {
    let total: f64 = weights.iter().sum();
    let expected = weights.iter().map(|weight| weight / total * REQUESTS as f64);
    let pairs: Vec<(f64, f64)> = counts.iter().map(|count| *count as f64).zip(expected).collect();
    let none_without = pairs.iter().all(|(count, expected)| *expected > 0.0 || *count == 0.0);
    let able = pairs.iter().filter(|(_, expected)| *expected > 0.0);
    let chi_square: f64 = able.clone().map(|(count, expected)| (count - expected).powi(2) / expected).sum();
    let limit = [0.0, 15.14, 18.42][able.count() - 1];
    none_without && chi_square <= limit
}

fn assert_fits(counts: &[usize], weights: &[f64]) {
    assert!(fits(counts, weights), "{counts:?} for {weights:?}");
}

const SHARES: [&[f64]; 5] = [&[1.0, 99.0], &[33.0, 33.0, 34.0], &[0.0, 100.0], &[0.5, 0.3, 0.2], &[1.0, 1.0]];

#[test]
fn chance_keeps_shares() {
    for weights in SHARES {
        let (split, mut random) = (weighted(weights), fastrand::Rng::with_seed(17));
        assert_fits(&counts(weights.len(), |_| split.by_chance(random.f64())), weights);
    }
}

#[test]
fn callers_keep_shares() {
    for weights in SHARES {
        let split = weighted(weights);
        assert_fits(&counts(weights.len(), |number| split.by_hash(caller(number))), weights);
    }
}

/// Shares that are off by one percent, or taken for those of a neighbour, fail the test of shares.
#[test]
fn share_test_fails_when_share_is_off_by_one_percent() {
    let mut random = fastrand::Rng::with_seed(17);
    for (drawn, claimed) in [([1.0, 99.0], [2.0, 98.0]), ([1.0, 99.0], [99.0, 1.0]), ([50.0, 50.0], [49.0, 51.0])] {
        let split = weighted(&drawn);
        let counts = counts(2, |_| split.by_chance(random.f64()));
        assert!(!fits(&counts, &claimed), "{counts:?} for {claimed:?}");
    }
}

#[test]
fn chance_draws_able_route_when_at_its_ends() {
    let split = weighted(&[0.0, 0.1, 0.2, 0.0]);
    assert_eq!(split.by_chance(0.0), Some(1));
    assert_eq!(split.by_chance(1.0 - f64::EPSILON / 2.0), Some(2));
    assert_eq!(split.by_chance(1.0), Some(2));
    let nobody = weighted(&[0.0, 0.0]);
    assert_eq!((nobody.by_chance(0.5), nobody.by_hash(7)), (None, None));
}

#[test]
fn split_keeps_shares_when_weights_are_extreme() {
    for weight in [f64::MAX, f64::MIN_POSITIVE] {
        let split = weighted(&[weight; 4]);
        assert!(split.members.iter().all(|member| member.share == 0.25), "{split:?}");
    }
}

#[test]
fn turn_wraps_when_counter_overflows() {
    let split = split(Strategy::RoundRobin, &[1.0; 3]);
    assert_eq!(counts(3, |_| split.in_turn()), [66_667, 66_667, 66_666]);
    split.turn.store(usize::MAX, Ordering::Relaxed);
    assert!(split.in_turn().is_some() && split.in_turn() == Some(0));
}

fn readings(loads: &[(usize, Option<f64>)]) -> impl Fn(usize) -> LoadReading {
    |route| LoadReading { in_flight: loads[route].0, mean: loads[route].1 }
}

#[test]
fn least_loaded_picks_route_with_shortest_wait() {
    let split = split(Strategy::LeastLoaded, &[1.0; 3]);
    let least = |loads: [(usize, Option<f64>); 3]| split.least_loaded(readings(&loads), |_| 0);
    assert_eq!(least([(2, None), (1, None), (3, None)]), Some(1));
    assert_eq!(least([(9, Some(0.01)), (0, Some(0.2)), (0, Some(0.3))]), Some(0));
    assert_eq!(least([(9, Some(0.01)), (0, Some(0.05)), (0, Some(0.3))]), Some(1));
    // The last one has no known time: it is tried, and does not get everything at once.
    assert_eq!(least([(1, Some(0.05)), (0, Some(0.3)), (0, None)]), Some(2));
    assert_eq!(least([(1, Some(0.05)), (0, Some(0.3)), (2, None)]), Some(0));
    // The others have only failed.
    assert_eq!(least([(0, Some(10.0)), (0, Some(10.0)), (9, None)]), Some(2));
}

#[test]
fn least_loaded_draws_by_chance_when_equal() {
    let split = split(Strategy::LeastLoaded, &[1.0; 3]);
    let mut random = fastrand::Rng::with_seed(17);
    let idle = counts(3, |_| split.least_loaded(|_| LoadReading::default(), |ties| random.usize(..ties)));
    assert_fits(&idle, &[1.0; 3]);
    let one_busy = [(0, None), (1, None), (0, None)];
    let counts = counts(3, |_| split.least_loaded(readings(&one_busy), |ties| random.usize(..ties)));
    assert_fits(&counts, &[1.0, 0.0, 1.0]);
}

/// Returns the route of each of this number of callers.
fn placed(split: &Split, callers: usize) -> Vec<usize> {
    (0..callers).map(|number| split.by_hash(caller(number)).unwrap()).collect()
}

fn weights() -> impl proptest::strategy::Strategy<Value = Vec<f64>> {
    prop::collection::vec(0.01..100.0_f64, 2..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Five percent more for one route: five percent of the callers move, all of them to that route. Back again: the same
    /// ones move back.
    #[test]
    fn split_moves_fewest_callers_one_way_when_weight_changes(weights in weights(), which: prop::sample::Index) {
        const CALLERS: usize = 20_000;
        let which = which.index(weights.len());
        let others = weights.iter().sum::<f64>() - weights[which];
        let share = weights[which] / (others + weights[which]);
        prop_assume!(share < 0.9);
        let mut raised = weights.clone();
        raised[which] = (share + 0.05) / (0.95 - share) * others;
        let (before, after) = (placed(&weighted(&weights), CALLERS), placed(&weighted(&raised), CALLERS));
        let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        prop_assert!(moved.iter().all(|(_, after)| **after == which));
        // Five standard deviations of 20,000 draws with a chance of one in twenty.
        let deviation = (CALLERS as f64 * 0.05 * 0.95).sqrt();
        prop_assert!((moved.len() as f64 - CALLERS as f64 * 0.05).abs() < 5.0 * deviation, "{} moved", moved.len());
    }

    /// Callers move from one of two routes to the other, in percent that make a hundred.
    #[test]
    fn split_moves_callers_one_way_when_two_weights_shift(percent in 1..=95_u32) {
        let places = |percent: u32| placed(&weighted(&[f64::from(percent), f64::from(100 - percent)]), 20_000);
        let (before, after) = (places(percent), places(percent + 5));
        prop_assert!(before.iter().zip(&after).all(|(before, after)| after <= before));
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        prop_assert!((845..1155).contains(&moved), "{moved}");
    }

    /// A caller keeps its route on another instance, after a restart, with the routes in another order, with all
    /// weights multiplied, and with one more route that takes nothing.
    #[test]
    fn caller_keeps_route_when_weights_stay(weights in weights(), factor in 0.001..1_000.0_f64, number: u64) {
        let place = |split: Split| split.by_hash(number).map(|route| split.members.iter().find(|member| member.route == route).unwrap().salt);
        let here = place(weighted(&weights));
        prop_assert_eq!(here, place(weighted(&weights)));
        let member = |route: usize, weight| Member::new("endpoint", &format!("route-{route}"), route, weight);
        let turned = weights.iter().enumerate().rev().map(|(route, weight)| member(route, *weight));
        prop_assert_eq!(here, place(Split::new(Strategy::Weighted, turned.collect())));
        let multiplied: Vec<f64> = weights.iter().map(|weight| weight * factor).chain([0.0]).collect();
        prop_assert_eq!(here, place(weighted(&multiplied)));
    }

    /// A route that leaves takes no caller of another with it.
    #[test]
    fn split_moves_only_own_callers_when_route_leaves(weights in weights(), which: prop::sample::Index) {
        let which = which.index(weights.len());
        let mut without = weights.clone();
        without[which] = 0.0;
        let (before, after) = (placed(&weighted(&weights), 2_000), placed(&weighted(&without), 2_000));
        prop_assert!(before.iter().zip(&after).all(|(before, after)| *before == which || before == after));
    }
}
