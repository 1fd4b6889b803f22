//! Percentiles out of a metric's histogram.

use prometheus::Histogram;
use prometheus::core::Metric;

/// What a histogram held at one moment: upper bounds and cumulated counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts(Vec<(f64, u64)>);

impl Counts {
    pub(super) fn of(histogram: &Histogram) -> Self {
        let metric = histogram.metric();
        let buckets = metric.get_histogram().get_bucket();
        Self(buckets.iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count())).collect())
    }

    /// The value that `share` of what came after `before` stays under, interpolated within its bucket;
    /// nothing when nothing came. What lies above the last bound is said to lie at it.
    pub(super) fn quantile_since(&self, before: &Self, share: f64) -> Option<f64> {
        let earlier = |index: usize| before.0.get(index).map_or(0, |&(_, count)| count);
        let counts: Vec<(f64, u64)> = self
            .0
            .iter()
            .enumerate()
            .map(|(index, &(bound, count))| (bound, count - earlier(index)))
            .collect();
        let total = counts.last().map(|&(_, count)| count).filter(|&total| total > 0)?;
        let wanted = share * as_float(total);
        let mut below = (0.0, 0);
        for &(bound, count) in &counts {
            if as_float(count) >= wanted {
                let part = (wanted - as_float(below.1)) / as_float(count - below.1).max(1.0);
                return Some(below.0 + (bound - below.0) * part);
            }
            below = (bound, count);
        }
        Some(below.0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 messages")]
fn as_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use prometheus::HistogramOpts;

    use super::*;

    #[test]
    fn a_quantile_lies_where_its_share_of_the_bucket_ends() {
        let options = HistogramOpts::new("h", "h").buckets(vec![1.0, 2.0, 4.0]);
        let histogram = Histogram::with_opts(options).unwrap();
        assert_eq!(Counts::of(&histogram).quantile_since(&Counts::default(), 0.5), None);
        (0..90).for_each(|_| histogram.observe(0.5));
        let before = Counts::of(&histogram);
        (0..10).for_each(|_| histogram.observe(3.0));
        let after = Counts::of(&histogram);
        assert_eq!(after.quantile_since(&Counts::default(), 0.45), Some(0.5));
        assert_eq!(after.quantile_since(&Counts::default(), 0.95), Some(3.0));
        assert_eq!(after.quantile_since(&before, 0.5), Some(3.0));
    }
}
