//! The fleet as squares, one per replica, grouped by application: stays readable, and quick, at many thousands.
//!
//! Squares are drawn in blocks, and a block is drawn again only when a replica in it changed.

use proto::apps::ApplicationSummary;
use proto::ids::AppName;
use proto::replicas::ReplicaTile;
use proto::state::Tone;
use yew::{Html, Properties, component, html};

use super::state::shape;
use crate::route::Route;
use crate::shared::Shared;
use crate::words;

const BLOCK: usize = 250;

#[derive(Properties, PartialEq)]
pub struct Props {
    pub applications: Vec<Shared<ApplicationSummary>>,
}

#[component]
pub fn FleetMap(props: &Props) -> Html {
    let all: usize = props.applications.iter().map(|it| it.replicas.len()).sum();
    let size = match all {
        0..=600 => "large",
        601..=4_000 => "middle",
        _ => "small",
    };
    html! {
        <div class="fleet-map" data-size={size}>
            { for props.applications.iter().map(|it| html! { <Group key={it.name.to_string()} application={it.clone()} /> }) }
        </div>
    }
}

#[derive(Properties, PartialEq)]
struct GroupProps {
    application: Shared<ApplicationSummary>,
}

#[component]
fn Group(props: &GroupProps) -> Html {
    let application = &props.application;
    let blocks = application.replicas.chunks(BLOCK).enumerate();
    html! {
        <section class="group" data-application={application.name.to_string()}>
            <a class="title" href={Route::application(&application.name).path()}>
                { shape(application.tone) }<strong>{ application.name.to_string() }</strong>
                <span class="dim">{ words::ready(application) }</span>
            </a>
            // Said in words beside the name; one by one they are on the application's page.
            <div class="squares" aria-hidden="true">
                { for blocks.map(|(at, tiles)| html! {
                    <Block key={at} application={application.name.clone()} tiles={tiles.to_vec()} />
                }) }
            </div>
        </section>
    }
}

#[derive(Properties, PartialEq)]
struct BlockProps {
    application: AppName,
    tiles: Vec<ReplicaTile>,
}

#[component]
fn Block(props: &BlockProps) -> Html {
    let BlockProps { application, tiles } = props;
    html! { <>{ for tiles.iter().map(|tile| square(application, tile)) }</> }
}

fn square(application: &AppName, tile: &ReplicaTile) -> Html {
    let ReplicaTile { node, slot, state, version } = tile;
    let version = version.as_ref().map(|it| format!(" · {it}")).unwrap_or_default();
    let title = format!("{application} slot {slot} on {node}: {}{version}", words::state(*state));
    let href = format!("{}?replica={node}/{slot}", Route::application(application).path());
    html! { <a {href} {title} tabindex="-1" data-tone={state.tone().word()} data-state={state.word()} /> }
}

/// What the colours mean.
#[component]
pub fn Legend() -> Html {
    let meanings = [
        (Tone::Ok, "ready"),
        (Tone::Moving, "moving"),
        (Tone::Waiting, "unready or unknown"),
        (Tone::Bad, "failing"),
        (Tone::Off, "empty"),
    ];
    html! {
        <span class="legend dim">
            { for meanings.iter().map(|(tone, word)| html! { <span>{ shape(*tone) }{ *word }</span> }) }
        </span>
    }
}
