//! An answer that is owed: whoever is asked to act for the machine answers once, come what may.
//!
//! The machine waits for it without a deadline, because what hangs in a slot's folders cannot be called back. So what breaks
//! off by a fault of our own must not take the answer with it.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use tokio_util::task::TaskTracker;
use tracing::error;

use super::super::Shared;
use super::super::slot::Answer;
use super::Answers;
use crate::replica::Event;

/// What is said of work that has broken off.
pub(super) const BROKEN_OFF: &str =
    "the agent broke off by a fault of its own, which its log tells; it is tried again";

/// The answer where the work breaks off that is to give another.
pub(super) struct Owed {
    tracker: TaskTracker,
    answers: Answers,
    lost: Event,
}

pub(super) fn owed(shared: &Shared, answers: &Answers, lost: Event) -> Owed {
    Owed { tracker: shared.tracker.clone(), answers: answers.clone(), lost }
}

impl Owed {
    /// Does `work`, which answers. Of two answers to one ticket the machine takes the first.
    pub(super) fn by(self, work: impl Future<Output = ()> + Send + 'static) {
        let Self { tracker, answers, lost } = self;
        tracker.spawn(async move {
            // What it was at is left as it is found after the death of an agent, which everything here bears.
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                error!(?lost, "work broke off by a fault of the agent's own");
                let _ = answers.send(Answer::Event(lost)).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::replica::Ticket;

    #[tokio::test]
    async fn what_breaks_off_answers_and_what_has_answered_does_not_again() {
        let (answers, mut answered) = mpsc::channel(4);
        let tracker = TaskTracker::new();
        let owed = |lost| Owed { tracker: tracker.clone(), answers: answers.clone(), lost };
        let event = |number| Event::Withdrawn { ticket: Ticket(number) };
        owed(event(1)).by(async { panic!("on purpose") });
        let Some(Answer::Event(Event::Withdrawn { ticket })) = answered.recv().await else {
            panic!("another")
        };
        assert_eq!(ticket, Ticket(1));
        let own = answers.clone();
        owed(event(2)).by(async move { own.send(Answer::Event(event(3))).await.unwrap_or_default() });
        tracker.close();
        tracker.wait().await;
        let Ok(Answer::Event(Event::Withdrawn { ticket })) = answered.try_recv() else { panic!("another") };
        assert_eq!(ticket, Ticket(3));
        assert!(answered.try_recv().is_err());
    }
}
