//! Three hosts of their own and one control plane, with a network between them: the cable of one host is pulled in the middle
//! of what is done there. It serves on, the others go on without it, and it is where it ought to be once it is back.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use proto::apps::Application;
use proto::events::Event;
use proto::nodes::NodeSummary;
use proto::releases::Ghost;
use proto::replicas::Replica;
use proto::rollouts::RolloutSummary;
use proto::state::{Liveness, RolloutPhase, SlotState};
use tests::hosts::{Kind, Network};
use tests::on_hosts_of_both_kinds;
use tests::ports;
use tests::programs::{Agent, ControlPlane, Setup};
use tests::release::Bucket;
use tests::replicas::Lookout;
use tests::wait::{Seen, eventually, within};
use xtask::fixtures::Sample;

const APP: &str = "erlang_demo";
const NAMES: [&str; 3] = ["web-1", "web-2", "web-3"];
const BAD: &str = "0.3.0-sick";
/// For a virtual machine to boot on a busy machine and be stable; shorter than anybody waits.
const GOES_BACK: &str = "deploy_rollback_timeout_ms: 18000";
/// That, the way back, and patience.
const ALONE: Duration = Duration::from_mins(3);
/// Between two looks at those who are to serve all the while.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(150);

/// Each start of a release in a slot leaves a line there.
const COUNTS_STARTS: &str = ", { key: SAMPLE_BEHAVIOUR, value: priv }";

/// Processes by host and slot.
type Pids = BTreeMap<(String, u16), Option<u32>>;

struct Fleet {
    network: Network,
    agents: Vec<Agent>,
    control_plane: ControlPlane,
    bucket: Bucket,
    /// Of slot 1, on each host.
    port: u16,
}

impl Fleet {
    /// `settings`: more of the application's. `env`: more of that list. `deploy`: more of that map.
    async fn at_rest(kind: Kind, settings: &str, env: &str, deploy: &str) -> Self {
        let mut network = Network::new(kind, 3);
        let bucket = Bucket::new();
        let port = if network.host(0).has_all_ports() { 4_000 } else { ports::free(5) };
        bucket.publish(Sample::Erlang, "0.1.0").await;
        let applications = format!(
            "  - name: {APP}\n    language: erlang\n    {settings}\n    \
             replica_ports: [{{ key: PORT, base: {port} }}]\n    \
             env: [{}{env}]\n    \
             ready: {}\n    \
             deploy_schedule_interval_ms: 100\n    \
             deploy: {{ {deploy}, stop_grace_ms: 5000, drain_ms: 0 }}\n",
            network.address_of_replicas(),
            network.health_check(),
        );
        let setup = Setup { host: Some(network.control_plane()), ..Setup::default() };
        let control_plane = ControlPlane::start_with(&bucket, &applications, setup).await;
        let agents = network.join(&control_plane, &NAMES).await;
        for name in NAMES {
            liveness(&control_plane, name, Liveness::Up).await;
        }
        Self { network, agents, control_plane, bucket, port }
    }

    async fn plug_cable(&self, host: usize) {
        self.network.plug_cable(host);
        liveness(&self.control_plane, NAMES[host], Liveness::Up).await;
    }

    /// What a slot of a host answers to another host, or to itself.
    async fn answer(&self, from: usize, host: usize, slot: u16, path: &str) -> Result<String, String> {
        let address = self.network.host(host).address();
        let url = format!("http://{address}:{}/{path}", self.port + slot - 1);
        self.network.host(from).get(&url).await.map(|text| text.trim().to_owned())
    }

    /// As the other hosts see it.
    async fn serves_since_one_start(&self, host: usize, slots: RangeInclusive<u16>, version: &str) {
        for slot in slots {
            let found = self.answer((host + 1) % 3, host, slot, "version").await;
            assert_eq!(found.as_deref(), Ok(version), "slot {slot} on {}", NAMES[host]);
            let starts = self.answer((host + 2) % 3, host, slot, "priv").await.unwrap();
            assert_eq!(starts.split_whitespace().count(), 1, "slot {slot} on {}: {starts}", NAMES[host]);
        }
    }

    /// Does something, while so many of these slots answer to their own host all the time.
    async fn while_serving<T>(
        &self,
        host: usize,
        slots: &[u16],
        at_least: usize,
        done: impl Future<Output = T>,
    ) -> T {
        let rounds = async {
            loop {
                let answers = slots.iter().map(|slot| self.answer(host, host, *slot, "version"));
                let answers = futures_util::future::join_all(answers).await;
                let serving = answers.iter().filter(|it| it.is_ok()).count();
                assert!(serving >= at_least, "{answers:?}\n{}", self.agents[host].output());
                tokio::time::sleep(BETWEEN_ROUNDS).await;
            }
        };
        tokio::select! {
            biased; // what is done ends it
            done = done => done,
            () = rounds => unreachable!("rounds do not end"),
        }
    }

    fn rollouts(&self) -> Vec<(String, RolloutPhase)> {
        let listed = self.control_plane.ask::<Vec<RolloutSummary>>(&["rollout", "list", "--app", APP]);
        listed.unwrap().into_iter().map(|it| (it.release.version.to_string(), it.phase)).collect()
    }

    fn events(&self, kind: &str) -> Vec<String> {
        let events: Vec<Event> = self.control_plane.ask(&["event", "list"]).unwrap();
        let of_kind = events.into_iter().filter(|it| it.kind == kind);
        of_kind
            .map(|it| format!("{}: {}", it.node.map_or_else(String::new, |it| it.to_string()), it.text))
            .collect()
    }
}

async fn liveness(control_plane: &ControlPlane, name: &str, wanted: Liveness) {
    eventually(&format!("{name} {wanted:?}"), || async {
        let nodes: Vec<NodeSummary> = control_plane.ask(&["node", "list"]).unwrap_or_default();
        match nodes.iter().find(|it| it.name.as_str() == name) {
            Some(node) if node.liveness == wanted => Seen::Done(()),
            _ => Seen::NotYet(format!("{nodes:#?}")),
        }
    })
    .await;
}

fn slots(application: &Application, host: usize) -> impl Iterator<Item = &Replica> {
    application.slots.iter().filter(move |it| it.node.as_str() == NAMES[host])
}

fn runs(slot: &Replica, version: &str) -> bool {
    slot.running.as_ref().is_some_and(|it| it.version.as_str() == version)
}

/// Slots of a host on which this version is stable.
fn stable_on(application: &Application, host: usize, version: &str) -> Vec<u16> {
    let on_it = |it: &&Replica| it.state == SlotState::Stable && runs(it, version);
    slots(application, host).filter(on_it).map(|it| it.slot.number()).collect()
}

/// Without slots that are borrowed for a move.
fn pids(application: &Application, hosts: &[usize]) -> Pids {
    let of_host = |host: &usize| {
        slots(application, *host)
            .filter(|it| it.slot.number() <= 2)
            .map(|it| ((it.node.to_string(), it.slot.number()), it.pid))
    };
    hosts.iter().flat_map(of_host).collect()
}

fn waits_for_the_lost(application: &Application, host: usize) -> bool {
    let sentence = format!("{} is lost; it catches up when it returns", NAMES[host]);
    application.current_rollout.as_ref().is_some_and(|it| it.summary.waiting.contains(&sentence))
}

on_hosts_of_both_kinds!(
    a_host_that_is_cut_off_in_the_middle_of_its_move_serves_on_and_catches_up_when_it_is_back,
    a_host_that_is_cut_off_with_a_bad_release_goes_back_by_itself_and_so_does_the_whole_fleet,
    what_a_host_of_a_spread_held_is_taken_over_while_it_is_lost_and_given_back_when_it_returns,
);

async fn a_host_that_is_cut_off_in_the_middle_of_its_move_serves_on_and_catches_up_when_it_is_back(
    kind: Kind,
) {
    let deploy = "strategy: start_first, batch: 1, stable_after_ms: 700, watch_ms: 8000";
    let fleet = Fleet::at_rest(kind, "replicas: 2", COUNTS_STARTS, deploy).await;
    let control_plane = &fleet.control_plane;
    control_plane.settles_on(APP, "0.1.0").await;
    let lookout = Lookout::over(fleet.agents[1].folder());

    fleet.bucket.publish(Sample::Erlang, "0.2.0").await;
    let spare_serves = |it: &Application| stable_on(it, 1, "0.2.0") == [3];
    control_plane.application_when("the second host in the middle of its move", APP, spare_serves).await;
    fleet.network.pull_cable(1);
    let without = async {
        liveness(control_plane, NAMES[1], Liveness::Lost).await;
        let waits = |it: &Application| waits_for_the_lost(it, 1);
        control_plane.application_when("the second host waited for", APP, waits).await;
        let goes_on = |it: &Application| stable_on(it, 2, "0.2.0") == [1, 2];
        control_plane.application_when("the third host moved", APP, goes_on).await
    };
    let without = fleet.while_serving(1, &[1, 2, 3], 2, without).await;
    assert_eq!(stable_on(&without, 0, "0.2.0"), [1, 2]);
    // Nobody told it of slot 2.
    assert_eq!(fleet.answer(1, 1, 2, "version").await.as_deref(), Ok("0.1.0"));
    if kind == Kind::Namespaces {
        // A link is only between agent and control plane.
        fleet.answer(2, 1, 2, "version").await.expect_err("no other host reaches it");
    }

    fleet.while_serving(1, &[1, 2, 3], 2, fleet.plug_cable(1)).await;
    control_plane.settles_on(APP, "0.2.0").await;
    let whole =
        |it: &Application| it.slots.len() == 6 && (0..3).all(|host| stable_on(it, host, "0.2.0") == [1, 2]);
    let after = control_plane.application_when("two replicas on each host", APP, whole).await;
    assert!(after.slots.iter().all(|it| it.crash_restarts == 0), "{after:#?}\n{}", fleet.agents[1].output());
    assert_eq!(pids(&after, &[0, 2]), pids(&without, &[0, 2]), "those that were there are left alone");
    for host in [0, 1, 2] {
        fleet.serves_since_one_start(host, 1..=2, "0.2.0").await;
    }
    assert_eq!(lookout.seen(), None);
    let of = |kind| fleet.events(kind).into_iter().filter(|it| it.starts_with(NAMES[1])).count();
    assert_eq!((of("node_lost"), of("node_back")), (1, 1), "{:?}", fleet.events("node_lost"));

    let over = |it: &Application| it.current_rollout.is_none();
    control_plane.application_when("the end of its watch", APP, over).await;
    let rollouts = fleet.rollouts();
    assert_eq!(rollouts.first(), Some(&("0.2.0".to_owned(), RolloutPhase::Done)), "{rollouts:?}");
    assert_eq!(rollouts.len(), 2, "{rollouts:?}");
}

async fn a_host_that_is_cut_off_with_a_bad_release_goes_back_by_itself_and_so_does_the_whole_fleet(
    kind: Kind,
) {
    let deploy = "strategy: stop_first, batch: 1, stable_after_ms: 1000";
    let fleet = Fleet::at_rest(kind, &format!("replicas: 2\n    {GOES_BACK}"), "", deploy).await;
    let control_plane = &fleet.control_plane;
    let before = control_plane.settles_on(APP, "0.1.0").await;

    fleet.bucket.publish(Sample::Erlang, BAD).await;
    let is_there = |it: &Application| slots(it, 0).any(|slot| slot.pid.is_some() && runs(slot, BAD));
    control_plane.application_when("the bad release in the place of the good one", APP, is_there).await;
    fleet.network.pull_cable(0);
    let alone = async {
        liveness(control_plane, NAMES[0], Liveness::Lost).await;
        within(ALONE, "the good release in its place again", || async {
            match fleet.answer(0, 0, 1, "version").await {
                Ok(version) if version == "0.1.0" => Seen::Done(()),
                other => Seen::NotYet(format!("{other:?}\n{}", fleet.agents[0].output())),
            }
        })
        .await;
        let ghosted = |it: &Application| !it.ghosts.is_empty();
        control_plane.application_when("the same found on the second host", APP, ghosted).await;
    };
    fleet.while_serving(0, &[2], 1, alone).await;
    let went_back_to = fleet.answer(0, 0, 1, "status").await.unwrap();

    fleet.plug_cable(0).await;
    control_plane.settles_on(APP, "0.1.0").await;
    let whole = |it: &Application| (0..3).all(|host| stable_on(it, host, "0.1.0") == [1, 2]);
    let after = control_plane.application_when("the good release on each host", APP, whole).await;
    let pid = after.slots[0].pid.unwrap();
    assert!(went_back_to.lines().any(|line| line == format!("pid={pid}")), "{pid} is not of {went_back_to}");
    let untouched = |pids: Pids| -> Pids { pids.into_iter().filter(|((_, slot), _)| *slot == 2).collect() };
    assert_eq!(untouched(pids(&after, &[0, 1, 2])), untouched(pids(&before, &[0, 1, 2])));
    assert_eq!(pids(&after, &[2]), pids(&before, &[2]), "the third host never saw it");
    assert!(after.slots.iter().all(|it| it.crash_restarts == 0), "{after:#?}\n{}", fleet.agents[0].output());

    let ghosts: Vec<Ghost> = control_plane.ask(&["ghosted", "list", APP]).unwrap();
    assert!(matches!(&ghosts[..], [ghost] if ghost.key.version.as_str() == BAD), "{ghosts:#?}");
    let phases = fleet.rollouts();
    assert_eq!(phases.first(), Some(&(BAD.to_owned(), RolloutPhase::Reverted)), "{phases:?}");
    assert_eq!(phases.len(), 2, "{phases:?}");
    let told = fleet.events("fell_back");
    assert!(matches!(&told[..], [text] if text.starts_with("web-1: slot 1 goes back by itself")), "{told:?}");
}

async fn what_a_host_of_a_spread_held_is_taken_over_while_it_is_lost_and_given_back_when_it_returns(
    kind: Kind,
) {
    let deploy = "strategy: start_first, stable_after_ms: 500";
    let fleet = Fleet::at_rest(kind, "spread: 4", COUNTS_STARTS, deploy).await;
    let control_plane = &fleet.control_plane;
    // Which of them holds two is for the control plane to say: it is another host for each application.
    let held = |it: &Application| [0, 1, 2].map(|host| stable_on(it, host, "0.1.0").len());
    let even = |it: &Application| {
        let mut counts = held(it);
        counts.sort_unstable();
        it.slots.len() == 4 && counts == [1, 1, 2]
    };
    control_plane.settles_on(APP, "0.1.0").await;
    let before = control_plane.application_when("an even spread", APP, even).await;
    let at_first = held(&before);
    let most = at_first.iter().position(|count| *count == 2).unwrap();
    let others: Vec<usize> = (0..3).filter(|host| *host != most).collect();

    fleet.network.pull_cable(most);
    let without = async {
        liveness(control_plane, NAMES[most], Liveness::Lost).await;
        let taken_over = |it: &Application| others.iter().all(|host| stable_on(it, *host, "0.1.0") == [1, 2]);
        control_plane.application_when("two on each of the others", APP, taken_over).await
    };
    let without = fleet.while_serving(most, &[1, 2], 2, without).await;
    let firsts = |it: &Application| -> Pids {
        pids(it, &[0, 1, 2]).into_iter().filter(|((_, slot), _)| *slot == 1).collect()
    };

    fleet.while_serving(most, &[1, 2], 2, fleet.plug_cable(most)).await;
    // Two of the six go, on whichever two hosts.
    let after = control_plane.application_when("an even spread again", APP, even).await;
    assert_eq!(firsts(&after), firsts(&before), "the first of each host stays what it was");
    assert_eq!(pids(&without, &others).len(), 4);
    for (host, count) in held(&after).into_iter().enumerate() {
        let count = u16::try_from(count).unwrap();
        fleet.serves_since_one_start(host, 1..=count, "0.1.0").await;
        let given_back = fleet.answer((host + 1) % 3, host, count + 1, "version").await;
        given_back.expect_err("nobody is there any more");
    }
    assert_eq!(fleet.rollouts().len(), 1);
}
