//! What clients saw, from what became of their requests. Pure.

use std::time::{Duration, Instant};

use crate::load::Answer;

/// In milliseconds where it is a time.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) sent: usize,
    pub(super) failed: usize,
    /// The longest time without an answer while it went on.
    pub(super) gap: f64,
    /// As long, before it began.
    pub(super) rest: f64,
    /// Of those that were waiting meanwhile, or came.
    pub(super) slowest: f64,
    /// One of the failures, to know what they are.
    pub(super) example: Option<String>,
}

impl Seen {
    pub(super) fn of(answers: &[Answer], began: Instant, ended: Instant, rest: f64) -> Self {
        let meanwhile = |it: &&Answer| it.due <= ended && it.due + it.took >= began;
        let took = answers.iter().filter(|it| it.result.is_ok()).filter(meanwhile).map(|it| it.took);
        Self {
            sent: answers.len(),
            failed: answers.iter().filter(|it| it.result.is_err()).count(),
            gap: longest_gap(answers, began, ended),
            rest,
            slowest: ms(took.max().unwrap_or_default()),
            example: answers.iter().find_map(|it| it.result.as_ref().err().cloned()),
        }
    }
}

/// Between two answers of which the one came before the end and the other after the beginning.
pub(super) fn longest_gap(answers: &[Answer], began: Instant, ended: Instant) -> f64 {
    let mut at: Vec<Instant> =
        answers.iter().filter(|it| it.result.is_ok()).map(|it| it.due + it.took).collect();
    at.sort_unstable();
    let pairs = at.iter().zip(at.iter().skip(1));
    let within = pairs.filter(|(before, after)| **before <= ended && **after >= began);
    ms(within.map(|(before, after)| *after - *before).max().unwrap_or_default())
}

/// When this version was first answered.
pub(super) fn first_of(answers: &[Answer], version: &str) -> Option<Instant> {
    let is_of = |it: &&Answer| it.result.as_ref().is_ok_and(|body| body.starts_with(version));
    answers.iter().filter(is_of).map(|it| it.due + it.took).min()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "whole milliseconds are exact")]
mod tests {
    use super::*;
    use crate::bench::now;

    const fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn answers(zero: Instant, all: &[(u64, u64, Result<&str, &str>)]) -> Vec<Answer> {
        let answer = |(due, took, result): &(u64, u64, Result<&str, &str>)| Answer {
            due: zero + at(*due),
            took: at(*took),
            result: result.map(str::to_owned).map_err(str::to_owned),
        };
        all.iter().map(answer).collect()
    }

    #[test]
    fn the_gap_is_between_answers_and_reaches_over_the_edges_of_the_upgrade() {
        let zero = now();
        let all = answers(
            zero,
            &[
                (0, 1, Ok("1 1")),
                // The longest, and before it all.
                (500, 1, Ok("1 1")),
                // In another order than they were due in.
                (520, 150, Ok("2 1")),
                (510, 155, Ok("1 2")),
                (550, 1, Err("closed")),
                (680, 1, Ok("2 2")),
            ],
        );
        let seen = Seen::of(&all, zero + at(530), zero + at(640), 7.0);
        assert_eq!((seen.gap, seen.slowest, seen.rest), (164.0, 155.0, 7.0), "{seen:?}");
        assert_eq!((seen.sent, seen.failed, seen.example.as_deref()), (6, 1, Some("closed")));
        assert_eq!(first_of(&all, "2"), Some(zero + at(670)));
        assert_eq!(longest_gap(&all, zero, zero + at(100)), 500.0);
    }

    #[test]
    fn who_was_never_answered_has_no_gap() {
        let zero = now();
        let all = answers(zero, &[(0, 1, Err("refused"))]);
        assert_eq!(longest_gap(&all, zero, zero + at(10)), 0.0);
        assert_eq!(first_of(&all, "2"), None);
    }
}
