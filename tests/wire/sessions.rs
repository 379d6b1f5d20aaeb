//! What goes over a session, and how it comes back after whatever ended it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use control_plane::agents::Notice;
use control_plane::clock::Clock;
use control_plane::fleet::PreCommandsOutcome;
use node_agent::link::{Observed, Standing};
use proto::ids::Slot;
use proto::pb;
use proto::state::{Liveness, SlotState};

use crate::fleet::{Agent, ControlPlane, PATIENCE, app, enrol, until};
use crate::proxy::Proxy;
use tokio::time::Instant;

fn seen(plane: &ControlPlane) -> Option<(u64, SlotState)> {
    plane.agents.observed(&app()).values().next().map(|slot| (slot.generation, slot.state))
}

async fn agent_through(plane: &ControlPlane, proxy: &Proxy) -> Agent {
    let folder = tempfile::tempdir().unwrap();
    let identity = enrol(folder.path(), proxy.address, plane.good_token().await, "web-1").await.unwrap();
    Agent::run(folder, identity)
}

#[tokio::test]
async fn assignments_go_down_and_reports_come_up() {
    let mut plane = ControlPlane::start().await;
    plane.wishes.assign(1);
    let mut agent = plane.agent("web-1").await;
    assert_eq!(agent.next_assignment().await.generation, 1);
    agent.report(1, pb::SlotState::Starting);
    until("the report is seen", || seen(&plane) == Some((1, SlotState::Starting))).await;
    plane.wishes.assign(2);
    plane.agents.wake(agent.node);
    assert_eq!(agent.next_assignment().await.generation, 2);
    agent.report(2, pb::SlotState::Stable);
    until("the newer report is seen", || seen(&plane) == Some((2, SlotState::Stable))).await;

    let event = pb::AgentEvent { kind: "crash_restart".to_owned(), ..Default::default() };
    agent.events.send(event).await.unwrap();
    let told = async {
        loop {
            if let Some(Notice::Event(told)) = plane.notices.recv().await {
                return told.event.kind;
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, told).await.unwrap(), "crash_restart");
    until("the host is sampled", || plane.agents.host_sample(agent.node).is_some()).await;
}

#[tokio::test]
async fn an_agent_is_told_to_begin_anew_and_says_since_when_it_runs() {
    let plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    plane.up(agent.node).await;
    let (now, began) = (Clock::start().wall().0, plane.agents.agent_started(agent.node).unwrap().0);
    assert!((now - 60_000..=now).contains(&began), "{began} is not lately, at {now}");
    assert!(plane.agents.restart_agent(agent.node));
    tokio::time::timeout(PATIENCE, agent.begin_anew.notified()).await.unwrap();
    let node = agent.node;
    agent.stop().await;
    until("its session has ended", || !plane.agents.restart_agent(node)).await;
}

#[tokio::test]
async fn an_event_is_told_again_until_it_is_recorded_and_keeps_its_time() {
    let mut plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    plane.up(agent.node).await;
    let at = Clock::start().wall().0 - 3_600_000;
    for kind in ["first", "second"] {
        let event = pb::AgentEvent { kind: kind.to_owned(), at_unix_ms: at, ..Default::default() };
        agent.events.send(event).await.unwrap();
    }
    let first = plane.next_event().await;
    assert_eq!((first.event.kind.as_str(), first.event.sequence), ("first", 1));
    assert!(first.at.0.abs_diff(at) < 60_000, "{:?} instead of {at}", first.at);
    assert_eq!(plane.next_event().await.event.kind, "second");
    first.recorded.store(first.event.sequence, Ordering::Release);
    // Until the agent has heard of it.
    tokio::time::sleep(Duration::from_secs(3)).await;

    plane.kill().await;
    plane.start_again().await;
    let again = plane.next_event().await;
    assert_eq!((again.event.kind.as_str(), again.event.sequence), ("second", 2));
    again.recorded.store(2, Ordering::Release);
    let event = pb::AgentEvent { kind: "third".to_owned(), ..Default::default() };
    agent.events.send(event).await.unwrap();
    assert_eq!(plane.next_event().await.event.kind, "third");
}

#[tokio::test]
async fn an_assignment_that_nobody_announced_is_sent_all_the_same() {
    let plane = ControlPlane::start().await;
    plane.wishes.assign(1);
    let mut agent = plane.agent("web-1").await;
    assert_eq!(agent.next_assignment().await.generation, 1);
    plane.wishes.assign(2);
    assert_eq!(agent.next_assignment().await.generation, 2);
}

#[tokio::test]
async fn an_assignment_that_cannot_be_made_is_tried_again_once_a_second_however_often_it_was_asked_for() {
    let plane = ControlPlane::start().await;
    let mut agent = plane.agent("web-1").await;
    plane.up(agent.node).await;
    let asked = || plane.wishes.asked.load(Ordering::Relaxed);
    plane.wishes.failing.store(true, Ordering::Relaxed);
    for _ in 0..20 {
        let before = asked();
        plane.agents.wake(agent.node);
        until("it was tried", || asked() > before).await;
    }
    let before = asked();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    // Two or three retries, and the look that comes anyhow.
    assert!((1..=5).contains(&(asked() - before)), "{} tries in 2.5 s", asked() - before);
    plane.wishes.assign(1);
    plane.wishes.failing.store(false, Ordering::Relaxed);
    assert_eq!(agent.next_assignment().await.generation, 1);
}

#[tokio::test]
async fn a_slot_that_the_agent_holds_no_more_is_seen_empty() {
    let plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    agent.report(1, pb::SlotState::Stable);
    until("the report is seen", || seen(&plane) == Some((1, SlotState::Stable))).await;
    agent.observed.send_modify(|observed| observed.slots.clear());
    until("the slot is seen empty", || seen(&plane) == Some((1, SlotState::Empty))).await;
}

/// Else whoever waits for a slot that was withdrawn before it was ever told would wait until the agent connects anew.
#[tokio::test]
async fn an_agent_without_slots_says_what_it_has_stored_while_it_is_connected() {
    let plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    plane.up(agent.node).await;
    assert_eq!(plane.agents.stored(agent.node), 0);
    agent.observed.send_replace(Observed { generation: 4, slots: BTreeMap::new() });
    until("what is stored", || plane.agents.stored(agent.node) == 4).await;
}

#[tokio::test]
async fn after_the_control_plane_was_killed_the_agent_is_back_and_goes_on_from_its_generation() {
    let mut plane = ControlPlane::start().await;
    plane.wishes.assign(5);
    let mut agent = plane.agent("web-1").await;
    assert_eq!(agent.next_assignment().await.generation, 5);
    agent.report(5, pb::SlotState::Stable);
    plane.up(agent.node).await;
    plane.kill().await;
    plane.start_again().await;
    let back = Instant::now();
    plane.up(agent.node).await;
    assert!(back.elapsed() < Duration::from_secs(10), "{:?}", back.elapsed());
    until("all is known again", || seen(&plane) == Some((5, SlotState::Stable))).await;
    plane.wishes.assign(6);
    plane.agents.wake(agent.node);
    // Not five again: the agent said that it holds it.
    assert_eq!(agent.next_assignment().await.generation, 6);
}

#[tokio::test]
async fn the_largest_host_is_back_and_all_that_it_says_comes_with_it() {
    let mut plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    plane.kill().await;
    let tail = "x".repeat(4 << 10);
    let report = |slot: Slot| pb::SlotReport {
        app: app().to_string(),
        slot: u32::from(slot.number()),
        generation: 1,
        state: pb::SlotState::BackingOff.into(),
        last_exit: Some(pb::LastExit { log_tail: tail.clone(), ..Default::default() }),
        pre_commands: Some(pb::PreCommandsReport {
            finished: true,
            output_tail: tail.clone(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let slots = (1..=u32::from(Slot::MAX)).map(|number| Slot::new(number).unwrap());
    let slots = slots.map(|slot| ((app(), slot), report(slot))).collect();
    agent.observed.send_replace(Observed { generation: 1, slots });
    plane.start_again().await;
    until("all of it is seen", || {
        let seen = plane.agents.observed(&app());
        let whole = seen.values().filter(|slot| {
            slot.last_exit.as_ref().is_some_and(|exit| exit.log_tail == tail)
                && matches!(&slot.pre_commands.as_ref().unwrap().outcome,
                    PreCommandsOutcome::Failed { output, .. } if *output == tail)
        });
        whole.count() == usize::from(Slot::MAX)
    })
    .await;
}

#[tokio::test]
async fn a_control_plane_that_stops_says_so() {
    let mut plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    plane.up(agent.node).await;
    let mut standing = agent.standing.clone();
    let watcher = async {
        standing.wait_for(|it| matches!(it, Standing::Down(why) if why.contains("stopping"))).await.unwrap();
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(watcher, plane.stop()) }).await.unwrap();
}

#[tokio::test]
async fn a_cut_wire_is_dialled_again() {
    let plane = ControlPlane::start().await;
    let proxy = Proxy::to(plane.address).await;
    let mut agent = agent_through(&plane, &proxy).await;
    plane.up(agent.node).await;
    for turn in 1..=3 {
        until("it is connected", || *agent.standing.borrow() == Standing::Connected).await;
        proxy.cut();
        plane.wishes.assign(turn);
        assert_eq!(agent.next_assignment().await.generation, turn);
        agent.report(turn, pb::SlotState::Stable);
    }
}

#[tokio::test]
async fn a_node_that_falls_silent_is_lost_within_five_seconds_and_comes_back() {
    let plane = ControlPlane::start().await;
    let proxy = Proxy::to(plane.address).await;
    let agent = agent_through(&plane, &proxy).await;
    plane.up(agent.node).await;
    proxy.swallow(true);
    let silent = Instant::now();
    until("it is lost", || plane.agents.liveness(agent.node) == Liveness::Lost).await;
    assert!(silent.elapsed() < Duration::from_secs(5), "{:?}", silent.elapsed());
    proxy.swallow(false);
    plane.up(agent.node).await;
}

#[tokio::test]
async fn a_second_session_of_a_node_ends_the_first() {
    let plane = ControlPlane::start().await;
    let first = plane.agent("web-1").await;
    plane.up(first.node).await;
    let copy = tempfile::tempdir().unwrap();
    let mut second = Agent::run(copy, first.identity());
    first.down_because("another session of this node").await;
    let connected = second.standing.wait_for(|it| *it == Standing::Connected);
    tokio::time::timeout(PATIENCE, connected).await.unwrap().unwrap();
    first.stop().await;
}
