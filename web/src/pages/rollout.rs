//! One rollout: how it stands, why, step by step, and what happened.

use proto::events::Event;
use proto::ids::RolloutId;
use proto::live::Topic;
use proto::rollouts::{Rollout, RolloutPreCommands, RolloutSummary};
use proto::state::RolloutPhase;
use wasm_bindgen_futures::spawn_local;
use yew::{Callback, Html, Properties, component, html, use_state};

use super::confirm::ConfirmDialog;
use super::{View, listed, rows};
use crate::client::{ClientError, use_pages};
use crate::components::dialog::use_dialog;
use crate::components::event_list::EventList;
use crate::components::evidence;
use crate::components::notice::{Empty, shown};
use crate::components::stepper::Stepper;
use crate::components::time::Ago;
use crate::format;
use crate::live::{use_store, use_topic};
use crate::route::Route;
use crate::session::use_account;
use crate::shared::Shared;
use crate::words;

#[derive(Properties, PartialEq)]
pub struct Props {
    pub id: RolloutId,
}

#[component]
pub fn RolloutPage(props: &Props) -> Html {
    let id = props.id;
    use_topic(Topic::Rollout { id });
    let store = use_store();
    let look = store.rollout(id);
    let version = look.value().map(|it| (it.summary.phase, it.summary.progress.stable));
    let events = use_pages::<Event, _>(format!("/events?rollout={id}"), version);
    shown(&look, "rollout", |rollout| {
        let summary = &rollout.summary;
        let title =
            format!("{} {}", summary.application, words::step(summary.from.as_ref(), &summary.release));
        let crumbs = html! { <><a href={Route::Rollouts.path()}>{ "Rollouts" }</a><span class="slash">{ "/" }</span></> };
        html! {
            <View id="rollout" {title} {crumbs} actions={html! { <Steer rollout={rollout.clone()} /> }}>
                <p class="lead">{ words::rollout_sentence(summary) }</p>
                { facts(rollout) }
                <Stepper rollout={rollout.clone()} />
                { for rollout.ghost.iter().map(|ghost| evidence::of_ghost(ghost, failure_title(rollout), true)) }
                { printed(&rollout.pre_commands) }
                <section aria-label="Events of this rollout">
                    <header class="section-head"><h2>{ "Events" }</h2></header>
                    { listed(&events, "events", |items| match items.is_empty() {
                        true => html! { <Empty title="What happens in this rollout appears here." /> },
                        false => html! { <EventList events={rows(items)} /> },
                    }) }
                </section>
            </View>
        }
    })
}

#[derive(Properties, PartialEq)]
struct SteerProps {
    rollout: Shared<Rollout>,
}

/// What a person may do to it now.
#[component]
fn Steer(props: &SteerProps) -> Html {
    let rollout = &props.rollout;
    let RolloutSummary { id, application, release, phase, paused_by, aborted_by, .. } = &rollout.summary;
    let (promote, abort) = (use_dialog(), use_dialog());
    if !use_account().may_operate() || phase.is_over() || aborted_by.is_some() {
        return html! {};
    }
    let moves = phase.moves();
    let batch = rollout.batch.as_ref().filter(|batch| moves && batch.may_be_promoted);
    let (may_be_promoted, number) = (batch.is_some(), batch.map_or(0, |batch| batch.number));
    let what = format!("the rollout of {application} {}", release.version);
    html! {
        <>
            if moves { <HoldUp id={*id} paused={paused_by.is_some()} /> }
            if *phase != RolloutPhase::Reverting {
                <button id="abort" class="danger" onclick={abort.open.clone()}>{ "Abort…" }</button>
            }
            if may_be_promoted {
                <button id="promote" class="primary" onclick={promote.open.clone()}>{ "Promote…" }</button>
            }
            if promote.is_open {
                <ConfirmDialog id="promote" title={format!("Promote {what}")} verb="Promote" path={format!("/rollouts/{id}/promote?batch={number}")}
                    consequence={words::promote_sentence(rollout)} onclose={promote.close.clone()} />
            }
            if abort.is_open && *phase != RolloutPhase::Reverting {
                <ConfirmDialog id="abort" title={format!("Abort {what}")} verb="Abort" path={format!("/rollouts/{id}/abort")}
                    consequence={words::abort_sentence(&rollout.summary)} onclose={abort.close.clone()} />
            }
        </>
    }
}

#[derive(Properties, PartialEq)]
struct HoldUpProps {
    id: RolloutId,
    paused: bool,
}

/// The button that pauses a rollout that moves, or lets it go on.
#[component]
fn HoldUp(props: &HoldUpProps) -> Html {
    let HoldUpProps { id, paused } = *props;
    let account = use_account();
    let refused = use_state(|| None::<ClientError>);
    let (word, title, what) = match paused {
        true => ("Resume", "Tell the next slot the release again", "resume"),
        false => ("Pause", "Tell no further slot the release; what was told is judged as ever", "pause"),
    };
    let ask = {
        let (client, refused) = (account.client.clone(), refused.clone());
        Callback::from(move |_| {
            let (client, refused) = (client.clone(), refused.clone());
            spawn_local(async move {
                // What became of it, the page shows by itself.
                let path = format!("/rollouts/{id}/{what}");
                refused.set(client.ask("POST", &path, Some(&())).await.err());
            });
        })
    };
    html! {
        <>
            if let Some(error) = &*refused { <span class="refusal" role="alert">{ error.sentence() }</span> }
            <button id={what} {title} onclick={ask}>{ word }</button>
        </>
    }
}

fn printed(state: &RolloutPreCommands) -> Html {
    let own = !matches!(state, RolloutPreCommands::Passed { .. });
    let told = state.ran().iter().filter(|ran| !ran.output.is_empty());
    told.map(|ran| {
        let whose = if own { format!(" of slot {} on {}", ran.slot, ran.node) } else { String::new() };
        html! {
            <details class="last-lines" data-printed="pre-commands">
                <summary>{ "What the pre-commands" }{ whose }{ " printed, " }<Ago at={ran.at} /></summary><pre tabindex="0">{ &ran.output }</pre>
            </details>
        }
    })
    .collect()
}

/// Whose words they are.
fn failure_title(rollout: &Rollout) -> &'static str {
    match rollout.pre_commands {
        RolloutPreCommands::Failed { .. } => "What the pre-commands printed last",
        _ => "What the slot that failed left behind",
    }
}

fn facts(rollout: &Rollout) -> Html {
    let summary = &rollout.summary;
    let fact = |name: &'static str, value: Html| html! { <div><dt>{ name }</dt><dd>{ value }</dd></div> };
    html! {
        <dl class="facts">
            { fact("Application", html! { <a href={Route::application(&summary.application).path()}>{ summary.application.to_string() }</a> }) }
            { fact("By", html! { &summary.by }) }
            { fact("Started", html! { <Ago at={summary.started_at} /> }) }
            if let Some(end) = summary.finished_at { { fact("Took", html! { format::elapsed(summary.started_at, end) }) } }
            if let Some(strategy) = &rollout.strategy { { fact("How it moves", html! { strategy }) } }
            { fact("Release", html! { <code>{ summary.release.to_string() }</code> }) }
        </dl>
    }
}
