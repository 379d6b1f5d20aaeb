//! Where a chart's lines run: points into paths, with gaps where nothing was measured, and a scale that people can read. Pure.

use std::fmt::Write as _;

use proto::timestamp::Timestamp;

use crate::format;

/// The plot's own units; the browser stretches them to whatever room there is.
pub const WIDTH: f64 = 720.0;
pub const HEIGHT: f64 = 120.0;

/// What a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// 0..=100.
    Percent,
    Bytes,
    BytesPerSecond,
    Plain,
    /// Whole things.
    Count,
    CountPerSecond,
}

impl Unit {
    pub fn text(self, value: f64) -> String {
        match self {
            Self::Percent => format::percent(value),
            Self::Bytes => format::bytes(whole(value)),
            Self::BytesPerSecond => format!("{}/s", format::bytes(whole(value))),
            Self::Plain => format!("{value:.2}"),
            Self::Count => format::grouped(whole(value)),
            Self::CountPerSecond => format!("{}/s", format::grouped(whole(value))),
        }
    }

    /// A round number above all that is drawn: 1, 2 or 5 times a power of ten of the unit that it is written in.
    pub fn ceiling(self, most: f64) -> f64 {
        let (least, thousand) = match self {
            // Half of it is written too, and there is no half of a thing.
            Self::Percent | Self::Count | Self::CountPerSecond => (10.0, f64::INFINITY),
            Self::Plain => (1.0, f64::INFINITY),
            Self::Bytes | Self::BytesPerSecond => (1_024.0, 1_024.0),
        };
        let (most, mut unit) = (most.max(least), 1.0);
        while thousand.is_finite() && most / unit > 1_000.0 {
            unit *= thousand;
        }
        let most = most / unit;
        let power = 10_f64.powf(most.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * power >= most * 0.999).unwrap_or(10.0);
        step * power * unit
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes are not negative")]
fn whole(value: f64) -> u64 {
    value.max(0.0).round() as u64
}

/// Which part of time and of values is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    pub start: Timestamp,
    pub end: Timestamp,
    pub ceiling: f64,
    /// Two points further apart than this are not connected, in milliseconds.
    pub gap: u64,
}

impl Frame {
    /// From the left, in the plot's units.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of an hour")]
    pub fn x(&self, at: Timestamp) -> f64 {
        let span = self.end.0.saturating_sub(self.start.0).max(1) as f64;
        WIDTH * at.0.saturating_sub(self.start.0) as f64 / span
    }

    /// From the top.
    pub fn y(&self, value: f64) -> f64 {
        HEIGHT - HEIGHT * (value / self.ceiling).clamp(0.0, 1.0)
    }

    /// The moment at a share of the width.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "as above"
    )]
    pub fn at(&self, share: f64) -> Timestamp {
        let span = self.end.0.saturating_sub(self.start.0) as f64;
        Timestamp(self.start.0 + (span * share.clamp(0.0, 1.0)) as u64)
    }

    /// Points that follow each other without a gap.
    pub fn pieces(&self, times: &[Timestamp], values: &[Option<f64>]) -> Vec<Vec<(f64, f64)>> {
        let mut pieces: Vec<Vec<(f64, f64)>> = Vec::new();
        let mut last: Option<Timestamp> = None;
        for (at, value) in times.iter().zip(values).filter(|(at, _)| **at >= self.start) {
            let Some(value) = value else {
                last = None;
                continue;
            };
            let point = (self.x(*at), self.y(*value));
            let goes_on = last.is_some_and(|last| at.0.saturating_sub(last.0) <= self.gap);
            match pieces.last_mut().filter(|_| goes_on) {
                Some(piece) => piece.push(point),
                None => pieces.push(vec![point]),
            }
            last = Some(*at);
        }
        pieces
    }
}

/// A path through each piece. A point alone is a dot.
pub fn line(pieces: &[Vec<(f64, f64)>]) -> String {
    let mut path = String::new();
    for piece in pieces {
        for (at, (x, y)) in piece.iter().enumerate() {
            let _ = write!(path, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
        }
        if piece.len() == 1 {
            path.push_str("h0.1");
        }
    }
    path
}

/// What lies below each piece.
pub fn area(pieces: &[Vec<(f64, f64)>]) -> String {
    let mut path = String::new();
    for piece in pieces.iter().filter(|it| it.len() > 1) {
        let (Some((first, _)), Some((last, _))) = (piece.first(), piece.last()) else { continue };
        let _ = write!(path, "M{first:.1} {HEIGHT}");
        for (x, y) in piece {
            let _ = write!(path, "L{x:.1} {y:.1}");
        }
        let _ = write!(path, "L{last:.1} {HEIGHT}Z");
    }
    path
}

/// The point that is next to a moment, unless none is near.
pub fn nearest(times: &[Timestamp], at: Timestamp, gap: u64) -> Option<usize> {
    let after = times.partition_point(|it| *it < at);
    let near = [after.checked_sub(1), Some(after)].into_iter().flatten();
    near.filter_map(|index| Some((times.get(index)?.0.abs_diff(at.0), index)))
        .min()
        .filter(|(apart, _)| *apart <= gap)
        .map(|it| it.1)
}

/// What a line shows, for those who do not see it: `now 12 %, from 3 % to 40 %`.
pub fn in_words(unit: Unit, values: &[Option<f64>]) -> String {
    let known = || values.iter().copied().flatten();
    let (least, most) = (known().reduce(f64::min), known().reduce(f64::max));
    let (Some(least), Some(most), Some(last)) = (least, most, known().last()) else {
        return "nothing was measured".to_owned();
    };
    format!("now {}, from {} to {}", unit.text(last), unit.text(least), unit.text(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Frame = Frame { start: Timestamp(0), end: Timestamp(720), ceiling: 100.0, gap: 10 };

    fn times(at: &[u64]) -> Vec<Timestamp> {
        at.iter().copied().map(Timestamp).collect()
    }

    #[test]
    fn a_gap_is_a_gap_and_a_point_alone_is_a_dot() {
        let at = times(&[0, 5, 10, 40, 80, 85]);
        let values = [Some(0.0), Some(50.0), Some(100.0), Some(25.0), Some(200.0), None];
        let pieces = FRAME.pieces(&at, &values);
        assert_eq!(line(&pieces), "M0.0 120.0L5.0 60.0L10.0 0.0M40.0 90.0h0.1M80.0 0.0h0.1");
        assert_eq!(area(&pieces), "M0.0 120L0.0 120.0L5.0 60.0L10.0 0.0L10.0 120Z");
        assert_eq!(line(&FRAME.pieces(&[], &[])), "");
    }

    #[test]
    fn what_is_older_than_the_frame_is_left_out() {
        let frame = Frame { start: Timestamp(5), ..FRAME };
        let pieces = frame.pieces(&times(&[0, 5, 10]), &[Some(1.0); 3]);
        assert_eq!(pieces[0].len(), 2);
    }

    #[test]
    fn a_scale_ends_at_a_round_number_of_the_unit_that_is_read() {
        for (unit, most, text) in [
            (Unit::Percent, 0.0, "10 %"),
            (Unit::Percent, 17.0, "20 %"),
            (Unit::Percent, 100.0, "100 %"),
            (Unit::Plain, 0.2, "1.00"),
            (Unit::Plain, 3.4, "5.00"),
            (Unit::BytesPerSecond, 0.0, "1.0 KiB/s"),
            (Unit::BytesPerSecond, 123_456.0, "200 KiB/s"),
            (Unit::Bytes, 1_073_741_824.0 * 1.5, "2.0 GiB"),
            (Unit::Count, 1.0, "10"),
            (Unit::Count, 9_600.0, "10,000"),
            (Unit::CountPerSecond, 1_234_567.0, "2,000,000/s"),
        ] {
            assert_eq!(unit.text(unit.ceiling(most)), text, "{most}");
        }
    }

    #[test]
    fn the_nearest_point_is_found_and_none_in_a_gap() {
        let at = times(&[0, 5, 10, 60]);
        for (moment, found) in
            [(0, Some(0)), (4, Some(1)), (11, Some(2)), (30, None), (55, Some(3)), (900, None)]
        {
            assert_eq!(nearest(&at, Timestamp(moment), 10), found, "{moment}");
        }
        assert_eq!(nearest(&[], Timestamp(0), 10), None);
    }

    #[test]
    fn a_line_is_told_in_words() {
        let values = [Some(3.0), None, Some(40.0), Some(12.0)];
        assert_eq!(in_words(Unit::Percent, &values), "now 12 %, from 3 % to 40 %");
        assert_eq!(in_words(Unit::Percent, &[None]), "nothing was measured");
    }
}
