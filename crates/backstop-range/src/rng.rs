//! Random numbers that a seed replays, and draws that depend on what is drawn for, not on the order.

/// SplitMix64: small, fast, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The sequence of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The sequence that belongs to a seed and to these words: the same however many calls come in between.
    #[must_use]
    pub fn of(seed: u64, words: &[&str]) -> Self {
        // FNV-1a, with a byte between words that none of them holds.
        let bytes = words.iter().flat_map(|word| word.bytes().chain([0xff]));
        let hash = bytes
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Self(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if there is none.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next_u64() % end }
    }

    /// One of these; none of an empty list.
    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> Option<&'a T> {
        let place = usize::try_from(self.below(among.len() as u64)).unwrap_or_default();
        among.get(place)
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn a_draw_depends_on_seed_and_words_alone() {
        let draw = |seed, words: &[&str]| Rng::of(seed, words).next_u64();
        assert_eq!(draw(1, &["a", "b"]), draw(1, &["a", "b"]));
        assert_ne!(draw(1, &["a", "b"]), draw(2, &["a", "b"]));
        assert_ne!(draw(1, &["a", "b"]), draw(1, &["ab"]));
    }
}
