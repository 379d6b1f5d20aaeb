//! A rollout by its batches: the planner's sentences on top, then pre-commands and the nodes with their replicas as tiles.

use proto::rollouts::Rollout;
use proto::state::{RolloutPhase, Tone};
use yew::{Callback, Html, Properties, component, html, use_state};

use super::state::{phase, shape};
use super::time::Elapsed;
use crate::format;
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
    let over = summary.phase.is_over();
    let (_, shown) = steps::fold(steps::batches(rollout));
    let title = words::step(summary.from.as_ref(), &summary.release);
    let title = match linked {
        true => html! { <a href={Route::rollout(summary.id).path()}>{ title }</a> },
        false => html! { title },
    };
    html! {
        <section class="stepper" aria-label="Rollout" data-rollout={summary.id.to_string()} data-phase={summary.phase.word()}>
            <header>
                { phase(summary.phase) }<strong>{ title }</strong>
                if over {
                    <span class="dim">{ ended(summary.phase) }</span>
                } else {
                    <span class="dim">{ words::progress(summary.progress) }{ " stable, for " }<Elapsed at={summary.phase_since} /></span>
                }
            </header>
            if !over { { progress_bar(rollout) } }
            <div class="sentences">{ sentences(rollout) }</div>
            if let Some((progress, said)) = steps::pre_commands(&rollout.pre_commands) {
                <p class="step" data-progress={progress.word()}>
                    { shape(progress.tone()) }<span class="name">{ "Pre-commands" }</span><span class="dim">{ said }</span>
                </p>
            }
            <ol class="batches"><Earlier rollout={rollout.clone()} />{ for shown.iter().map(|batch| drawn(rollout, batch)) }</ol>
        </section>
    }
}

/// Of when its nodes are shown.
fn ended(phase: RolloutPhase) -> &'static str {
    match phase {
        RolloutPhase::Reverted | RolloutPhase::Failed => "as it stood when it turned back",
        _ => "as it ended",
    }
}

/// One thin bar: what is stable of all.
pub fn progress_bar(rollout: &Rollout) -> Html {
    let summary = &rollout.summary;
    thin_bar(summary.progress.stable, summary.progress.total, summary.phase.tone())
}

pub fn thin_bar(part: u32, whole: u32, tone: Tone) -> Html {
    let percent = format::share(part.into(), whole.into());
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

#[derive(Properties, PartialEq)]
struct EarlierProps {
    rollout: Shared<Rollout>,
}

/// The batches that have moved a while ago: one line, until somebody wants to see them.
#[component]
fn Earlier(props: &EarlierProps) -> Html {
    let open = use_state(|| false);
    let (earlier, _) = steps::fold(steps::batches(&props.rollout));
    if earlier.is_empty() {
        return html! {};
    }
    let nodes = earlier.iter().map(|batch| batch.nodes.len() as u64).sum();
    let toggle = {
        let open = open.clone();
        Callback::from(move |_| open.set(!*open))
    };
    html! {
        <>
            <li class="earlier">
                <button aria-expanded={open.to_string()} onclick={toggle}>
                    { format!("{} earlier batches, {} moved", earlier.len(), format::count(nodes, "node", "nodes")) }
                </button>
            </li>
            if *open { { for earlier.iter().map(|batch| drawn(&props.rollout, batch)) } }
        </>
    }
}

fn named(rollout: &Rollout, step: &NodeStep) -> Html {
    html! {
        <li data-stage={step.stage.word()} data-node={step.node.to_string()}>
            <span title={stage(rollout, step)}>{ shape(step.stage.tone()) }</span>
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

fn stage(rollout: &Rollout, step: &NodeStep) -> &'static str {
    if rollout.summary.phase.is_over() { step.stage.in_the_end() } else { step.stage.words() }
}

/// Of many nodes: one square for each replica, or for each node where of its replicas nothing is known, and none of them named
/// but on its square.
fn tiles(rollout: &Rollout, batch: &Batch) -> Html {
    let count: usize = batch.nodes.iter().map(|node| node.slots.len().max(1)).sum();
    let square = |href: String, title: String, tone: Tone| html! { <a {href} {title} tabindex="-1" data-tone={tone.word()} /> };
    let of = |node: &NodeStep| -> Vec<Html> {
        if node.slots.is_empty() {
            let title = format!("{}: {}", node.node, stage(rollout, node));
            return vec![square(Route::node(&node.node).path(), title, node.stage.tone())];
        }
        let slots = node.slots.iter();
        slots
            .map(|slot| square(replica(rollout, node, slot), said(node, slot), slot.progress.tone()))
            .collect()
    };
    html! {
        <>
            <div class="squares">{ for batch.nodes.iter().flat_map(of).take(MOST_TILES) }</div>
            { for batch.nodes.iter().filter(|node| node.because.is_some()).map(|node| html! {
                <ul class="steps">{ named(rollout, node) }</ul>
            }) }
            if count > MOST_TILES { <p class="dim">{ format!("and {} more", count - MOST_TILES) }</p> }
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
