//! SplitMix64: a small sequential generator for drawing settings, where [`Philox`](super::Philox) is for noise.

/// SplitMix64 (Steele, Lea and Flood 2014): 64 bits of state, any key a start as good as any other.
#[derive(Clone, Debug)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// The sequence that starts at `key`.
    pub fn new(key: u64) -> SplitMix64 {
        SplitMix64 { state: key }
    }

    /// The sequence of a tuple of keys: different tuples have unrelated sequences.
    pub fn of(keys: &[u64]) -> SplitMix64 {
        SplitMix64::new(keys.iter().fold(0, |state, &key| SplitMix64::new(state ^ key).next_u64()))
    }

    /// Output `i` of the sequence that starts at `key`, directly.
    pub fn output(key: u64, i: u64) -> u64 {
        let mut z = key.wrapping_add(i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let bits = SplitMix64::output(self.state, 0);
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        bits
    }

    /// Uniform in [0, 1), a multiple of 2^-24.
    pub fn unit(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Uniform from `low` to `high`.
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// Uniform below `n`, which must not be 0. The bias of the multiplication is below n / 2^64.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// One of `items`, which must not be empty.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// An index with probability in proportion to its weight.
    pub fn weighted(&mut self, weights: &[f32]) -> usize {
        let mut rest = self.unit() * weights.iter().sum::<f32>();
        let chosen = weights.iter().position(|weight| {
            rest -= weight;
            rest < 0.0
        });
        chosen.unwrap_or(weights.len() - 1)
    }

    /// A unit normal, to the precision of a sum of twelve uniforms: for textures and jitter, within 6 standard deviations.
    pub fn bell(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() - 6.0
    }

    /// Puts `items` in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First outputs of the reference implementation for a zero seed.
    #[test]
    fn outputs_are_the_published_ones() {
        let published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F];
        assert_eq!([0, 1, 2].map(|i| SplitMix64::output(0, i)), published);
        let mut sequence = SplitMix64::new(0);
        assert_eq!([0; 3].map(|_| sequence.next_u64()), published);
    }

    #[test]
    fn draws_have_their_distributions() {
        let mut rng = SplitMix64::of(&[1, 2]);
        let n = 60_000;
        let mut counts = [0usize; 3];
        let (mut sum, mut squares, mut heavy) = (0.0f64, 0.0f64, 0usize);
        for _ in 0..n {
            counts[rng.below(3)] += 1;
            let z = f64::from(rng.bell());
            (sum, squares) = (sum + z, squares + z * z);
            heavy += usize::from(rng.weighted(&[1.0, 0.0, 3.0]) == 2);
        }
        // Five standard errors.
        assert!(counts.iter().all(|&c| (c as f64 - n as f64 / 3.0).abs() < 5.0 * (n as f64 * 2.0 / 9.0).sqrt()), "{counts:?}");
        assert!((sum / n as f64).abs() < 5.0 / (n as f64).sqrt() && (squares / n as f64 - 1.0).abs() < 0.03);
        assert!((heavy as f64 - 0.75 * n as f64).abs() < 5.0 * (n as f64 * 3.0 / 16.0).sqrt(), "{heavy}");
        let mut order: Vec<usize> = (0..20).collect();
        rng.shuffle(&mut order);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(order != sorted && sorted.into_iter().eq(0..20));
    }

    #[test]
    fn tuples_of_keys_have_sequences_of_their_own() {
        let first = |keys: &[u64]| SplitMix64::of(keys).next_u64();
        let all = [first(&[0, 1]), first(&[1, 0]), first(&[1]), first(&[0]), first(&[]), first(&[1, 1])];
        let distinct: std::collections::HashSet<u64> = all.into_iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
