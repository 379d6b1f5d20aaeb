//! Which rows of a long table are drawn: those in sight and some around them. Pure.

/// Rows drawn above and below of what is in sight, so that scrolling and `j k` meet no gap.
const MARGIN: usize = 30;

/// Where the table is on the screen, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sight {
    /// From the first row's upper edge to that of what is in sight; negative: the table begins further down.
    pub above: f64,
    pub height: f64,
}

/// One row that is taller than the others by `by`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taller {
    pub row: usize,
    pub by: f64,
}

/// Rows `first..end`, and the room that the others take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    pub first: usize,
    pub end: usize,
    pub before: f64,
    pub after: f64,
}

#[expect(clippy::cast_precision_loss, reason = "pixels")]
pub fn window(rows: usize, row_height: f64, taller: Option<Taller>, sight: Sight) -> Window {
    let extra = |until: usize| taller.filter(|it| it.row < until).map_or(0.0, |it| it.by);
    let top_of = |row: usize| row as f64 * row_height + extra(row);
    let first = row_at(sight.above, row_height, taller).saturating_sub(MARGIN).min(rows);
    let end = (row_at(sight.above + sight.height, row_height, taller) + 1 + MARGIN).min(rows);
    Window { first, end: end.max(first), before: top_of(first), after: top_of(rows) - top_of(end.max(first)) }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "pixels to rows"
)]
fn row_at(offset: f64, row_height: f64, taller: Option<Taller>) -> usize {
    let plain = |offset: f64| (offset.max(0.0) / row_height) as usize;
    match taller {
        Some(Taller { row, by }) => {
            let begins = (row + 1) as f64 * row_height;
            if offset < begins { plain(offset) } else { plain((offset - by).max(begins - row_height)) }
        }
        None => plain(offset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_TOP: Sight = Sight { above: -100.0, height: 640.0 };

    #[test]
    fn only_what_is_in_sight_and_its_margin_is_drawn() {
        let it = window(15_000, 32.0, None, AT_TOP);
        assert_eq!((it.first, it.end), (0, 16 + 1 + MARGIN));
        let it = window(15_000, 32.0, None, Sight { above: 320_000.0, height: 640.0 });
        assert_eq!((it.first, it.end), (10_000 - MARGIN, 10_020 + 1 + MARGIN));
    }

    #[test]
    fn the_table_is_as_tall_as_if_all_were_drawn() {
        for above in [0.0, 5_000.0, 300_000.0, 1e9] {
            let taller = Some(Taller { row: 200, by: 410.0 });
            let it = window(15_000, 32.0, taller, Sight { above, height: 900.0 });
            #[expect(clippy::cast_precision_loss)]
            let drawn = (it.end - it.first) as f64 * 32.0
                + if (it.first..it.end).contains(&200) { 410.0 } else { 0.0 };
            assert!(
                (it.before + drawn + it.after - (15_000.0 * 32.0 + 410.0)).abs() < 1e-6,
                "{above}: {it:?}"
            );
        }
    }

    #[test]
    fn a_tall_row_in_sight_is_drawn_while_any_of_it_is() {
        let taller = Some(Taller { row: 100, by: 2_000.0 });
        let it = window(1_000, 32.0, taller, Sight { above: 4_500.0, height: 500.0 });
        assert!(it.first <= 100 && it.end > 100, "{it:?}");
    }

    #[test]
    fn an_empty_table_has_an_empty_window() {
        let it = window(0, 32.0, None, AT_TOP);
        assert_eq!((it.first, it.end), (0, 0));
        assert!(it.before.abs() < 1e-9 && it.after.abs() < 1e-9);
    }
}
