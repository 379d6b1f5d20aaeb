//! Waiting for a state, with the last state seen in the message when it does not come.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

/// What a look at the world found.
#[derive(Debug)]
pub enum Seen<T> {
    /// What was waited for.
    Done(T),
    /// Something else, in words.
    NotYet(String),
}

/// Enough for a VM to boot on a busy machine with two cores.
pub const USUAL: Duration = Duration::from_mins(1);

const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Looks until it is done; panics with the last state seen once the usual time is over.
pub async fn eventually<T, F>(what: &str, look: impl FnMut() -> F) -> T
where
    F: Future<Output = Seen<T>>,
{
    within(USUAL, what, look).await
}

/// As [`eventually`], with a time of its own.
#[expect(clippy::disallowed_methods, reason = "a test's patience is real time")]
pub async fn within<T, F>(patience: Duration, what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Seen<T>>,
{
    let started = Instant::now();
    loop {
        match look().await {
            Seen::Done(found) => return found,
            Seen::NotYet(last) if started.elapsed() > patience => {
                panic!("waited {} s for {what}; last seen: {last}", patience.as_secs())
            }
            Seen::NotYet(_) => tokio::time::sleep(BETWEEN_LOOKS).await,
        }
    }
}

/// Done when the two are equal.
pub fn equals<T: PartialEq + Debug>(found: T, wanted: &T) -> Seen<T> {
    if found == *wanted { Seen::Done(found) } else { Seen::NotYet(format!("{found:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_state_that_comes_is_returned() {
        let mut looks = 0;
        let found = eventually("three looks", || {
            looks += 1;
            std::future::ready(equals(looks, &3))
        })
        .await;
        assert_eq!(found, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "waited 0 s for the moon; last seen: only clouds")]
    async fn a_state_that_does_not_come_is_told_with_what_was_seen() {
        within(Duration::ZERO, "the moon", || std::future::ready(Seen::<()>::NotYet("only clouds".into())))
            .await;
    }
}
