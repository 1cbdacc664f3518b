//! Buckets → quantiles and bounds.

use std::time::Duration;

use hdrhistogram::Histogram;
use tritium_common::bucket;

/// Two significant digits: 0.4 % on top of a bucket's 2.2 %.
const DIGITS: u8 = 2;

/// Quantiles of the duration; each within 2.6 % of the true one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percentiles {
    /// Median.
    pub p50: Duration,
    /// 90 %.
    pub p90: Duration,
    /// 99 %.
    pub p99: Duration,
    /// 99.9 %.
    pub p999: Duration,
    /// The longest, to one bucket.
    pub max: Duration,
}

/// Quantiles of calls by bucket, `zero` of which were shorter than any; `None` when there are none.
pub(crate) fn percentiles(zero: u64, buckets: &[(i32, u64)]) -> Option<Percentiles> {
    // Grows by itself up to what the kernel side clamps to; two digits are always valid.
    let mut histogram = Histogram::<u64>::new(DIGITS).ok()?;
    histogram.auto(true);
    if zero > 0 {
        let nanos = bucket::ZERO_THRESHOLD * 1e9 / 2.0;
        histogram.record_n(rounded(nanos), zero).ok()?;
    }
    for (index, count) in buckets {
        histogram.record_n(rounded(middle(*index) * 1e9), *count).ok()?;
    }
    if histogram.is_empty() {
        return None;
    }
    let at = |quantile: f64| Duration::from_nanos(histogram.value_at_quantile(quantile));
    let max = Duration::from_nanos(histogram.max());
    Some(Percentiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max })
}

/// The value that is at most 2.2 % from any in the bucket, in seconds: the
/// harmonic mean of its bounds.
fn middle(index: i32) -> f64 {
    let (lower, upper) = (upper_bound(index - 1), upper_bound(index));
    2.0 * lower * upper / (lower + upper)
}

/// The upper bound of a bucket, in seconds.
pub(crate) fn upper_bound(index: i32) -> f64 {
    (f64::from(index + 1) / f64::from(1 << bucket::SCALE)).exp2()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive, and below 2^53: the longest duration is 2.4 hours"
)]
fn rounded(nanos: f64) -> u64 {
    nanos.round() as u64
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "of numbers the tests chose"
)]
mod tests {
    use super::*;

    fn bucketed(nanos: impl Iterator<Item = u64>) -> Vec<(i32, u64)> {
        let mut counts = std::collections::BTreeMap::new();
        for nanos in nanos {
            *counts.entry(bucket::index_of_slot(bucket::slot_of(nanos)).unwrap()).or_insert(0) += 1;
        }
        counts.into_iter().collect()
    }

    #[test]
    fn quantiles_are_within_2_6_percent_of_the_true_ones() {
        let values: Vec<u64> = (0..100_000_u64).map(|n| 100 + n * n / 7).collect();
        let got = percentiles(0, &bucketed(values.iter().copied())).unwrap();
        for (quantile, got) in
            [(0.5, got.p50), (0.9, got.p90), (0.99, got.p99), (0.999, got.p999), (1.0, got.max)]
        {
            let rank = ((quantile * values.len() as f64).ceil() as usize).max(1) - 1;
            let (exact, got) = (values[rank] as f64, got.as_nanos() as f64);
            assert!((got - exact).abs() / exact < 0.0258, "{quantile}: {got}, not {exact}");
        }
    }

    #[test]
    fn nothing_has_no_quantiles_and_one_call_has_itself() {
        assert_eq!(percentiles(0, &[]), None);
        let one = percentiles(0, &bucketed([1_000_000].into_iter())).unwrap();
        assert_eq!(one.p50, one.max);
        assert!(one.max.as_nanos().abs_diff(1_000_000) < 26_000);
        assert!(percentiles(3, &[]).unwrap().max.as_nanos() < 63);
    }

    #[test]
    fn bounds_are_powers_of_two_every_sixteen_buckets() {
        assert_eq!(upper_bound(-1), 1.0);
        assert_eq!(upper_bound(-17), 0.5);
    }
}
