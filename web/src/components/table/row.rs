//! One row, drawn again only when it is another: its replica changed, or it was opened.

use web_sys::{Element, HtmlElement, KeyboardEvent, MouseEvent};
use yew::{Callback, Html, Properties, TargetCast, classes, component, html, use_effect, use_node_ref};

use super::Kind;
use crate::browser;
use crate::components::icon::Icon;
use crate::shared::Shared;

#[derive(Properties)]
pub(super) struct Props<T: 'static> {
    pub(super) row: Shared<T>,
    pub(super) kind: &'static Kind<T>,
    pub(super) detail: Option<Callback<Shared<T>, Html>>,
    pub(super) is_open: bool,
    /// Which one it is of all, for those who hear it: not all are drawn.
    pub(super) place: usize,
    pub(super) toggle: Callback<String>,
    /// How tall what it opened is.
    pub(super) grown: Callback<f64>,
}

impl<T> PartialEq for Props<T> {
    fn eq(&self, other: &Self) -> bool {
        self.row == other.row
            && self.is_open == other.is_open
            && self.place == other.place
            && (!self.is_open || self.detail == other.detail)
    }
}

#[component]
pub(super) fn Row<T: 'static>(props: &Props<T>) -> Html {
    let Props { row, kind, is_open, place, detail, grown, .. } = props;
    let columns = kind.columns;
    let name = (kind.name)(row);
    let expandable = detail.is_some();
    let open = {
        let (toggle, name) = (props.toggle.clone(), name.clone());
        move || toggle.emit(name.clone())
    };
    let onclick = {
        let open = open.clone();
        Callback::from(move |event: MouseEvent| {
            let on_control = event
                .target_dyn_into::<Element>()
                .and_then(|it| browser::closest(&it, "a, button"))
                .is_some();
            if expandable && !on_control {
                open();
            }
        })
    };
    // A row that leads somewhere is followed by the frame, as any link.
    let onkeydown = Callback::from(move |event: KeyboardEvent| {
        let on_row = event.target_dyn_into::<HtmlElement>().filter(|it| it.tag_name() == "TR");
        if let Some(row) = on_row.filter(|_| event.key() == "Enter") {
            event.prevent_default();
            if expandable { open() } else { row.click() }
        }
    });
    html! {
        <>
            <tr data-row={name} data-href={kind.href.map(|href| href(row))} tabindex={if *place == 0 { "0" } else { "-1" }}
                aria-rowindex={(place + 2).to_string()} aria-expanded={expandable.then(|| is_open.to_string())} {onclick} {onkeydown}>
                { for columns.iter().enumerate().map(|(at, column)| html! {
                    <td class={classes!(column.class)}>
                        if at == 0 && expandable { <span class="chevron">{ Icon::Chevron.view() }</span> }
                        { (column.cell)(row) }
                    </td>
                }) }
            </tr>
            if let Some(detail) = detail.as_ref().filter(|_| *is_open) {
                <Detail columns={columns.len()} grown={grown.clone()}>{ detail.emit(row.clone()) }</Detail>
            }
        </>
    }
}

#[derive(Properties, PartialEq)]
struct DetailProps {
    columns: usize,
    grown: Callback<f64>,
    children: Html,
}

/// What a row opened. How tall it is decides which other rows are in sight.
#[component]
fn Detail(props: &DetailProps) -> Html {
    let node = use_node_ref();
    {
        let (node, grown) = (node.clone(), props.grown.clone());
        use_effect(move || {
            if let Some(element) = node.cast::<HtmlElement>() {
                grown.emit(element.offset_height().into());
            }
        });
    }
    html! {
        <tr ref={node} class="detail"><td colspan={props.columns.to_string()}>{ props.children.clone() }</td></tr>
    }
}
