//! The tables: what clients saw beside the bars, and what each step took. Pure.

use std::fmt;

use super::{Turn, Turns, Way};
use crate::bench::statistics::median;
use crate::bench::table::{Table, verdict};

/// Ours over the peer's longest gap.
const BAR: f64 = 1.1;

impl Turns {
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new(&[
            "median (worst)",
            "sent",
            "failed",
            "longest gap",
            "slowest answer",
            "gap before",
            "replica",
            "from publication",
            "for example",
        ]);
        for (way, turns) in self.all() {
            let times = |of: fn(&Turn) -> f64| shown(&turns.iter().map(of).collect::<Vec<_>>());
            let published: Vec<f64> = turns.iter().filter_map(|it| it.published).collect();
            table.row([
                way.name().to_owned(),
                sum(turns, |it| it.seen.sent).to_string(),
                sum(turns, |it| it.seen.failed).to_string(),
                times(|it| it.seen.gap),
                times(|it| it.seen.slowest),
                times(|it| it.seen.rest),
                times(|it| it.replica),
                if published.is_empty() { String::new() } else { shown(&published) },
                turns.iter().find_map(|it| it.seen.example.clone()).unwrap_or_default(),
            ]);
        }
        table
    }

    /// What is held to a bar.
    pub(super) fn bars(&self) -> Table {
        let mut table = Table::new(&["", "figure", "bar", ""]);
        let failed = sum(&self.hot, |it| it.seen.failed);
        let row = |what: &str, figure: String, bar: String, met| [what.to_owned(), figure, bar, verdict(met)];
        table.row(row("requests that failed, hot", failed.to_string(), "0".to_owned(), failed == 0));
        let gaps = ratios(&self.hot, &self.bare, |it| it.seen.gap);
        let middle = median(&gaps);
        table.row(row(
            "longest gap, hot / release_handler alone",
            format!("{middle:.2} (of the pairs: {})", listed(&gaps)),
            format!("≤ {BAR}"),
            middle <= BAR,
        ));
        table
    }

    /// Medians of what each step took.
    pub(super) fn steps(&self) -> Table {
        let mut table = Table::new(&["step, median (worst)", Way::Hot.name(), Way::Bare.name()]);
        let named = self.hot.first().or(self.bare.first()).map(|it| it.steps.as_slice()).unwrap_or_default();
        for (name, _) in named {
            table.row([name.clone(), step(&self.hot, name), step(&self.bare, name)]);
        }
        table
    }

    fn all(&self) -> [(Way, &[Turn]); 3] {
        [(Way::Hot, &self.hot), (Way::Bare, &self.bare), (Way::Full, &self.full)]
    }
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seen, replica, .. } = self;
        write!(
            f,
            "{} of {} failed, longest gap {:.0} ms ({:.0} ms before), slowest answer {:.0} ms, replica {replica:.0} ms",
            seen.failed, seen.sent, seen.gap, seen.rest, seen.slowest
        )
    }
}

fn sum(turns: &[Turn], of: fn(&Turn) -> usize) -> usize {
    turns.iter().map(of).sum()
}

fn step(turns: &[Turn], name: &str) -> String {
    let steps = turns.iter().flat_map(|it| &it.steps).filter(|(it, _)| it == name);
    let took: Vec<f64> = steps.map(|(_, took)| *took).collect();
    if took.is_empty() { String::new() } else { shown(&took) }
}

fn ratios(ours: &[Turn], theirs: &[Turn], of: fn(&Turn) -> f64) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| of(ours) / of(theirs)).collect()
}

fn shown(samples: &[f64]) -> String {
    let worst = samples.iter().copied().fold(f64::NAN, f64::max);
    format!("{:.0} ms ({worst:.0})", median(samples))
}

fn listed(samples: &[f64]) -> String {
    samples.iter().map(|it| format!("{it:.2}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::seen::Seen;
    use super::*;

    fn turn(gap: f64, failed: usize) -> Turn {
        let seen = Seen { sent: 1_000, failed, gap, ..Seen::default() };
        Turn { seen, replica: 400.0, published: None, steps: vec![("install".to_owned(), gap)] }
    }

    fn turns(hot: [f64; 3], failed: usize) -> Turns {
        let all = |gaps: [f64; 3], failed| gaps.map(|it| turn(it, failed)).to_vec();
        Turns { hot: all(hot, failed), bare: all([100.0, 200.0, 100.0], 3), full: all([1e3; 3], 900) }
    }

    #[test]
    fn the_gaps_of_each_pair_and_the_failures_of_ours_are_held_to_the_bars() {
        let met = turns([109.0, 218.0, 300.0], 0).bars().to_string();
        assert!(met.contains("1.09 (of the pairs: 1.09, 1.09, 3.00)") && !met.contains("NOT MET"), "{met}");
        let long = turns([120.0, 240.0, 100.0], 0).bars().to_string();
        assert_eq!(long.matches("NOT MET").count(), 1, "{long}");
        let lost = turns([100.0, 200.0, 100.0], 1).bars().to_string();
        assert!(lost.lines().nth(1).unwrap().contains("NOT MET"), "{lost}");
    }

    #[test]
    fn the_worst_stands_beside_the_median() {
        let turns = turns([109.0, 218.0, 300.0], 0);
        let table = turns.table().to_string();
        assert!(table.lines().nth(1).unwrap().contains("218 ms (300)"), "{table}");
        let steps = turns.steps().to_string();
        assert!(steps.lines().nth(1).unwrap().ends_with("218 ms (300)           100 ms (200)"), "{steps}");
    }
}
