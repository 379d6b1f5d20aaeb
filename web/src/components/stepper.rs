//! A rollout step by step: the planner's sentence on top, then pre-commands and each node with its slots.

use proto::rollouts::Rollout;
use proto::state::Tone;
use yew::{Html, Properties, component, html};

use super::state::{phase, shape};
use super::time::Elapsed;
use crate::route::Route;
use crate::shared::Shared;
use crate::steps::{self, NodeStep, Progress};
use crate::words;

/// With more nodes than this only those that move are shown with their slots.
const EACH_WITH_SLOTS: usize = 24;

#[derive(Properties, PartialEq)]
pub struct Props {
    pub rollout: Shared<Rollout>,
    /// The heading leads to the rollout's own page.
    #[prop_or_default]
    pub linked: bool,
}

#[component]
pub fn Stepper(props: &Props) -> Html {
    let Props { rollout, linked } = props;
    let summary = &rollout.summary;
    let nodes = steps::nodes(rollout);
    let title = words::step(summary.from.as_ref(), &summary.release);
    let title = match linked {
        true => html! { <a href={Route::rollout(summary.id).path()}>{ title }</a> },
        false => html! { title },
    };
    html! {
        <section class="stepper" aria-label="Rollout" data-rollout={summary.id.to_string()} data-phase={summary.phase.word()}>
            <header>
                { phase(summary.phase) }<strong>{ title }</strong>
                <span class="dim">{ words::progress(summary.progress) }{ " stable, for " }<Elapsed at={summary.phase_since} /></span>
            </header>
            { progress_bar(rollout) }
            <div class="sentences">{ sentences(rollout) }</div>
            <ol class="steps">
                if let Some((progress, said)) = steps::pre_commands(&rollout.pre_commands) {
                    <li data-progress={progress.word()}>
                        { shape(progress.tone()) }<span class="name">{ "Pre-commands" }</span><span class="dim">{ said }</span>
                    </li>
                }
                { for visible(&nodes).map(node_step) }
            </ol>
            if nodes.len() > EACH_WITH_SLOTS { <p class="dim">{ tally(&nodes) }</p> }
        </section>
    }
}

/// One thin bar: what is stable of all.
pub fn progress_bar(rollout: &Rollout) -> Html {
    let summary = &rollout.summary;
    thin_bar(summary.progress.stable, summary.progress.total, summary.phase.tone())
}

pub fn thin_bar(part: u32, whole: u32, tone: Tone) -> Html {
    let percent = crate::format::share(part.into(), whole.into());
    html! {
        <div class="thin-bar" data-tone={tone.word()} role="progressbar" aria-valuemin="0" aria-valuemax={whole.to_string()}
            aria-valuenow={part.to_string()}><span style={format!("width:{percent:.1}%")} /></div>
    }
}

/// Why it stands as it stands: the planner's own words.
fn sentences(rollout: &Rollout) -> Html {
    let summary = &rollout.summary;
    let reason = summary.reason.as_ref().map(|reason| html! { <p>{ words::sentence(reason) }</p> });
    let waiting = summary.waiting.iter().map(|why| {
        html! { <p class="waiting">{ "Waiting: " }{ words::full_stop(why) }</p> }
    });
    html! { <>{ reason }{ for waiting }</> }
}

fn visible(nodes: &[NodeStep]) -> impl Iterator<Item = &NodeStep> {
    let all = nodes.len() <= EACH_WITH_SLOTS;
    let moves = |step: &&NodeStep| matches!(step.progress, Progress::Moving | Progress::Bad);
    nodes.iter().filter(move |step| all || moves(step)).take(EACH_WITH_SLOTS)
}

fn node_step(step: &NodeStep) -> Html {
    html! {
        <li data-progress={step.progress.word()} data-node={step.node.to_string()}>
            { shape(step.progress.tone()) }
            <a class="name" href={Route::node(&step.node).path()}>{ step.node.to_string() }</a>
            <span class="slots">
                { for step.slots.iter().map(|slot| html! {
                    <span class="slot" data-tone={slot.progress.tone().word()}
                        title={format!("slot {}: {}, {}", slot.slot, slot.progress.word(), words::state(slot.state))}>
                        { shape(slot.progress.tone()) }{ slot.slot.to_string() }
                    </span>
                }) }
            </span>
        </li>
    }
}

fn tally(nodes: &[NodeStep]) -> String {
    let of = |progress| nodes.iter().filter(|step| step.progress == progress).count();
    format!(
        "{} nodes: {} done, {} moving, {} waiting, {} failed.",
        nodes.len(),
        of(Progress::Done),
        of(Progress::Moving),
        of(Progress::Waiting),
        of(Progress::Bad)
    )
}
