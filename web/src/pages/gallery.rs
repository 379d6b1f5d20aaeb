//! Every component in every state, with invented things (`/_components`, feature `gallery`): to be looked at whenever one of
//! them changes. Nothing here asks the control plane.

use proto::metrics::{HostHistory, VmHistory};
use proto::replicas::ReplicaTile;
use proto::rollouts::{RolloutBatch, RolloutNode, RolloutPreCommands, RolloutSlot};
use proto::state::{Liveness, NodeStage, RolloutPhase, Severity, SlotState, Tone};
use yew::{Callback, Html, component, html};

use super::View;
use super::node::charts::{Drawn, Wholes};
use super::replica_table::{Of, ReplicaTable};
use super::vm_charts::VmCharts;
use crate::clock::FrozenClock;
use crate::components::event_list::EventList;
use crate::components::fleet_map::{FleetMap, Legend};
use crate::components::form::Field;
use crate::components::icon::Icon;
use crate::components::meter::Meter;
use crate::components::notice::{Banner, Command, Empty, Failing, Loading};
use crate::components::state::{liveness, phase, severity, slot};
use crate::components::stepper::Stepper;
use crate::sample;
use crate::shared::Shared;

/// As many as the map and the table must bear.
const MANY: u32 = 15_000;

#[component]
pub fn GalleryPage() -> Html {
    html! {
        <FrozenClock>
            <View id="gallery" title="Components">
                <section><h2>{ "State" }</h2>
                    <p class="facts">{ for SlotState::ALL.iter().map(|it| slot(*it)) }</p>
                    <p class="facts">{ for RolloutPhase::ALL.iter().map(|it| phase(*it)) }</p>
                    <p class="facts">{ for Liveness::ALL.iter().map(|it| liveness(*it)) }{ for Severity::ALL.iter().map(|it| severity(*it)) }</p>
                </section>
                <section><h2>{ "Icon" }</h2><p class="facts">{ for Icon::ALL.iter().map(|it| it.view()) }</p></section>
                <section><h2>{ "Button" }</h2>
                    <p class="facts"><button>{ "Plain" }</button><button class="primary">{ "Primary" }</button><button class="danger">{ "Danger" }</button>
                        <button class="quiet">{ "Quiet" }</button><button disabled=true>{ "Disabled" }</button></p>
                </section>
                <section><h2>{ "Field" }</h2>{ fields() }</section>
                <section><h2>{ "Meter" }</h2>{ for [0.0, 0.4, 23.0, 89.9, 97.0].into_iter().map(|percent| html! { <Meter {percent} label="Example" /> }) }</section>
                <section><h2>{ "Chart" }</h2>{ charts() }</section>
                <section><h2>{ "Notices" }</h2>{ notices() }</section>
                <section><h2>{ "Stepper" }</h2>{ steppers() }</section>
                <section><h2>{ "Events" }</h2>{ events() }</section>
                <section><h2>{ "Fleet map" }</h2><Legend />{ maps() }</section>
                <section><h2>{ "Table, every state" }</h2><ReplicaTable of={Of::Application} slots={every_state()} open="node-1/shop/8" /></section>
                <section><h2>{ "Table, 15,000 rows" }</h2><ReplicaTable of={Of::Node} slots={many()} /></section>
            </View>
        </FrozenClock>
    }
}

fn fields() -> Html {
    let field = |label: &'static str,
                 error: Option<&'static str>,
                 hint: Option<&'static str>,
                 disabled: bool| {
        html! { <Field name="example" {label} value="value" oninput={Callback::noop()} {error} {hint} {disabled} /> }
    };
    html! {
        <>
            { field("Plain", None, None, false) }
            { field("With a hint", None, Some("how many may join with it"), false) }
            { field("Refused", Some("is a number from 1 to 10000"), None, false) }
            { field("Disabled", None, None, true) }
        </>
    }
}

fn charts() -> Html {
    let whole = |memory, limits| Wholes { memory, disk: 100 << 30, cpus: Some(4), limits };
    let limits = vec![("memory".to_owned(), 75, Some(90)), ("disk".to_owned(), 90, None)];
    let full = sample::host_history();
    let mut young = full.clone();
    young.points.drain(..young.points.len() - 20);
    young.points.iter_mut().for_each(|it| it.pressure = None);
    let mut large = full.clone();
    large.points.iter_mut().for_each(|it| {
        it.cores = (0..64).map(|core| it.cores[core % 4] / (1 + u8::from(core > 9))).collect();
    });
    let empty = HostHistory { points: Vec::new(), ..full.clone() };
    let vm = |history| html! { <VmCharts history={Shared::new(history)} /> };
    let drawn = |history, wholes| html! { <Drawn history={Shared::new(history)} {wholes} /> };
    html! {
        <>
            { drawn(full, whole(8 << 30, limits)) }
            <h2>{ "Just begun, pressure not told, nothing watched" }</h2>{ drawn(young, whole(16 << 30, Vec::new())) }
            <h2>{ "64 cores" }</h2>{ drawn(large, whole(8 << 30, Vec::new())) }
            <h2>{ "Nothing yet" }</h2>{ drawn(empty, Wholes::default()) }
            <h2>{ "A VM, its processes and its memory watched" }</h2>{ vm(sample::vm_history()) }
            <h2>{ "A VM that was never sampled" }</h2>{ vm(VmHistory { points: Vec::new(), ..sample::vm_history() }) }
        </>
    }
}

fn notices() -> Html {
    html! {
        <>
            { for Tone::ALL.iter().map(|tone| html! {
                <Banner tone={*tone} text={format!("A banner that is {tone}.")}><button>{ "The way out" }</button></Banner>
            }) }
            <Failing title="The control plane does not answer." detail="Failed to fetch." retry={Callback::noop()} />
            <Empty title="Each host appears here once its agent has joined."><Command text="deployex node token" /></Empty>
            <Loading />
        </>
    }
}

fn steppers() -> Html {
    use NodeStage::{Failed, Lost, Moved, Moving, ToCome};
    let one = |phase: RolloutPhase, batch: Option<RolloutBatch>, nodes: Vec<RolloutNode>| {
        let mut rollout = sample::rollout("shop", "2.0.0", "1.0.0");
        rollout.summary.phase = phase;
        rollout.pre_commands = RolloutPreCommands::Passed { ran: None };
        (rollout.batch, rollout.nodes) = (batch, nodes);
        html! { <Stepper rollout={Shared::new(rollout)} /> }
    };
    let canary =
        RolloutBatch { stable_since: Some(sample::NOW), may_be_promoted: true, ..sample::batch(1, true) };
    let four =
        || vec![node(1, Moved, false), node(2, Moving, true), node(3, Moving, true), node(4, ToCome, false)];
    // What is back has the old release, and what is not has the new one.
    let back = [(1, Moved, ToCome), (2, Moving, Moving), (3, ToCome, Moved)];
    let back = back.map(|(at, stage, slots)| RolloutNode { stage, ..node(at, slots, false) }).into();
    // Of so many: the first are moved, four are in the batch, and the rest is to come.
    let many = |all: u32| {
        let stage = |at: u32| match at {
            at if at * 2 < all => node(at, Moved, false),
            at if at * 2 < all + 6 => node(at, Moving, true),
            at if at * 2 < all + 8 => node(at, Moved, true),
            at if at + 1 == all => node(at, Failed, false),
            at if at == all => node(at, Lost, false),
            at => node(at, ToCome, false),
        };
        (1..=all).map(stage).collect::<Vec<_>>()
    };
    html! {
        <>
            { one(RolloutPhase::Pending, None, vec![]) }
            { one(RolloutPhase::Running, Some(sample::batch(1, false)), vec![node(1, Moving, true)]) }
            { one(RolloutPhase::Running, Some(canary), vec![node(1, Moved, true), node(2, ToCome, false), node(3, ToCome, false)]) }
            { one(RolloutPhase::Running, Some(sample::batch(2, false)), four()) }
            { one(RolloutPhase::Reverting, None, back) }
            { one(RolloutPhase::Watching, None, vec![node(1, Moved, false), node(2, Moved, false)]) }
            { one(RolloutPhase::Running, Some(sample::batch(11, false)), many(40)) }
            { one(RolloutPhase::Running, Some(sample::batch(40, false)), many(1_000)) }
            { one(RolloutPhase::Running, Some(sample::batch(40, false)), batched(80, 78, 2, false)) }
            { one(RolloutPhase::Done, None, batched(1, 1, 1, true)) }
            { one(RolloutPhase::Reverted, None, batched(7, 4, 2, true)) }
            { one(RolloutPhase::Done, None, batched(80, 80, 2, true)) }
            { one(RolloutPhase::Reverted, None, batched(1_000, 500, 100, true)) }
        </>
    }
}

/// So many nodes in batches of `size`, the first a canary; behind those that moved are a batch and nodes that are to come. One that
/// is over has no slots any more, and one of its nodes failed, where not all moved.
fn batched(all: u32, moved: u32, size: u32, over: bool) -> Vec<RolloutNode> {
    let of = |at: u32| {
        let number = at.div_ceil(size);
        let drawn = at <= moved + size;
        let stage = match at {
            at if at <= moved => NodeStage::Moved,
            at if over && at == moved + 1 => NodeStage::Failed,
            at if at <= moved + size => NodeStage::Moving,
            at if at == all => NodeStage::Lost,
            _ => NodeStage::ToCome,
        };
        let it = node(at, stage, !over && at > moved && drawn);
        let slots = if over { Vec::new() } else { it.slots };
        RolloutNode { batch: drawn.then_some(number), canary: drawn && number == 1, slots, ..it }
    };
    (1..=all).map(of).collect()
}

/// With three slots that are as far as their node.
fn node(number: u32, stage: NodeStage, in_batch: bool) -> RolloutNode {
    let slot = |at: u32| {
        let (state, version, told) = match (stage, at) {
            (NodeStage::Moved, _) | (NodeStage::Moving, 1) => (SlotState::Stable, "2.0.0", true),
            (NodeStage::Moving, 2) => (SlotState::Starting, "2.0.0", true),
            (NodeStage::Lost, _) => (SlotState::Unknown, "1.0.0", false),
            _ => (SlotState::Stable, "1.0.0", false),
        };
        let slot = sample::replica("shop", "node", at, state).slot;
        RolloutSlot { slot, state, running: Some(sample::key(version)), told }
    };
    let because = (stage == NodeStage::Failed).then(|| "slot 2 was not stable within 10 min".to_owned());
    let slots = (1..=3).map(slot).collect();
    let batch = in_batch.then_some(2);
    RolloutNode { in_batch, batch, because, ..sample::rollout_node(&format!("node-{number}"), stage, slots) }
}

fn events() -> Html {
    let events = Severity::ALL.iter().enumerate().map(|(at, severity)| {
        let mut event = sample::event(at as u128, "slot 2 of shop on node-1 crashed and was started again");
        event.severity = *severity;
        event.application = Some(sample::summary("shop").name);
        Shared::new(event)
    });
    html! { <EventList events={events.collect::<Vec<_>>()} /> }
}

fn maps() -> Html {
    let with = |name: &str, replicas: Vec<ReplicaTile>| {
        let mut summary = sample::summary(name);
        summary.replicas_wanted = u32::try_from(replicas.len()).unwrap_or(u32::MAX);
        summary.replicas = replicas;
        Shared::new(summary)
    };
    let states = SlotState::ALL.iter().zip(1..).map(|(state, number)| sample::tile("node-1", number, *state));
    let large = (0..MANY).map(|at| {
        let state = if at % 97 == 0 { SlotState::BackingOff } else { SlotState::Stable };
        sample::tile(&format!("node-{}", at / 50), at % 50 + 1, state)
    });
    html! {
        <>
            <FleetMap applications={vec![with("every-state", states.collect())]} />
            <FleetMap applications={vec![with("fifteen-thousand", large.collect())]} />
        </>
    }
}

fn every_state() -> Vec<Shared<proto::replicas::Replica>> {
    SlotState::ALL
        .iter()
        .zip(1..)
        .map(|(state, at)| Shared::new(sample::replica("shop", "node-1", at, *state)))
        .collect()
}

fn many() -> Vec<Shared<proto::replicas::Replica>> {
    (0..MANY)
        .map(|at| {
            Shared::new(sample::replica("shop", &format!("node-{}", at / 50), at % 50 + 1, SlotState::Stable))
        })
        .collect()
}
