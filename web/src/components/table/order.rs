//! Columns, and the order of rows by one of them. Pure but for the cells' contents.

use std::cmp::Ordering;

use yew::Html;

use crate::order::sorted;
use crate::shared::Shared;

/// A column of a table of `T`.
pub struct Column<T: 'static> {
    pub title: &'static str,
    /// For the style sheet: `number`, and from which width on it is shown.
    pub class: &'static str,
    pub cell: fn(&T) -> Html,
    /// What the filter finds in it.
    pub text: fn(&T) -> String,
    pub compare: fn(&T, &T) -> Ordering,
}

/// By which column, and which way round. At first: as the rows came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Order {
    by: Option<(usize, bool)>,
}

impl Order {
    /// A column is chosen: rising, falling, then as the rows came.
    pub(super) fn by(self, column: usize) -> Self {
        let by = match self.by {
            Some((same, false)) if same == column => Some((column, true)),
            Some((same, true)) if same == column => None,
            _ => Some((column, false)),
        };
        Self { by }
    }

    /// As `aria-sort` says it.
    pub(super) fn direction(self, column: usize) -> &'static str {
        match self.by {
            Some((by, false)) if by == column => "ascending",
            Some((by, true)) if by == column => "descending",
            _ => "none",
        }
    }

    pub(super) fn sort<T>(self, columns: &[Column<T>], rows: &mut Vec<Shared<T>>) {
        let Some((column, falling)) = self.by else { return };
        let Some(column) = columns.get(column) else { return };
        *rows = sorted(rows, |a, b| {
            let rising = (column.compare)(a, b);
            if falling { rising.reverse() } else { rising }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column<u32>] = &[Column {
        title: "n",
        class: "",
        cell: |_| Html::default(),
        text: ToString::to_string,
        compare: |a, b| (a % 10).cmp(&(b % 10)),
    }];

    #[test]
    fn a_heading_turns_the_order_twice_and_then_lets_it_go() {
        let sorted = |order: Order| {
            let mut rows: Vec<_> = [12, 31, 1, 23].into_iter().map(Shared::new).collect();
            order.sort(COLUMNS, &mut rows);
            rows.iter().map(|it| **it).collect::<Vec<_>>()
        };
        let order = Order::default();
        assert_eq!((sorted(order), order.direction(0)), (vec![12, 31, 1, 23], "none"));
        let order = order.by(0);
        assert_eq!((sorted(order), order.direction(0)), (vec![31, 1, 12, 23], "ascending"));
        let order = order.by(0);
        assert_eq!((sorted(order), order.direction(0)), (vec![23, 12, 31, 1], "descending"));
        assert_eq!(order.by(0), Order::default());
    }
}
