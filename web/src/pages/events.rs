//! Everything that happened, newest first, as it happens.

use proto::events::Event;
use proto::live::Topic;
use proto::state::Severity;
use web_sys::{HtmlInputElement, InputEvent};
use yew::{Callback, Html, TargetCast, component, html, use_state_eq};

use super::{View, listed, rows};
use crate::client::use_pages;
use crate::components::event_list::EventList;
use crate::components::notice::Empty;
use crate::live::{use_store, use_topic};
use crate::matching::passes;
use crate::order::sorted;
use crate::shared::Shared;

const SEVERITIES: [(Severity, &str); 3] =
    [(Severity::Info, "all"), (Severity::Warning, "warnings and errors"), (Severity::Error, "errors")];

#[component]
pub fn EventsPage() -> Html {
    use_topic(Topic::Events);
    let store = use_store();
    let at_least = use_state_eq(|| Severity::Info);
    let filter = use_state_eq(String::new);
    let path = match *at_least {
        Severity::Info => "/events".to_owned(),
        severity => format!("/events?severity={severity}"),
    };
    let pages = use_pages::<Event, _>(path, ());
    let oninput = {
        let filter = filter.clone();
        Callback::from(move |event: InputEvent| {
            filter.set(event.target_unchecked_into::<HtmlInputElement>().value());
        })
    };
    html! {
        <View id="events" title="Events">
            <div class="filter">
                <input type="search" data-filter="" placeholder="Filter  /" aria-label="Filter the events" value={(*filter).clone()} {oninput} />
                <span class="choice" role="group" aria-label="Severity">
                    { for SEVERITIES.into_iter().map(|(severity, word)| {
                        let chosen = at_least.clone();
                        html! { <button data-severity-choice={severity.word()} aria-pressed={(*at_least == severity).to_string()} onclick={move |_| chosen.set(severity)}>{ word }</button> }
                    }) }
                </span>
            </div>
            { listed(&pages, "events", |items| {
                let live = store.events.value().map(|it| it.as_slice()).unwrap_or_default();
                let events: Vec<_> = together(live, items, *at_least)
                    .into_iter().filter(|it| filter.is_empty() || passes(&filter, &text(it))).collect();
                let quiet = filter.is_empty() && *at_least == Severity::Info;
                match (events.is_empty(), quiet) {
                    (true, true) => html! { <Empty title="What happens in the fleet appears here as it happens." /> },
                    (true, false) => html! { <Empty title="No event is like this among those shown." /> },
                    (false, _) => html! { <EventList {events} /> },
                }
            }) }
        </View>
    }
}

/// Those of the link and those that were loaded, each once, newest first.
fn together(live: &[Shared<Event>], loaded: &[Event], at_least: Severity) -> Vec<Shared<Event>> {
    let mut all: Vec<Shared<Event>> = live.iter().filter(|it| it.severity >= at_least).cloned().collect();
    all.extend(rows(loaded));
    let mut all = sorted(&all, |a, b| b.id.cmp(&a.id));
    all.dedup_by_key(|it| it.id);
    all
}

/// What a filter looks at.
fn text(event: &Event) -> String {
    let of = |name: Option<String>| name.unwrap_or_default();
    format!(
        "{} {} {} {} {} {}",
        event.text,
        event.kind,
        event.severity,
        of(event.application.as_ref().map(ToString::to_string)),
        of(event.node.as_ref().map(ToString::to_string)),
        of(event.by.clone())
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn events_of_both_sources_are_there_once_and_in_order() {
        let live: Vec<_> = [3, 4].map(|id| Shared::new(sample::event(id, "x"))).into();
        let loaded: Vec<_> = [3, 2, 1].map(|id| sample::event(id, "x")).into();
        let ids = |events: Vec<Shared<Event>>| events.iter().map(|it| it.id.0.as_u128()).collect::<Vec<_>>();
        assert_eq!(ids(together(&live, &loaded, Severity::Info)), [4, 3, 2, 1]);
        assert_eq!(ids(together(&live, &[], Severity::Error)), [0; 0]);
    }
}
