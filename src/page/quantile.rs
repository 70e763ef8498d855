//! Quantiles of a histogram's buckets. Pure.

/// Returns the value below which this part of the observations lies, or none without observations. `counts` has the
/// observations up to each of the rising `bounds`, and at last all of them. Within a bucket they are taken to be spread
/// evenly, as Prometheus does; those beyond the last bound count as if they were at it.
pub(super) fn quantile(part: f64, bounds: &[f64], counts: &[u64]) -> Option<f64> {
    let all = *counts.last()?;
    if all == 0 {
        return None;
    }
    let rank = part * all as f64;
    let bucket = counts.iter().position(|count| *count as f64 >= rank)?;
    let Some(upper) = bounds.get(bucket) else { return bounds.last().copied() };
    let (lower, before) = match bucket.checked_sub(1) {
        Some(index) => (bounds[index], counts[index]),
        None => (0.0, 0),
    };
    let inside = counts[bucket].saturating_sub(before);
    let share = if inside == 0 { 1.0 } else { (rank - before as f64) / inside as f64 };
    Some(lower + (upper - lower) * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [f64; 3] = [0.1, 0.2, 1.0];

    #[test]
    fn quantile_lies_within_its_bucket() {
        let of = |part| quantile(part, &BOUNDS, &[10, 20, 20, 20]).unwrap();
        assert!((of(0.25) - 0.05).abs() < 1e-9 && (of(0.5) - 0.1).abs() < 1e-9 && (of(0.75) - 0.15).abs() < 1e-9);
        assert_eq!(quantile(0.95, &BOUNDS, &[0, 0, 0, 0]), None);
        assert_eq!(quantile(0.95, &BOUNDS, &[0, 0, 0, 3]), Some(1.0));
        assert_eq!(quantile(0.5, &[], &[]), None);
    }
}
