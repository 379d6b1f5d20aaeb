//! A state: its colour, its shape and its word, never one of them alone.

use proto::state::{Liveness, RolloutPhase, Service, Severity, SlotState, Tone};
use yew::{AttrValue, Html, Properties, component, html};

use crate::words;

/// The shape of a tone, drawn rather than written, so that no font decides what it looks like.
pub fn shape(tone: Tone) -> Html {
    let drawn = match tone {
        Tone::Ok => html! { <circle cx="6" cy="6" r="4.5" class="full" /> },
        Tone::Moving => {
            html! { <><circle cx="6" cy="6" r="4" /><path class="full" d="M6 2A4 4 0 0 0 6 10Z" /></> }
        }
        Tone::Waiting => html! { <><circle cx="6" cy="6" r="4.2" /><path d="M6 3.4V6H8.2" /></> },
        Tone::Bad => html! { <path class="full" d="M6 1.2 11.2 10.4H.8Z" /> },
        Tone::Off => html! { <circle cx="6" cy="6" r="4" /> },
    };
    html! {
        <svg class="shape" data-tone={tone.word()} viewBox="0 0 12 12" aria-hidden="true" focusable="false">{ drawn }</svg>
    }
}

#[derive(Properties, PartialEq)]
pub struct Props {
    pub tone: Tone,
    pub word: AttrValue,
    /// As in JSON, where that is not the word.
    #[prop_or_default]
    pub state: Option<AttrValue>,
}

#[component]
pub fn State(props: &Props) -> Html {
    let Props { tone, word, state } = props;
    html! {
        <span class="state" data-tone={tone.word()} data-state={state.clone().unwrap_or_else(|| word.clone())}>
            { shape(*tone) }{ word }
        </span>
    }
}

pub fn slot(state: SlotState) -> Html {
    html! { <State tone={state.tone()} word={words::state(state)} state={state.word()} /> }
}

pub fn phase(phase: RolloutPhase) -> Html {
    html! { <State tone={phase.tone()} word={phase.word()} /> }
}

pub fn liveness(liveness: Liveness) -> Html {
    html! { <State tone={words::liveness_tone(liveness)} word={liveness.word()} /> }
}

pub fn label((key, value): (&String, &String)) -> Html {
    html! { <code class="label">{ format!("{key}={value}") }</code> }
}

/// Only where replicas are kept away.
pub fn service(service: Service) -> Html {
    let tone = match service {
        Service::Open => return html! {},
        Service::Cordoned => Tone::Waiting,
        Service::Draining => Tone::Moving,
    };
    html! { <State {tone} word={service.word()} /> }
}

pub fn severity(severity: Severity) -> Html {
    let tone = match severity {
        Severity::Info => Tone::Off,
        Severity::Warning => Tone::Waiting,
        Severity::Error => Tone::Bad,
    };
    html! { <State {tone} word={severity.word()} /> }
}
