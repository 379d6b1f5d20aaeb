//! What a person may do to a rollout that is under way, and when. Pure: the database does it under the application's lock.

use std::fmt;

use proto::state::RolloutPhase;

use super::{Progress, Promoted, Rollout, Said};

/// What is asked of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    Pause,
    Resume,
    /// Go on behind the canary, or after a batch, without waiting any longer.
    Promote {
        /// Its number, as whoever says so knows it; `None`: whichever it is.
        batch: Option<u32>,
    },
    /// Go back to where it came from. The release is not ghosted, and not tried again for the same wish.
    Abort,
}

/// Why it cannot be done: the rest of a sentence that begins with the rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    DoesNotMove,
    PausedAlready,
    NotPaused,
    NothingToPromote,
    PromotedAlready,
    /// What was to be promoted is another one by now.
    AnotherBatch {
        now: u32,
    },
    GoesBack,
    Over,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::AnotherBatch { now } => return write!(f, "moves batch {now} by now"),
            Self::DoesNotMove => "does not move any more",
            Self::PausedAlready => "is paused already",
            Self::NotPaused => "is not paused",
            Self::NothingToPromote => "has no batch yet behind which it waits",
            Self::PromotedAlready => "was promoted already",
            Self::GoesBack => "goes back already",
            Self::Over => "is over",
        };
        f.write_str(text)
    }
}

impl Rollout {
    /// The rollout as it is once that was said.
    ///
    /// # Errors
    /// It is not in a state for it; nothing is changed then.
    pub fn steered(mut self, steering: Steering, said: Said) -> Result<Self, Held> {
        let moves = self.phase.moves();
        let Progress { paused, batch, promoted, aborted, .. } = &mut self.progress;
        if self.phase.is_over() {
            return Err(Held::Over);
        }
        match steering {
            Steering::Pause | Steering::Promote { .. } if !moves => return Err(Held::DoesNotMove),
            Steering::Pause if paused.is_some() => return Err(Held::PausedAlready),
            Steering::Pause => *paused = Some(said),
            Steering::Resume if paused.is_none() => return Err(Held::NotPaused),
            Steering::Resume => *paused = None,
            Steering::Promote { batch: named } => {
                let Some(batch) = batch else { return Err(Held::NothingToPromote) };
                if named.is_some_and(|named| named != batch.number) {
                    return Err(Held::AnotherBatch { now: batch.number });
                }
                if promoted.as_ref().is_some_and(|it| it.batch == batch.number) {
                    return Err(Held::PromotedAlready);
                }
                *promoted = Some(Promoted { batch: batch.number, said });
            }
            Steering::Abort if self.phase == RolloutPhase::Reverting || aborted.is_some() => {
                return Err(Held::GoesBack);
            }
            Steering::Abort => *aborted = Some(said),
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Batch, fixture};
    use super::*;
    use crate::clock::Time;

    fn rollout(phase: RolloutPhase) -> Rollout {
        fixture::rollout(2, Some(1), phase)
    }

    const PROMOTE: Steering = Steering::Promote { batch: None };

    fn ann() -> Said {
        Said { by: "ann".to_owned(), at: Time(9) }
    }

    #[test]
    fn what_moves_is_paused_and_resumed_once() {
        let paused = rollout(RolloutPhase::Running).steered(Steering::Pause, ann()).unwrap();
        assert_eq!(paused.progress.paused, Some(ann()));
        assert_eq!(paused.clone().steered(Steering::Pause, ann()), Err(Held::PausedAlready));
        let resumed = paused.steered(Steering::Resume, ann()).unwrap();
        assert_eq!(resumed.clone().steered(Steering::Resume, ann()), Err(Held::NotPaused));
        for phase in [RolloutPhase::Watching, RolloutPhase::Reverting] {
            assert_eq!(rollout(phase).steered(Steering::Pause, ann()), Err(Held::DoesNotMove), "{phase}");
        }
    }

    #[test]
    fn a_batch_is_promoted_once() {
        let mut rollout = rollout(RolloutPhase::Running);
        assert_eq!(rollout.clone().steered(PROMOTE, ann()), Err(Held::NothingToPromote));
        rollout.progress.batch = Some(Batch { number: 1, canary: true, ..Batch::default() });
        let mut promoted = rollout.steered(PROMOTE, ann()).unwrap();
        assert_eq!(promoted.clone().steered(PROMOTE, ann()), Err(Held::PromotedAlready));
        promoted.progress.batch = Some(Batch { number: 2, ..Batch::default() });
        assert!(promoted.steered(PROMOTE, ann()).is_ok());
    }

    /// The page showed batch 1, and batch 2 is drawn when the button is pressed: nobody has looked at that.
    #[test]
    fn a_batch_that_is_named_is_promoted_and_no_other() {
        let mut rollout = rollout(RolloutPhase::Running);
        rollout.progress.batch = Some(Batch { number: 2, ..Batch::default() });
        let named = |number| Steering::Promote { batch: Some(number) };
        let held = rollout.clone().steered(named(1), ann()).unwrap_err();
        assert_eq!(
            (held, held.to_string().as_str()),
            (Held::AnotherBatch { now: 2 }, "moves batch 2 by now")
        );
        let promoted = rollout.steered(named(2), ann()).unwrap().progress.promoted;
        assert_eq!(promoted.map(|it| it.batch), Some(2));
    }

    #[test]
    fn one_is_given_up_while_it_moves_or_is_watched() {
        for phase in [RolloutPhase::Pending, RolloutPhase::Running, RolloutPhase::Watching] {
            let aborted = rollout(phase).steered(Steering::Abort, ann()).unwrap();
            assert_eq!(aborted.clone().steered(Steering::Abort, ann()), Err(Held::GoesBack), "{phase}");
        }
        assert_eq!(rollout(RolloutPhase::Reverting).steered(Steering::Abort, ann()), Err(Held::GoesBack));
        assert_eq!(rollout(RolloutPhase::Done).steered(Steering::Abort, ann()), Err(Held::Over));
    }
}
