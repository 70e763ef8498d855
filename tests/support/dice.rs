//! Draws chance that can be had again: a test's random acts are the same each time.

use std::time::Duration;

/// Generates numbers (splitmix64).
#[derive(Debug, Clone, Default)]
pub(crate) struct Dice(u64);

/// Names the order in which models are requested.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pattern {
    Uniform,
    Zipf,
    Cyclic,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Draws a number from 0 up to, and without, 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Draws a number from 0 up to, and without, `below`.
    pub(crate) fn below(&mut self, below: usize) -> usize {
        (self.fraction() * below as f64) as usize
    }

    /// Draws a moment before `limit` is over.
    pub(crate) fn moment(&mut self, limit: Duration) -> Duration {
        limit.mul_f64(self.fraction())
    }

    /// Draws a number from 0 up to, and without, `below`; number n is drawn 1/(n+1) times as often as the first.
    pub(crate) fn zipf(&mut self, below: usize) -> usize {
        let weight = |n: usize| 1.0 / (n + 1) as f64;
        let mut left = self.fraction() * (0..below).map(weight).sum::<f64>();
        (0..below)
            .find(|n| {
                left -= weight(*n);
                left < 0.0
            })
            .unwrap_or(below - 1)
    }
}

impl Pattern {
    pub(crate) const ALL: [Self; 3] = [Self::Uniform, Self::Zipf, Self::Cyclic];

    /// Picks the model, from 0, that the request with this number is for.
    pub(crate) fn pick(self, request: usize, among: usize, dice: &mut Dice) -> usize {
        match self {
            Self::Uniform => dice.below(among),
            Self::Zipf => dice.zipf(among),
            Self::Cyclic => request % among,
        }
    }
}
