//! Medians, and how far to trust them. Pure, and the same for the same samples: the resampling has a seed of its own.

/// Enough that the ends of an interval of 95 % no longer move visibly.
const RESAMPLES: usize = 4_000;

/// The middle of the samples; of an even number, half way between the two in the middle. Of none, not a number.
pub(super) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2, middle.checked_sub(1).and_then(|it| sorted.get(it))) {
        (Some(upper), 0, Some(lower)) => f64::midpoint(*lower, *upper),
        (Some(only), ..) => *only,
        (None, ..) => f64::NAN,
    }
}

/// Where the median lies with a confidence of 95 %: the percentile bootstrap.
pub(super) fn interval(samples: &[f64]) -> (f64, f64) {
    if samples.is_empty() {
        return (f64::NAN, f64::NAN);
    }
    let mut dice = Dice(0x5eed);
    let mut drawn = vec![0.0; samples.len()];
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            drawn.fill_with(|| samples[dice.below(samples.len())]);
            median(&drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let end = RESAMPLES / 40;
    (medians[end], medians[RESAMPLES - 1 - end])
}

/// `SplitMix64`.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bound = bound as u64;
        usize::try_from((mixed ^ (mixed >> 31)) % bound).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "halves of small whole numbers are exact")]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[7.0]), 7.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_interval_holds_the_median_and_narrows_with_more_samples() {
        let spread = |count: u32| -> Vec<f64> { (0..count).map(|n| f64::from(n * 7919 % 100)).collect() };
        let (few, many) = (spread(20), spread(500));
        let (low, high) = interval(&few);
        assert!(low <= median(&few) && median(&few) <= high && low < high);
        let (many_low, many_high) = interval(&many);
        assert!(many_high - many_low < high - low);
        assert_eq!(interval(&[2.0; 9]), (2.0, 2.0));
        assert_eq!(interval(&few), interval(&few), "the same samples give the same interval");
        assert!(interval(&[]).0.is_nan());
    }
}
