//! A hundred and more strokes of SIGKILL, SIGTERM and SIGSTOP at agent, keepers and replicas, while versions are deployed, one
//! of which never becomes ready: nothing runs twice, nothing is left over, and in the end everything is as it should be.
//!
//! The seed gives the strokes (`tests::strokes`); what they meet depends on the machine. One that finds nobody does not count.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use proto::apps::Application;
use proto::state::{RolloutPhase, SlotState};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::{Bucket, tarball};
use tests::replicas::{Lookout, OnHost, Place};
use tests::strokes::{Blow, Stroke, Strokes, Target, Then};
use tests::wait::{Seen, eventually};
use tokio::time::{Instant, sleep};
use xtask::fixtures::Sample;

const HITS: u32 = 100;

/// Where nobody asks for another by `SEED=…`, be it any (`SEED=random`): what a change breaks is then not a matter of luck.
const SEED: u64 = 1;

/// Each with the slots that it has at rest, and while it is deployed.
const APPLICATIONS: [(Sample, u16, u16); 2] = [(Sample::Erlang, 2, 3), (Sample::Gleam, 1, 1)];

/// What is published once so many strokes have hit. The one that is slow is not ready before it is given up.
const VERSIONS: [(u32, &str); 4] = [(0, "0.1.0"), (5, "0.2.0"), (35, SLOW), (65, "0.3.0")];
const SLOW: &str = "0.2.1-slow";
/// Once all is quiet.
const LAST: &str = "0.4.0";

/// A replica whose keeper was killed has another one by then, also with an agent that is killed in between.
const WITHOUT_A_KEEPER: Duration = Duration::from_mins(1);

/// For all to come to rest after the last stroke: a rollout that is given up, a revert, pauses of replicas that were killed.
const QUIET: Duration = Duration::from_mins(3);

const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// One that stands still, until when, and what becomes of it then.
struct Standing {
    process: OwnedFd,
    until: Instant,
    then: Then,
}

struct Chaos {
    seed: u64,
    agent: Agent,
    control_plane: ControlPlane,
    bucket: Bucket,
    lookout: Lookout,
    strokes: Strokes,
    next: Stroke,
    last_at: Instant,
    standing: Vec<Standing>,
    /// Since when a machine has had no keeper.
    bare: BTreeMap<Place, Instant>,
    hits: u32,
    /// Strokes that may have ended a replica, by application and slot.
    deadly: BTreeMap<(String, u16), u32>,
    begun: Instant,
    log: Vec<String>,
}

impl Chaos {
    async fn begin(seed: u64) -> Self {
        let bucket = Bucket::new();
        for (sample, ..) in APPLICATIONS {
            // Built before anything is awaited of them.
            for version in VERSIONS.iter().map(|(_, version)| *version).chain([LAST]) {
                tarball(sample, version).await;
            }
            bucket.publish(sample, VERSIONS[0].1).await;
        }
        let applications: String = APPLICATIONS.iter().map(|it| application(*it)).collect();
        let control_plane = ControlPlane::start(&bucket, &applications).await;
        let agent = Agent::join(&control_plane, "first").await;
        for (sample, ..) in APPLICATIONS {
            control_plane.settles_on(sample.name(), VERSIONS[0].1).await;
        }
        let lookout = Lookout::over(agent.folder());
        let mut strokes = Strokes::of(seed, targets());
        let next = strokes.next().unwrap();
        let begun = Instant::now();
        Self {
            seed,
            agent,
            control_plane,
            bucket,
            lookout,
            strokes,
            next,
            last_at: begun,
            standing: Vec::new(),
            bare: BTreeMap::new(),
            hits: 0,
            deadly: BTreeMap::new(),
            begun,
            log: Vec::new(),
        }
    }

    fn note(&mut self, text: String) {
        self.log.push(format!("{:>6} {text}", self.begun.elapsed().as_millis()));
    }

    fn strike_when_due(&mut self) {
        if self.last_at.elapsed() < self.next.after {
            return;
        }
        self.last_at = Instant::now();
        let following = self.strokes.next().unwrap();
        let Stroke { target, blow, .. } = std::mem::replace(&mut self.next, following);
        let Some(process) = self.pid_of(&target).and_then(open) else {
            self.note(format!("{target}: nobody there"));
            return;
        };
        // It may end in this very moment.
        if pidfd_send_signal(&process, blow.signal()).is_err() {
            return;
        }
        self.hits += 1;
        self.note(format!("{target}: {blow:?}"));
        let may_end = match blow {
            Blow::Kill | Blow::Terminate => true,
            Blow::Stop { lasts, then } => {
                self.standing.push(Standing { process, until: Instant::now() + lasts, then });
                then == Then::Kill
            }
        };
        if let (Target::Replica(app, slot), true) = (target, may_end) {
            *self.deadly.entry((app, slot)).or_default() += 1;
        }
    }

    fn pid_of(&self, target: &Target) -> Option<u32> {
        let agent = self.agent.pid();
        let of = |all: BTreeMap<Place, Vec<u32>>, app: &str, slot: u16| {
            let here =
                |place: &Place| place.app == app && place.slot.number() == slot && !place.is_pre_command;
            all.into_iter().find(|(place, _)| here(place)).and_then(|(_, pids)| pids.first().copied())
        };
        match target {
            Target::Agent => agent,
            Target::Keeper(app, slot) => of(OnHost::of(self.agent.folder(), agent).keepers, app, *slot),
            Target::Replica(app, slot) => of(OnHost::of(self.agent.folder(), agent).machines, app, *slot),
        }
    }

    fn let_go_on(&mut self, all: bool) {
        for standing in std::mem::take(&mut self.standing) {
            if all || standing.until <= Instant::now() {
                let signal = if standing.then == Then::Kill { Signal::KILL } else { Signal::CONT };
                // It may have been killed meanwhile.
                let _ = pidfd_send_signal(&standing.process, signal);
            } else {
                self.standing.push(standing);
            }
        }
    }

    /// As systemd does.
    fn look_after_agent(&mut self) {
        let Some(status) = self.agent.ended() else { return };
        let is_ours = status.signal() == Some(9) || status.success();
        // SIGTERM before it listens for it ends it like any program.
        assert!(is_ours || status.signal() == Some(15), "{status}: {}", self.agent.output());
        self.agent.resume();
    }

    fn every_machine_is_kept(&mut self) {
        let found = OnHost::of(self.agent.folder(), self.agent.pid());
        let is_bare = |place: &&Place| !place.is_pre_command && !found.keepers.contains_key(place);
        let bare: Vec<_> = found.machines.keys().filter(is_bare).cloned().collect();
        self.bare.retain(|place, _| bare.contains(place));
        for place in bare {
            let since = *self.bare.entry(place.clone()).or_insert_with(Instant::now);
            assert!(since.elapsed() < WITHOUT_A_KEEPER, "{place:?} has no keeper: {found:#?}");
        }
    }

    async fn publish(&mut self, version: &str) {
        self.note(format!("{version} is published"));
        for (sample, ..) in APPLICATIONS {
            self.bucket.publish(sample, version).await;
        }
    }

    async fn rage(&mut self) {
        let mut versions = VERSIONS[1..].iter();
        let mut next = versions.next();
        while self.hits < HITS || next.is_some() {
            if let Some((hits, version)) = next
                && self.hits >= *hits
            {
                self.publish(version).await;
                next = versions.next();
            }
            self.strike_when_due();
            self.let_go_on(false);
            self.look_after_agent();
            self.every_machine_is_kept();
            sleep(BETWEEN_LOOKS).await;
        }
        self.let_go_on(true);
        self.note("all is quiet".to_owned());
    }

    /// Until every slot of every application is stable, with the release that is in force.
    async fn comes_to_rest(&mut self, what: &str, is_so: impl Fn(&Application) -> bool) {
        let since = Instant::now();
        for (sample, replicas, _) in APPLICATIONS {
            loop {
                self.look_after_agent();
                self.every_machine_is_kept();
                let application = self.control_plane.application(sample.name());
                match application {
                    Ok(it) if rests(&it, replicas) && is_so(&it) => break,
                    last => assert!(since.elapsed() < QUIET, "waited for {what}; last seen: {last:#?}"),
                }
                sleep(BETWEEN_LOOKS).await;
            }
        }
        self.note(what.to_owned());
    }

    /// What each replica went through was counted, and nothing else.
    fn counts_are_plausible(&self) {
        let mut counted = 0;
        for (sample, ..) in APPLICATIONS {
            let application = self.control_plane.application(sample.name()).unwrap();
            for slot in &application.slots {
                let place = (sample.name().to_owned(), slot.slot.number());
                let deadly = self.deadly.get(&place).copied().unwrap_or_default();
                assert!(slot.crash_restarts <= deadly, "{place:?} was hit {deadly} times: {slot:#?}");
                assert_eq!(slot.forced_restarts, 0, "{slot:#?}");
                counted += slot.crash_restarts;
            }
        }
        assert!(counted > 0, "of {:?} none was counted", self.deadly);
    }
}

impl Drop for Chaos {
    #[expect(clippy::print_stdout, reason = "what a failed run was, for a person")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let output = self.agent.output();
            let from = output.len().saturating_sub(20_000);
            println!("{}\nthe agent said:\n{}", self.log.join("\n"), output.get(from..).unwrap_or(&output));
            println!("SEED={} repeats the strokes", self.seed);
        }
    }
}

fn open(pid: u32) -> Option<OwnedFd> {
    pidfd_open(i32::try_from(pid).ok().and_then(Pid::from_raw)?, PidfdFlags::empty()).ok()
}

fn application((sample, replicas, slots): (Sample, u16, u16)) -> String {
    let (language, port) = (sample.language(), ports::free(slots));
    let strategy = if slots > replicas { "start_first" } else { "stop_first" };
    format!(
        "  - name: {sample}\n    language: {language}\n    replicas: {replicas}\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy_schedule_interval_ms: 200\n    \
         deploy_rollback_timeout_ms: 30000\n    env: [{{ key: SAMPLE_AFTER_MS, value: \"3600000\" }}]\n    \
         restart: {{ backoff_min_ms: 100, backoff_max_ms: 1000, reset_after_ms: 1000 }}\n    \
         deploy: {{ strategy: {strategy}, stable_after_ms: 500, stop_grace_ms: 3000, watch_ms: 0 }}\n"
    )
}

fn targets() -> Vec<Target> {
    let slots = APPLICATIONS.iter().flat_map(|(sample, _, slots)| {
        (1..=*slots).flat_map(|slot| {
            let app = || sample.name().to_owned();
            [Target::Keeper(app(), slot), Target::Replica(app(), slot)]
        })
    });
    [Target::Agent, Target::Agent, Target::Agent].into_iter().chain(slots).collect()
}

fn rests(application: &Application, replicas: u16) -> bool {
    let in_force = &application.summary.in_force;
    application.slots.len() == usize::from(replicas)
        && application.slots.iter().all(|it| it.state == SlotState::Stable && it.running == *in_force)
        && application.current_rollout.as_ref().is_none_or(|it| it.summary.phase == RolloutPhase::Watching)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_random_strokes_during_deployments_double_nothing_orphan_nothing_and_pass() {
    #[expect(clippy::disallowed_methods, reason = "how a person repeats a run")]
    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse().unwrap_or_else(|_| rand::random()),
        Err(_) => SEED,
    };
    println!("SEED={seed}");
    let mut chaos = Chaos::begin(seed).await;
    chaos.rage().await;
    chaos
        .comes_to_rest("rest", |it| {
            it.summary.in_force.as_ref().is_some_and(|key| key.version.as_str() != SLOW)
        })
        .await;
    chaos.publish(LAST).await;
    let is_last =
        |it: &Application| it.summary.in_force.as_ref().is_some_and(|key| key.version.as_str() == LAST);
    chaos.comes_to_rest("the last version", is_last).await;
    let folder = chaos.agent.folder().to_owned();
    let wanted = || {
        APPLICATIONS
            .iter()
            .flat_map(|(sample, replicas, _)| (1..=*replicas).map(|slot| (sample.name(), slot)))
    };
    eventually("nobody but the replicas and their keepers", || async {
        let found = OnHost::of(&folder, chaos.agent.pid());
        if found.holds_one_each(wanted()) { Seen::Done(()) } else { Seen::NotYet(format!("{found:#?}")) }
    })
    .await;
    chaos.counts_are_plausible();
    let seen = std::mem::replace(&mut chaos.lookout, Lookout::over(&folder)).seen();
    assert_eq!(seen, None);
    println!("{} hits in {} s", chaos.hits, chaos.begun.elapsed().as_secs());
}
