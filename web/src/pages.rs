//! The pages, one file each. A page asks for what it shows, shows what there is of it, and says what there is not.

pub mod application;
pub mod applications;
pub mod configuration;
pub(crate) mod confirm;
pub mod events;
#[cfg(feature = "gallery")]
pub mod gallery;
pub mod node;
pub mod nodes;
pub mod overview;
mod replica_table;
pub(crate) mod restart;
pub mod rollout;
pub mod rollouts;
pub mod sign_in;
mod vm_charts;

use yew::{Html, Properties, component, html, use_effect_with};

use crate::browser;
use crate::client::Pages;
use crate::components::notice::shown_or;
use crate::shared::Shared;

#[derive(Properties, PartialEq)]
pub struct ViewProps {
    /// `data-view`, for whoever waits for the page.
    pub id: &'static str,
    pub title: String,
    /// Beside the title: the way here, or what it is.
    #[prop_or_default]
    pub crumbs: Html,
    /// Buttons.
    #[prop_or_default]
    pub actions: Html,
    pub children: Html,
}

/// What all pages have: a heading, the browser's title, buttons at the right.
#[component]
pub fn View(props: &ViewProps) -> Html {
    let ViewProps { id, title, crumbs, actions, children } = props;
    use_effect_with(title.clone(), |title| browser::set_title(title));
    html! {
        <article class="view" data-view={*id}>
            <header class="view-head"><h1>{ crumbs.clone() }{ title }</h1><div class="actions">{ actions.clone() }</div></header>
            { children.clone() }
        </article>
    }
}

/// A list that comes in parts, with the button for the next, or what there is instead of it.
fn listed<T>(pages: &Pages<T>, what: &str, view: impl FnOnce(&[T]) -> Html) -> Html {
    shown_or(&pages.items, what, Some(pages.reload.clone()), |items| {
        html! { <>{ view(items) }{ more(pages) }</> }
    })
}

fn more<T>(pages: &Pages<T>) -> Html {
    match &pages.more {
        Some(more) => {
            let more = more.reform(|_| ());
            html! { <p class="more"><button id="more" onclick={more}>{ "Show older ones" }</button></p> }
        }
        None => html! {},
    }
}

/// Loaded things as rows of a table.
fn rows<T: Clone>(items: &[T]) -> Vec<Shared<T>> {
    items.iter().cloned().map(Shared::new).collect()
}
