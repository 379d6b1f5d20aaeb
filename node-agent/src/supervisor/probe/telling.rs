//! Which of many failed checks are told: enough to know what is wrong now, and never so many that telling is the work.
//! Pure.

use super::Failure;
use crate::clock::Time;

/// Whoever starts is not there at first, and that is no news.
const ORDINARY_START: u64 = 2_000;
/// Between two that differ.
const OTHER: u64 = 1_000;
/// Between two that say the same, only later and once more.
const SAME: u64 = 10_000;

/// What was told of one list of probes.
#[derive(Debug)]
pub(super) struct Telling {
    begun: Time,
    /// It has not passed since the process began.
    is_starting: bool,
    told: Option<Told>,
}

#[derive(Debug)]
struct Told {
    index: usize,
    failure: Failure,
    at: Time,
    in_a_row: u32,
}

/// What there is to say of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    None,
    /// That it failed.
    Failed,
    /// That what failed passes again.
    Passes,
}

impl Telling {
    pub(super) fn new(is_starting: bool, now: Time) -> Self {
        Self { begun: now, is_starting, told: None }
    }

    /// It passes, or did.
    pub(super) fn passed_once(&mut self) {
        self.is_starting = false;
    }

    /// `turned`: with this answer the list passes no more.
    pub(super) fn hear(
        &mut self,
        index: usize,
        failure: Option<&Failure>,
        in_a_row: u32,
        turned: bool,
        now: Time,
    ) -> News {
        let Some(failure) = failure else {
            return match &mut self.told {
                Some(told) if told.index == index && told.in_a_row > 0 => {
                    told.in_a_row = 0;
                    News::Passes
                }
                _ => News::None,
            };
        };
        if self.is_starting && now.since(self.begun) < ORDINARY_START && !turned {
            return News::None;
        }
        let due = match &self.told {
            None => self.begun,
            Some(told) if told.in_a_row > 0 && told.index == index && told.failure == *failure => {
                told.at.plus(SAME)
            }
            Some(told) => told.at.plus(OTHER),
        };
        if now < due && !turned {
            return News::None;
        }
        self.told = Some(Told { index, failure: failure.clone(), at: now, in_a_row });
        News::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(outcome: &str) -> Failure {
        Failure::of(outcome)
    }

    #[test]
    fn a_start_that_takes_its_time_is_no_news_and_one_that_takes_too_long_is() {
        let (mut telling, refused) = (Telling::new(true, Time(0)), failure("found nobody listening"));
        let mut hear = |at| telling.hear(0, Some(&refused), 1, false, Time(at));
        assert_eq!([0, 50, 1_999, 2_000].map(&mut hear), [News::None, News::None, News::None, News::Failed]);
        let mut ready = Telling::new(false, Time(0));
        assert_eq!(ready.hear(0, Some(&refused), 1, false, Time(0)), News::Failed);
    }

    #[test]
    fn the_same_again_is_told_seldom_and_another_soon() {
        let (mut telling, down) = (Telling::new(false, Time(0)), failure("answered 503"));
        let told =
            (0..600).filter(|it| telling.hear(0, Some(&down), 1, false, Time(it * 100)) == News::Failed);
        assert_eq!(told.count(), 6, "once in ten seconds of a minute");
        let mut telling = Telling::new(false, Time(0));
        let told = (0..600).filter(|it| {
            let other = failure(&format!("answered 503 with request {it}"));
            telling.hear(0, Some(&other), 1, false, Time(it * 100)) == News::Failed
        });
        assert_eq!(told.count(), 60, "once in a second");
    }

    #[test]
    fn that_it_passes_again_is_told_once_and_of_what_failed_alone() {
        let (mut telling, down) = (Telling::new(false, Time(0)), failure("answered 503"));
        assert_eq!(telling.hear(0, Some(&down), 1, false, Time(0)), News::Failed);
        assert_eq!(telling.hear(1, None, 0, false, Time(10)), News::None);
        assert_eq!(telling.hear(0, None, 0, false, Time(20)), News::Passes);
        assert_eq!(telling.hear(0, None, 0, false, Time(30)), News::None);
    }

    #[test]
    fn what_makes_it_unready_is_always_told() {
        let (mut telling, down) = (Telling::new(false, Time(0)), failure("answered 503"));
        assert_eq!(telling.hear(0, Some(&down), 1, false, Time(0)), News::Failed);
        assert_eq!(telling.hear(0, Some(&down), 2, true, Time(1)), News::Failed);
    }
}
