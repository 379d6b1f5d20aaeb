//! Events as lines: when, how bad, what, of whom.

use proto::events::Event;
use yew::{Html, Properties, component, html};

use super::state::severity;
use super::time::Ago;
use crate::route::Route;
use crate::shared::Shared;
use crate::words::event_sentence;

#[derive(Properties, PartialEq)]
pub struct Props {
    /// In the order in which they are shown.
    pub events: Vec<Shared<Event>>,
}

#[component]
pub fn EventList(props: &Props) -> Html {
    html! {
        <ol class="events" aria-label="Events">
            { for props.events.iter().map(|event| html! { <Line key={event.id.to_string()} event={event.clone()} /> }) }
        </ol>
    }
}

#[derive(Properties, PartialEq)]
struct LineProps {
    event: Shared<Event>,
}

#[component]
fn Line(props: &LineProps) -> Html {
    let event = &props.event;
    let link = |text: String, route: Route| html! { <a href={route.path()}>{ text }</a> };
    html! {
        <li data-event={event.kind.clone()} data-severity={event.severity.word()} tabindex="-1" data-row="">
            <span class="when"><Ago at={event.at} /></span>
            { severity(event.severity) }
            <span class="what">{ event_sentence(event) }</span>
            <span class="about">
                if let Some(name) = &event.application { { link(name.to_string(), Route::application(name)) } }
                if let Some(name) = &event.node { { link(name.to_string(), Route::node(name)) } }
                if let Some(id) = event.rollout { { link("rollout".into(), Route::rollout(id)) } }
            </span>
        </li>
    }
}
