//! Seeded chance: xorshift, so that a seed gives the same history on every machine.

pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `end`; 0 where that is 0.
    pub(super) fn up_to(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end.max(1)
    }

    pub(super) fn one_in(&mut self, chances: u64) -> bool {
        self.up_to(chances) == 0
    }

    pub(super) fn pick(&mut self, end: u8) -> u8 {
        u8::try_from(self.up_to(u64::from(end))).unwrap_or(0)
    }
}
