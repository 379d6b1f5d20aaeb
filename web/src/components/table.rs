//! Rows and columns: sorted by a click on a heading, filtered by words, opened by a click or Enter. Long ones draw only
//! the rows in sight, so that fifteen thousand scroll like fifteen.

mod order;
mod row;
mod sight;

use yew::{Callback, Html, Properties, classes, component, html, use_memo, use_node_ref, use_state_eq};

use super::icon::Icon;
use crate::matching::passes;
use crate::shared::Shared;
use crate::window::{Taller, Window};
use order::Order;
use row::Row;
use sight::use_window;

pub use order::Column;

/// Height of a row in pixels, as the style sheet has it.
const ROW: f64 = 32.0;
/// Shorter tables are drawn whole.
const DRAWN_WHOLE: usize = 150;
/// A filter is worth its place from here on.
const WORTH_FILTERING: usize = 8;

/// What all tables of a kind have in common.
pub struct Kind<T: 'static> {
    /// Which table this is, for whoever looks for it: `data-table`.
    pub id: &'static str,
    /// What the rows are, for those who hear it.
    pub label: &'static str,
    pub columns: &'static [Column<T>],
    /// What a row is called: unique, and the same when the row changes.
    pub name: fn(&T) -> String,
    /// Where a row leads.
    pub href: Option<fn(&T) -> String>,
}

#[derive(Properties)]
pub struct Props<T: 'static> {
    pub kind: &'static Kind<T>,
    pub rows: Vec<Shared<T>>,
    /// What a row shows when it is opened.
    #[prop_or_default]
    pub detail: Option<Callback<Shared<T>, Html>>,
    /// The row that is open at first.
    #[prop_or_default]
    pub open: Option<String>,
}

impl<T> PartialEq for Props<T> {
    fn eq(&self, other: &Self) -> bool {
        self.kind.id == other.kind.id
            && self.rows == other.rows
            && self.detail == other.detail
            && self.open == other.open
    }
}

#[component]
pub fn Table<T: 'static>(props: &Props<T>) -> Html {
    let order = use_state_eq(Order::default);
    let filter = use_state_eq(String::new);
    let open = use_state_eq(|| props.open.clone());
    let taller = use_state_eq(|| 0.0);
    let body = use_node_ref();
    let Kind { id, label, columns, name, .. } = *props.kind;

    let rows = use_memo((props.rows.clone(), *order, (*filter).clone()), move |(rows, order, filter)| {
        let text = |row: &T| columns.iter().map(|it| (it.text)(row)).collect::<Vec<_>>().join(" ");
        let mut rows: Vec<Shared<T>> =
            rows.iter().filter(|row| filter.is_empty() || passes(filter, &text(row))).cloned().collect();
        order.sort(columns, &mut rows);
        rows
    });
    let opened = open.as_ref().and_then(|open| rows.iter().position(|row| name(row) == *open));
    let window = {
        let taller = opened.map(|row| Taller { row, by: *taller });
        use_window(&body, rows.len(), taller, rows.len() > DRAWN_WHOLE)
    };
    let Window { first, end, before, after } = window;

    let toggle = {
        let open = open.clone();
        Callback::from(move |row: String| open.set((open.as_ref() != Some(&row)).then_some(row)))
    };
    let grown = Callback::from(move |by: f64| taller.set(by));
    let sort = {
        let order = order.clone();
        Callback::from(move |column: usize| order.set(order.by(column)))
    };
    let spacer = |height: f64| {
        (height > 0.0).then(|| html! {
            <tr class="spacer" aria-hidden="true"><td colspan={columns.len().to_string()} style={format!("height:{height:.0}px")} /></tr>
        })
    };
    html! {
        <>
            if props.rows.len() >= WORTH_FILTERING || !filter.is_empty() {
                <Filter filter={(*filter).clone()} shown={rows.len()} all={props.rows.len()}
                    onchange={Callback::from({ let filter = filter.clone(); move |text| filter.set(text) })} />
            }
            <table class="table" data-table={id} aria-label={label} aria-rowcount={(rows.len() + 1).to_string()}>
                <thead><tr>{ for columns.iter().enumerate().map(|(at, column)| heading(at, column, *order, &sort)) }</tr></thead>
                <tbody ref={body}>
                    { spacer(before) }
                    { for rows[first..end].iter().enumerate().map(|(at, row)| {
                        let key = name(row);
                        let is_open = opened == Some(first + at);
                        html! {
                            <Row<T> {key} row={row.clone()} kind={props.kind}
                                detail={props.detail.clone()} {is_open} place={first + at} toggle={toggle.clone()} grown={grown.clone()} />
                        }
                    }) }
                    { spacer(after) }
                </tbody>
            </table>
            if rows.is_empty() { <p class="none">{ "No row has these words." }</p> }
        </>
    }
}

fn heading<T>(at: usize, column: &Column<T>, order: Order, sort: &Callback<usize>) -> Html {
    let direction = order.direction(at);
    let sort = sort.clone();
    let mark = match direction {
        "ascending" => Icon::Up.view(),
        "descending" => Icon::Down.view(),
        _ => html! {},
    };
    html! {
        <th class={classes!(column.class)} aria-sort={direction} scope="col">
            <button onclick={move |_| sort.emit(at)}>{ column.title }{ mark }</button>
        </th>
    }
}

#[derive(Properties, PartialEq)]
struct FilterProps {
    filter: String,
    shown: usize,
    all: usize,
    onchange: Callback<String>,
}

#[component]
fn Filter(props: &FilterProps) -> Html {
    let FilterProps { filter, shown, all, onchange } = props;
    let oninput = onchange.reform(|event: yew::InputEvent| {
        yew::TargetCast::target_unchecked_into::<web_sys::HtmlInputElement>(&event).value()
    });
    html! {
        <div class="filter">
            <input type="search" data-filter="" placeholder="Filter  /" aria-label="Filter the rows" value={filter.clone()} {oninput} />
            <span class="dim" role="status">
                if shown == all { { crate::format::grouped(*all as u64) } } else { { format!("{} of {}", crate::format::grouped(*shown as u64), crate::format::grouped(*all as u64)) } }
            </span>
        </div>
    }
}
