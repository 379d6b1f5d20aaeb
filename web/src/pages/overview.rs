//! Is anything wrong, is anything moving, does anything wait for me: one sentence, what moves, the fleet as squares, the
//! latest events.

use proto::events::Event;
use proto::live::Topic;
use proto::rollouts::RolloutSummary;
use proto::state::{RolloutPhase, Severity};
use yew::{Html, Properties, component, html};

use super::View;
use crate::components::event_list::EventList;
use crate::components::fleet_map::{FleetMap, Legend};
use crate::components::notice::{Empty, Loading, coded, shown};
use crate::components::state::{phase, shape};
use crate::components::stepper::thin_bar;
use crate::components::time::Elapsed;
use crate::live::store::FleetNow;
use crate::live::{use_store, use_topic};
use crate::route::Route;
use crate::shared::Shared;
use crate::words;

const LATEST_EVENTS: usize = 12;

#[component]
pub fn OverviewPage() -> Html {
    use_topic(Topic::Events);
    let store = use_store();
    shown(&store.fleet, "fleet", |fleet| {
        html! {
            <View id="overview" title="Overview">
                { headline(fleet) }
                { moving(fleet) }
                <section aria-label="Fleet map">
                    <header class="section-head"><h2>{ "Fleet" }</h2><Legend /></header>
                    if fleet.applications.is_empty() {
                        <Empty title="Each replica appears here as a square, grouped by application.">
                            <p>{ "No application is configured: name one under " }<code>{ "applications:" }</code>{ " in deployex.yaml and apply it." }</p>
                        </Empty>
                    } else {
                        <FleetMap applications={fleet.applications.clone()} />
                    }
                </section>
                <section aria-label="Latest events">
                    <header class="section-head"><h2>{ "Latest events" }</h2><a href={Route::Events.path()}>{ "All events" }</a></header>
                    { match store.events.value() {
                        None => html! { <Loading /> },
                        Some(events) => latest(events),
                    } }
                </section>
            </View>
        }
    })
}

/// The one sentence, and below it each application that needs somebody.
fn headline(fleet: &FleetNow) -> Html {
    let needy = fleet.applications.iter().filter(|it| it.needs_attention);
    html! {
        <section class="headline" data-tone={fleet.headline.tone.word()} aria-label="The fleet in one sentence">
            <p class="lead">{ shape(fleet.headline.tone) }<span>{ coded(&fleet.headline.text) }</span></p>
            <ul>
                { for needy.map(|it| html! {
                    <li><a href={Route::application(&it.name).path()}>{ it.name.to_string() }</a>{ " " }{ words::full_stop(&it.sentence) }</li>
                }) }
            </ul>
        </section>
    }
}

fn moving(fleet: &FleetNow) -> Html {
    let moving: Vec<_> = fleet.rollouts.iter().filter(|it| it.phase != RolloutPhase::Watching).collect();
    if moving.is_empty() {
        return html! {};
    }
    html! {
        <section aria-label="Rollouts in progress">
            <header class="section-head"><h2>{ "Moving" }</h2><a href={Route::Rollouts.path()}>{ "All rollouts" }</a></header>
            <ul class="moving">{ for moving.into_iter().map(|it| html! { <Moving key={it.id.to_string()} rollout={it.clone()} /> }) }</ul>
        </section>
    }
}

#[derive(Properties, PartialEq)]
struct MovingProps {
    rollout: Shared<RolloutSummary>,
}

#[component]
fn Moving(props: &MovingProps) -> Html {
    let it = &props.rollout;
    let why = it.waiting.first().map(|why| format!("Waiting: {}", words::full_stop(why)));
    html! {
        <li data-rollout={it.id.to_string()} data-phase={it.phase.word()} data-href={Route::rollout(it.id).path()}>
            <a href={Route::rollout(it.id).path()}><strong>{ it.application.to_string() }</strong>{ " " }{ words::step(it.from.as_ref(), &it.release) }</a>
            { phase(it.phase) }
            { thin_bar(it.progress.stable, it.progress.total, it.phase.tone()) }
            <span class="dim">{ words::progress(it.progress) }{ ", for " }<Elapsed at={it.started_at} /></span>
            <span class="why">{ why.or_else(|| it.reason.as_deref().map(words::sentence)).unwrap_or_default() }</span>
        </li>
    }
}

/// Newest first.
fn latest(events: &[Shared<Event>]) -> Html {
    let latest: Vec<_> = events.iter().rev().filter(|it| matters(it)).take(LATEST_EVENTS).cloned().collect();
    match latest.is_empty() {
        true => html! { <Empty title="What happens in the fleet appears here as it happens." /> },
        false => html! { <EventList events={latest} /> },
    }
}

/// What every slot says on its usual way is on the events page.
fn matters(event: &Event) -> bool {
    event.severity != Severity::Info || event.slot.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn the_usual_way_of_a_slot_is_no_news_and_its_crash_is() {
        let mut event = sample::event(1, "x");
        assert!(matters(&event));
        event.slot = sample::tile("n", 1, proto::state::SlotState::Ready).slot.into();
        assert!(!matters(&event));
        event.severity = Severity::Warning;
        assert!(matters(&event));
    }
}
