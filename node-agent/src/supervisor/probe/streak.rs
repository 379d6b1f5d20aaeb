//! How many answers in a row it takes to believe one: pure.

/// The answers to one probe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streak {
    after: u32,
    /// What is believed.
    passes: bool,
    /// Answers in a row against that.
    against: u32,
    failures: u32,
}

impl Streak {
    /// `passes`: what is believed before anything was answered.
    pub(super) fn new(after: u32, passes: bool) -> Self {
        Self { after, passes, against: 0, failures: 0 }
    }

    pub(super) fn count(&mut self, passed: bool) {
        self.failures = if passed { 0 } else { self.failures.saturating_add(1) };
        self.against = if passed == self.passes { 0 } else { self.against.saturating_add(1) };
        if self.against >= self.after {
            self.passes = passed;
            self.against = 0;
        }
    }

    pub(super) fn passes(self) -> bool {
        self.passes
    }

    /// In a row, up to now.
    pub(super) fn failures(self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_a_row_count_in_either_direction() {
        let mut streak = Streak::new(2, false);
        let mut told = |passed: bool| {
            streak.count(passed);
            (streak.passes(), streak.failures())
        };
        let answers = [true, false, true, true, false, true, false, false, false, true, true];
        assert_eq!(
            answers.map(&mut told),
            [
                (false, 0),
                (false, 1),
                (false, 0),
                (true, 0),
                (true, 1),
                (true, 0),
                (true, 1),
                (false, 2),
                (false, 3),
                (false, 0),
                (true, 0),
            ]
        );
    }

    #[test]
    fn what_was_believed_before_an_agent_began_anew_holds_until_it_is_disproved() {
        let mut streak = Streak::new(3, true);
        for believed in [true, true, false] {
            streak.count(false);
            assert_eq!(streak.passes(), believed);
        }
    }
}
