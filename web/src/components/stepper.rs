//! A rollout by its batches: the planner's sentences on top, then pre-commands and the nodes with their replicas as tiles.

use proto::rollouts::Rollout;
use proto::state::Tone;
use yew::{Html, Properties, component, html};

use super::state::{phase, shape};
use super::time::Elapsed;
use crate::route::Route;
use crate::shared::Shared;
use crate::steps::{self, Batch, NodeStep, SlotStep};
use crate::words;

/// A batch of more nodes than this is shown by its tiles alone.
const NAMED: usize = 24;
/// And one in which nothing happens.
const NAMED_AT_REST: usize = 8;
/// Tiles of one batch: more are counted.
const MOST_TILES: usize = 2_000;

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
            if let Some((progress, said)) = steps::pre_commands(&rollout.pre_commands) {
                <p class="step" data-progress={progress.word()}>
                    { shape(progress.tone()) }<span class="name">{ "Pre-commands" }</span><span class="dim">{ said }</span>
                </p>
            }
            <ol class="batches">{ for steps::batches(rollout).iter().map(|batch| drawn(rollout, batch)) }</ol>
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
    // Until the planner has taken it up and says so.
    let aborted = summary.aborted_by.as_ref().filter(|_| summary.reason.is_none());
    let aborted = aborted.map(|by| html! { <p>{ by }{ " aborted it." }</p> });
    let reason = summary.reason.as_ref().map(|reason| html! { <p>{ words::sentence(reason) }</p> });
    let waiting = summary.waiting.iter().map(|why| {
        html! { <p class="waiting">{ "Waiting: " }{ words::full_stop(why) }</p> }
    });
    html! { <>{ reason }{ aborted }{ for waiting }</> }
}

fn drawn(rollout: &Rollout, batch: &Batch) -> Html {
    let most = if batch.is_at_rest() { NAMED_AT_REST } else { NAMED };
    let content = match batch.nodes.len() > most {
        true => tiles(rollout, batch),
        false => html! { <ul class="steps">{ for batch.nodes.iter().map(|node| named(rollout, node)) }</ul> },
    };
    html! {
        <li data-batch={batch.kind.word()}>
            <p class="head"><span class="name">{ &batch.title }</span><span class="dim">{ batch.tally() }</span></p>
            { content }
        </li>
    }
}

fn named(rollout: &Rollout, step: &NodeStep) -> Html {
    html! {
        <li data-stage={step.stage.word()} data-node={step.node.to_string()}>
            <span title={step.stage.words()}>{ shape(step.stage.tone()) }</span>
            <a class="name" href={Route::node(&step.node).path()}>{ step.node.to_string() }</a>
            <span class="slots">
                { for step.slots.iter().map(|slot| html! {
                    <a class="slot" data-tone={slot.progress.tone().word()} href={replica(rollout, step, slot)} title={said(step, slot)}>
                        { shape(slot.progress.tone()) }{ slot.slot.to_string() }
                    </a>
                }) }
            </span>
            if let Some(because) = &step.because { <span class="why">{ words::sentence(because) }</span> }
        </li>
    }
}

/// Of many nodes: one square for each replica, and none of them named but on its square.
fn tiles(rollout: &Rollout, batch: &Batch) -> Html {
    let all = batch.nodes.iter().flat_map(|node| node.slots.iter().map(move |slot| (node, slot)));
    let count = all.clone().count();
    html! {
        <>
            <div class="squares">
                { for all.take(MOST_TILES).map(|(node, slot)| html! {
                    <a href={replica(rollout, node, slot)} title={said(node, slot)} tabindex="-1" data-tone={slot.progress.tone().word()} />
                }) }
            </div>
            if count > MOST_TILES { <p class="dim">{ format!("and {} more replicas", count - MOST_TILES) }</p> }
        </>
    }
}

fn said(node: &NodeStep, slot: &SlotStep) -> String {
    let version = slot.version.as_ref().map(|it| format!(" · {it}")).unwrap_or_default();
    format!(
        "slot {} on {}: {}, {}{version}",
        slot.slot,
        node.node,
        slot.progress.word(),
        words::state(slot.state)
    )
}

fn replica(rollout: &Rollout, node: &NodeStep, slot: &SlotStep) -> String {
    let application = Route::application(&rollout.summary.application).path();
    format!("{application}?replica={}/{}", node.node, slot.slot)
}
