//! What befalls a host and when, drawn from a seed alone: the same seed gives the same strokes on every machine, whatever they
//! meet there.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;

/// Whom a stroke is meant for, by a name that outlives its process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Agent,
    /// Of this application's slot.
    Keeper(String, u16),
    Replica(String, u16),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent => f.write_str("the agent"),
            Self::Keeper(app, slot) => write!(f, "the keeper of {app}/{slot}"),
            Self::Replica(app, slot) => write!(f, "the replica {app}/{slot}"),
        }
    }
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    Kill,
    Terminate,
    /// It stands still for so long and then goes on, or is killed.
    Stop {
        lasts: Duration,
        then: Then,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    GoOn,
    Kill,
}

impl Blow {
    pub fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::KILL,
            Self::Terminate => Signal::TERM,
            Self::Stop { .. } => Signal::STOP,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stroke {
    /// Since the last one.
    pub after: Duration,
    pub target: Target,
    pub blow: Blow,
}

/// All strokes of a seed, without end.
#[derive(Debug)]
pub struct Strokes {
    random: StdRng,
    targets: Vec<Target>,
}

impl Strokes {
    pub fn of(seed: u64, targets: Vec<Target>) -> Self {
        Self { random: StdRng::seed_from_u64(seed), targets }
    }
}

impl Iterator for Strokes {
    type Item = Stroke;

    fn next(&mut self) -> Option<Stroke> {
        let after = Duration::from_millis(self.random.random_range(50..900));
        let target = self.targets.choose(&mut self.random)?.clone();
        let blow = match self.random.random_range(0..4) {
            0 => Blow::Terminate,
            1 => {
                let lasts = Duration::from_millis(self.random.random_range(100..4_000));
                let then = if self.random.random_bool(0.3) { Then::Kill } else { Then::GoOn };
                Blow::Stop { lasts, then }
            }
            _ => Blow::Kill,
        };
        Some(Stroke { after, target, blow })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_strokes_every_time_and_another_seed_others() {
        let targets = || {
            vec![Target::Agent, Target::Keeper("shop".to_owned(), 1), Target::Replica("shop".to_owned(), 1)]
        };
        let strokes = |seed| Strokes::of(seed, targets()).take(100).collect::<Vec<_>>();
        assert_eq!(strokes(7), strokes(7));
        assert_ne!(strokes(7), strokes(8));
        for target in targets() {
            for signal in [Signal::KILL, Signal::TERM, Signal::STOP] {
                assert!(strokes(7).iter().any(|it| it.target == target && it.blow.signal() == signal));
            }
        }
    }
}
