//! What a slot was last told, in the form in which it is needed: the wish for the machine, the settings for the shell.

use std::path::Path;

use prost::Message;
use proto::agent::MAX_SLOTS;
use proto::ids::{AppName, Digest, ReleaseKey};
use proto::pb;
use proto::state::Language;

use super::{SlotId, launch, probe};
use crate::beam::thresholds::Watched;
use crate::cgroup::Limits;
use crate::gauge::Bounds;
use crate::releases;
use crate::replica::{Assignment, Fallback, Hot, Policy, PreCommands, Wanted};

/// One application's settings and one slot; the ledger reads no more than four times this.
const PART_MAX: usize = 1 << 20;

/// Why an assignment was not taken. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum AssignmentError {
    #[error("the assignment names {app} for slot {slot} and does not describe it")]
    Undescribed { app: String, slot: u32 },
    #[error("the assignment cannot be read")]
    Name(#[from] proto::ids::BadName),
    #[error("the assignment of {app} names a language that this agent does not know; update the agent")]
    Language { app: String },
    #[error("{what} of {app} holds {path:?}, which is not an absolute path")]
    Path { app: String, what: &'static str, path: String },
    #[error("the settings of {app} have {bytes} bytes; at most {PART_MAX} can be kept for a slot")]
    TooLarge { app: String, bytes: usize },
    #[error("the assignment names {slots} slots; an agent holds at most {MAX_SLOTS}")]
    TooMany { slots: usize },
}

/// One slot's part of an assignment: at most one application and one slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Assigned {
    generation: u64,
    application: Option<pb::Application>,
    slot: Option<pb::SlotAssignment>,
}

impl From<pb::Assignment> for Assigned {
    fn from(mut part: pb::Assignment) -> Self {
        Self { generation: part.generation, application: part.applications.pop(), slot: part.slots.pop() }
    }
}

impl Assigned {
    /// For the machine. `None` until anything was said.
    pub(super) fn assignment(&self) -> Option<Assignment> {
        if self.generation == 0 {
            return None;
        }
        let wanted = self.slot.as_ref().and_then(|slot| {
            let release = slot.release.as_ref()?;
            let count = u32::try_from(release.pre_commands.len()).unwrap_or(u32::MAX);
            let pre_commands = slot.pre_commands.as_ref();
            Some(Wanted {
                release: key(release.key.as_ref()?).ok()?,
                pre_commands: pre_commands.map(|it| PreCommands { run_id: it.run_id.clone(), count }),
                fallback: slot.fallback.as_ref().and_then(fallback).map(Box::new),
                hot: slot.hot.as_ref().and_then(hot).map(Box::new),
            })
        });
        let restart = self.slot.as_ref().map(|slot| slot.restart_id.clone()).filter(|id| !id.is_empty());
        Some(Assignment { generation: self.generation, wanted, policy: self.policy(), restart })
    }

    fn policy(&self) -> Policy {
        let app = self.application.clone().unwrap_or_default();
        let or = |value: u64, default: u64| if value == 0 { default } else { value };
        Policy {
            stable_after: app.stable_after_ms,
            stop_grace: or(app.stop_grace_ms, 10_000),
            backoff_min: or(app.backoff_min_ms, 1_000),
            backoff_max: or(app.backoff_max_ms, 300_000),
            reset_after: or(app.backoff_reset_after_ms, 60_000),
            pre_command_timeout: or(app.pre_commands_timeout_ms, 600_000),
            // Nobody else is told to send it no more requests.
            drain: if app.nginx.is_some() { app.drain_ms } else { 0 },
        }
    }

    /// Why what runs is to be started anew; `None`: somebody asked for it.
    pub(super) fn restart_because(&self) -> Option<String> {
        self.slot.as_ref().map(|slot| slot.restart_because.clone()).filter(|it| !it.is_empty())
    }

    /// Of what was told last; 0: nothing was.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// What runs is to be kept, whatever else is wanted.
    pub(super) fn is_to_be_hot(&self) -> bool {
        self.slot.as_ref().and_then(|it| it.hot.as_ref()).is_some_and(|it| it.required)
    }

    pub(super) fn application(&self) -> Option<pb::Application> {
        self.application.clone()
    }

    /// The slot was named, and is not withdrawn.
    pub(super) fn is_wanted(&self) -> bool {
        self.slot.is_some()
    }

    /// Whether its liveness is asked for at all.
    pub(super) fn is_asked_live(&self) -> bool {
        probe::is_asked_live(self.application.as_ref())
    }

    /// The release, or the one that the slot may go back to, as the store wants it; `None` where others are wanted by now.
    pub(super) fn release(&self, wanted: &ReleaseKey) -> Option<(releases::Wanted, pb::Application)> {
        let application = self.application.clone()?;
        let named = releases(self.slot.as_ref()?);
        let (release, key) = named.into_iter().find(|(_, key)| key == wanted)?;
        let language = language(application.language())?;
        let app: AppName = application.name.parse().ok()?;
        Some((releases::Wanted { app, language, key, size: release.size }, application))
    }

    /// The line of a pre-command of the wanted release.
    pub(super) fn pre_command(&self, wanted: &ReleaseKey, index: u32) -> Option<(String, pb::Application)> {
        let (_, application) = self.release(wanted)?;
        let release = self.slot.as_ref()?.release.as_ref()?;
        // None is run for a release that the slot goes back to.
        key(release.key.as_ref()?).ok().filter(|key| key == wanted)?;
        let line = release.pre_commands.get(usize::try_from(index).ok()?)?;
        Some((line.clone(), application))
    }
}

/// The releases that a slot may be given by its part of an assignment.
pub(super) fn releases(slot: &pb::SlotAssignment) -> Vec<(&pb::Release, ReleaseKey)> {
    let fallback = slot.fallback.as_ref().and_then(|it| it.release.as_ref());
    let named = slot.release.iter().chain(fallback);
    named.filter_map(|release| Some((release, key(release.key.as_ref()?).ok()?))).collect()
}

fn fallback(told: &pb::Fallback) -> Option<Fallback> {
    let release = key(told.release.as_ref()?.key.as_ref()?).ok()?;
    Some(Fallback { rollout: told.rollout_id.clone(), release, within: told.within_ms })
}

fn hot(told: &pb::HotUpgrade) -> Option<Hot> {
    let from = key(told.from.as_ref()?).ok()?;
    Some(Hot { attempt: told.attempt.clone(), from, required: told.required })
}

/// Where a replica of these settings listens.
pub(super) fn ports(app: Option<&pb::Application>, slot: u16) -> Vec<(String, u16)> {
    app.map(|it| launch::ports(it, slot)).unwrap_or_default()
}

/// What a replica of these settings may use.
pub(super) fn limits(app: Option<&pb::Application>) -> Limits {
    let said = app.and_then(|it| it.limits).unwrap_or_default();
    Limits {
        memory_max: Some(said.memory_max_bytes).filter(|it| *it != 0),
        cpu_percent: Some(said.cpu_max_percent).filter(|it| *it != 0),
        pids_max: Some(said.pids_max).filter(|it| *it != 0),
    }
}

/// What is watched of the virtual machine of a replica of these settings. What cannot be a share is kept within reason.
pub(super) fn watched(app: Option<&pb::Application>) -> Watched {
    let said = app.and_then(|it| it.monitoring).unwrap_or_default();
    let bounds = |it: pb::VmThreshold| Bounds {
        warning: it.warning_percent.clamp(1, 100),
        restart: Some(it.restart_percent.min(100)).filter(|it| *it > 0),
    };
    Watched {
        atom: said.atom.map(bounds),
        process: said.process.map(bounds),
        port: said.port.map(bounds),
        memory: said.memory.map(bounds),
        memory_max: limits(app).memory_max,
    }
}

/// To which of its siblings a replica of these settings is kept connected: to none where it is to be no node.
pub(super) fn cluster(app: Option<&pb::Application>) -> pb::Cluster {
    let is_node = |it: &&pb::Application| {
        it.distribution.as_ref().is_none_or(|it| it.mode() != pb::DistributionMode::Off)
    };
    app.filter(is_node).map_or(pb::Cluster::Off, pb::Application::cluster)
}

/// Which events of a replica of these settings are counted.
pub(super) fn telemetry(app: Option<&pb::Application>) -> Vec<String> {
    app.map(|it| it.telemetry_events.clone()).unwrap_or_default()
}

pub(super) fn language(language: pb::Language) -> Option<Language> {
    match language {
        pb::Language::Elixir => Some(Language::Elixir),
        pb::Language::Erlang => Some(Language::Erlang),
        pb::Language::Gleam => Some(Language::Gleam),
        pb::Language::Unspecified => None,
    }
}

pub(super) fn key(key: &pb::ReleaseKey) -> Result<ReleaseKey, proto::ids::BadName> {
    Ok(ReleaseKey { version: key.version.parse()?, sha256: Digest::try_from(key.sha256.as_ref())? })
}

/// Why an assignment is not taken, and the slot that it is about where that can be told.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) slot: Option<SlotId>,
    pub(super) why: AssignmentError,
}

/// One part per slot of the assignment, or why it cannot be taken.
pub(super) fn split(assignment: &pb::Assignment) -> Result<Vec<(SlotId, pb::Assignment)>, Refusal> {
    if assignment.slots.len() > MAX_SLOTS {
        let why = AssignmentError::TooMany { slots: assignment.slots.len() };
        return Err(Refusal { slot: None, why });
    }
    let mut parts = Vec::with_capacity(assignment.slots.len());
    for slot in &assignment.slots {
        let id = slot_id(slot).map_err(|why| Refusal { slot: None, why })?;
        match part(assignment, slot) {
            Ok(part) => parts.push((id, part)),
            Err(why) => return Err(Refusal { slot: Some(id), why }),
        }
    }
    Ok(parts)
}

fn slot_id(slot: &pb::SlotAssignment) -> Result<SlotId, AssignmentError> {
    Ok(SlotId { app: slot.app.parse()?, slot: proto::ids::Slot::new(slot.slot)? })
}

fn part(assignment: &pb::Assignment, slot: &pb::SlotAssignment) -> Result<pb::Assignment, AssignmentError> {
    let app = assignment.applications.iter().find(|it| it.name == slot.app);
    let app = app.ok_or_else(|| AssignmentError::Undescribed { app: slot.app.clone(), slot: slot.slot })?;
    if language(app.language()).is_none() {
        return Err(AssignmentError::Language { app: app.name.clone() });
    }
    let fallback = slot.fallback.as_ref().and_then(|it| it.release.as_ref());
    for release in slot.release.iter().chain(fallback).filter_map(|it| it.key.as_ref()) {
        key(release)?;
    }
    for from in slot.hot.iter().filter_map(|it| it.from.as_ref()) {
        key(from)?;
    }
    if !app.env_file.is_empty() && !Path::new(&app.env_file).is_absolute() {
        let path = app.env_file.clone();
        return Err(AssignmentError::Path { app: app.name.clone(), what: "env_file", path });
    }
    let part = pb::Assignment {
        generation: assignment.generation,
        applications: vec![app.clone()],
        slots: vec![slot.clone()],
        held: Vec::new(),
        host_monitoring: None,
    };
    let bytes = part.encoded_len();
    if bytes > PART_MAX {
        return Err(AssignmentError::TooLarge { app: app.name.clone(), bytes });
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use proto::agent::WITH_A_DEPLOYMENT;

    use super::*;

    fn assignment() -> pb::Assignment {
        pb::Assignment {
            generation: 4,
            applications: vec![pb::Application {
                name: "shop".to_owned(),
                language: pb::Language::Elixir.into(),
                ports: vec![pb::PortBase { key: "PORT".to_owned(), base: 4000 }],
                ..Default::default()
            }],
            slots: vec![pb::SlotAssignment {
                app: "shop".to_owned(),
                slot: 2,
                release: Some(pb::Release {
                    key: Some(pb::ReleaseKey { version: "1.0".to_owned(), sha256: vec![7; 32].into() }),
                    size: 10,
                    pre_commands: vec!["eval A.b()".to_owned()],
                }),
                pre_commands: Some(pb::PreCommands { run_id: "r".to_owned() }),
                restart_id: String::new(),
                restart_because: String::new(),
                hot: None,
                fallback: Some(pb::Fallback {
                    release: Some(pb::Release {
                        key: Some(pb::ReleaseKey { version: "0.9".to_owned(), sha256: vec![6; 32].into() }),
                        size: 9,
                        pre_commands: vec!["eval A.a()".to_owned()],
                    }),
                    within_ms: 60_000,
                    rollout_id: "rollout".to_owned(),
                }),
            }],
            held: Vec::new(),
            host_monitoring: None,
        }
    }

    #[test]
    fn each_slot_gets_its_part() {
        let parts = split(&assignment()).unwrap();
        let assigned = Assigned::from(parts[0].1.clone());
        let wish = assigned.assignment().unwrap();
        assert_eq!(wish.generation, 4);
        let wanted = wish.wanted.unwrap();
        assert_eq!(wanted.pre_commands, Some(PreCommands { run_id: "r".to_owned(), count: 1 }));
        assert_eq!(assigned.pre_command(&wanted.release, 0).unwrap().0, "eval A.b()");
        assert!(assigned.pre_command(&wanted.release, 1).is_none());
    }

    #[test]
    fn what_a_slot_may_go_back_to_can_be_brought_and_has_no_pre_commands() {
        let assigned = Assigned::from(split(&assignment()).unwrap()[0].1.clone());
        let fallback = assigned.assignment().unwrap().wanted.unwrap().fallback.unwrap();
        assert_eq!((fallback.rollout.as_str(), fallback.within), ("rollout", 60_000));
        assert_eq!(assigned.release(&fallback.release).unwrap().0.size, 9);
        assert!(assigned.pre_command(&fallback.release, 0).is_none());
        let mut unreadable = assignment();
        let fallback = unreadable.slots[0].fallback.as_mut().unwrap();
        fallback.release.as_mut().unwrap().key.as_mut().unwrap().sha256 = vec![1].into();
        assert!(split(&unreadable).is_err());
    }

    #[test]
    fn an_assignment_that_cannot_be_read_is_refused_whole() {
        let mut undescribed = assignment();
        undescribed.applications.clear();
        assert!(split(&undescribed).is_err());
        let mut climbing = assignment();
        climbing.applications[0].name = "../x".to_owned();
        climbing.slots[0].app = "../x".to_owned();
        assert!(split(&climbing).is_err());
        let mut zero = assignment();
        zero.slots[0].slot = 0;
        assert!(split(&zero).is_err());
        let mut short = assignment();
        short.slots[0].release.as_mut().unwrap().key.as_mut().unwrap().sha256 = vec![1].into();
        assert!(split(&short).is_err());
    }

    #[test]
    fn a_refusal_names_the_slot_and_the_fault() {
        let refused = |change: &dyn Fn(&mut pb::Assignment)| {
            let mut assignment = assignment();
            change(&mut assignment);
            let Refusal { slot, why } = split(&assignment).unwrap_err();
            format!("{}: {why}", slot.map(|it| it.to_string()).unwrap_or_default())
        };
        let said = [
            refused(&|it| it.applications[0].language = 9),
            refused(&|it| it.applications[0].env_file = "../env".to_owned()),
            refused(&|it| it.applications[0].cookie = "x".repeat(2 * PART_MAX)),
            refused(&|it| it.slots = vec![it.slots[0].clone(); MAX_SLOTS + 1]),
        ];
        let expected = [
            "shop/2: the assignment of shop names a language that this agent does not know; update the agent",
            "shop/2: env_file of shop holds \"../env\", which is not an absolute path",
            "shop/2: the settings of shop have 2097328 bytes; at most 1048576 can be kept for a slot",
            ": the assignment names 1025 slots; an agent holds at most 1024",
        ];
        assert_eq!(said, expected);
    }

    type Set = fn(&mut pb::Application, &pb::Application);

    macro_rules! fields {
        ($($field:ident)+) => {
            [$((stringify!($field), (|it, other| it.$field.clone_from(&other.$field)) as Set)),+]
        };
    }

    /// Another value in every field; to the last one, so that a new one is thought of here.
    fn all_else() -> pb::Application {
        let live = pb::Probe { kind: Some(pb::probe::Kind::Process(true)), ..Default::default() };
        pb::Application {
            name: "shop".to_owned(),
            language: pb::Language::Erlang.into(),
            env: vec![pb::EnvEntry::default()],
            ports: Vec::new(),
            env_file: "/etc/shop.env".to_owned(),
            run_as_user: "shop".to_owned(),
            run_as_group: "shop".to_owned(),
            cookie: "other".to_owned(),
            distribution: Some(pb::Distribution::default()),
            stable_after_ms: 1,
            stop_grace_ms: 2,
            backoff_min_ms: 3,
            backoff_max_ms: 4,
            backoff_reset_after_ms: 5,
            ready: pb::ReadyWhen::Process.into(),
            pre_commands_timeout_ms: 6,
            ready_probes: vec![live.clone()],
            live_probes: vec![live.clone(), live],
            nginx: None,
            drain_ms: 7,
            limits: Some(pb::Limits { pids_max: 8, ..Default::default() }),
            monitoring: Some(pb::VmMonitoring {
                port: Some(pb::VmThreshold::default()),
                ..Default::default()
            }),
            cluster: pb::Cluster::Fleet.into(),
            telemetry_events: vec!["phoenix".to_owned()],
        }
    }

    #[test]
    fn what_is_not_taken_up_with_a_deployment_is_heeded_at_once() {
        let mut before = assignment().applications.remove(0);
        before.nginx = Some(pb::Nginx::default());
        before.live_probes = vec![pb::Probe::default()];
        let heeded = |application: &pb::Application| {
            let (limits, watched) = (limits(Some(application)), watched(Some(application)));
            let cluster = (cluster(Some(application)), telemetry(Some(application)));
            let application = Some(application.clone());
            let assigned = Assigned { generation: 1, application, slot: None };
            let nginx = assigned.application().and_then(|it| it.nginx);
            (assigned.policy(), limits, (watched, cluster), nginx, assigned.is_asked_live())
        };
        let fields = fields! {
            name language env ports env_file run_as_user run_as_group cookie distribution stable_after_ms
            stop_grace_ms backoff_min_ms backoff_max_ms backoff_reset_after_ms ready pre_commands_timeout_ms
            ready_probes live_probes nginx drain_ms limits monitoring cluster telemetry_events
        };
        let (mut all, other) = (before.clone(), all_else());
        for (field, set) in fields {
            set(&mut all, &other);
            let mut after = before.clone();
            set(&mut after, &other);
            let at_once = heeded(&after) != heeded(&before);
            let waits = WITH_A_DEPLOYMENT.contains(&field) || field == "name";
            assert_eq!(at_once, !waits, "{field}");
        }
        assert_eq!(all, other, "no field was forgotten");
        before.live_probes.clear();
        assert!(!heeded(&before).4, "nobody is asked any more, whatever was deployed");
    }
}
