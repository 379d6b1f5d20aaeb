//! Replicas: what runs in each slot, for the console and the command line.

use serde::{Deserialize, Serialize};

use crate::ids::{AppName, NodeName, ReleaseKey, Slot, Version};
use crate::metrics::VmPoint;
use crate::state::{ExitCause, HostLevel, SlotState, StagingPhase, UpgradeState, VmFigure};
use crate::timestamp::Timestamp;

/// One replica in as few bytes as an overview of fifteen thousand needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReplicaTile {
    pub node: NodeName,
    pub slot: Slot,
    pub state: SlotState,
    /// What lies in `current`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
}

/// All that is known of one slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Replica {
    pub application: AppName,
    pub node: NodeName,
    pub slot: Slot,
    pub state: SlotState,
    /// What lies in `current`; absent: nothing.
    pub running: Option<ReleaseKey>,
    /// What the slot was last told to run; absent: to be empty.
    pub assigned: Option<ReleaseKey>,
    pub pid: Option<u32>,
    /// Of the process.
    pub started_at: Option<Timestamp>,
    pub ports: Vec<PortInUse>,
    /// Exits that nobody asked for, since the slot exists.
    pub crash_restarts: u32,
    /// Restarts on request.
    pub forced_restarts: u32,
    /// Exits that nobody asked for, since `running` was put in place.
    pub crashes_since_deploy: u32,
    pub last_exit: Option<LastExit>,
    /// The last check that did not pass, of the release that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_check: Option<FailedCheck>,
    /// While it backs off.
    pub next_start_at: Option<Timestamp>,
    /// A sentence: why it is not what it should be.
    pub fault: Option<String>,
    /// What is being brought into the slot.
    pub staging: Option<Staging>,
    pub pre_commands: Option<PreCommands>,
    /// Of the process and its children; absent: nothing was measured lately.
    pub usage: Option<Usage>,
    /// How its agent stands with the Erlang node that it is; absent: its process is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erlang: Option<ErlangNode>,
    /// What its Erlang VM is; absent: it was not asked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<Vm>,
    /// The hot upgrade that is under way, or the last one; absent: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Upgrade>,
    /// Settings that its process was started with and that have changed since, such as `env[KEY]`: a full deployment or a restart
    /// brings them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_settings: Vec<String>,
    /// When the agent said all this; absent: it has said nothing yet.
    pub reported_at: Option<Timestamp>,
}

impl Replica {
    /// For people: what of its settings only its next start takes up.
    pub fn waits_for_a_start(&self) -> Option<String> {
        let settings = &self.waiting_settings;
        // These a restart does not bring either.
        let in_full = settings.iter().any(|it| it == "language" || it == "run_as");
        let brings =
            if in_full { "a full deployment brings" } else { "a full deployment or a restart brings" };
        (!settings.is_empty())
            .then(|| format!("changed since it was started: {}; {brings} that", settings.join(", ")))
    }
}

/// A release that is brought into what runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Upgrade {
    pub from: Version,
    pub to: Version,
    pub state: UpgradeState,
    /// Steps that are done, in their order.
    pub done: Vec<UpgradeStep>,
    /// What is being done, or what failed: `lay`, `unpack`, `relup`, `check`, `configure`, `install`, `prove` or `permanent`;
    /// absent: all is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// When that began; absent: it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_since: Option<Timestamp>,
    /// Why it failed, a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// It failed when what ran was no longer what it had been: that was started anew.
    #[serde(default)]
    pub spoiled: bool,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UpgradeStep {
    pub step: String,
    pub took_ms: u64,
}

impl Upgrade {
    /// For people: how far it is, or what became of it, with how long each step took.
    pub fn sentence(&self) -> String {
        let Self { from, to, state, done, step, because, .. } = self;
        let steps: Vec<String> = done.iter().map(|it| format!("{} {} ms", it.step, it.took_ms)).collect();
        let steps = if steps.is_empty() { String::new() } else { format!(" ({})", steps.join(", ")) };
        let step = step.as_deref().unwrap_or("an unknown step");
        let because = because.as_deref().map(|it| format!(": {it}")).unwrap_or_default();
        match state {
            UpgradeState::Running => format!("hot upgrade from {from} to {to}, at the step {step}{steps}"),
            UpgradeState::Undoing => {
                format!(
                    "the hot upgrade from {from} to {to} failed at the step {step} and is being undone{because}"
                )
            }
            UpgradeState::Done => {
                let all: u64 = done.iter().map(|it| it.took_ms).sum();
                format!("hot-upgraded from {from} to {to} in {all} ms{steps}")
            }
            UpgradeState::Failed => {
                format!("the hot upgrade from {from} to {to} failed at the step {step}{because}")
            }
        }
    }
}

/// An Erlang node, and the agent's own connection to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErlangNode {
    /// With the `@` and the host, as its process was started.
    pub name: String,
    /// Absent: it is not connected.
    pub connected_since: Option<Timestamp>,
    /// Why not: `epmd`, `refused`, `tls`, `cookie`, `name-clash`, `silent`, `protocol` or `closed`; absent: it is, or was not
    /// tried yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The same as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// `shared`: it talks TLS with the one certificate of its host (`otp_tls_certificates`), so that of others' it is verified
    /// that the same authority signed them, and not their name. `managed`: it has one of the application's own authority, and of
    /// others' both are verified. Absent: it talks no TLS, or with what the agent does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// How it stands with the others of its application that it is to be connected to (`cluster`); absent: with none, or it was
    /// not asked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<Mesh>,
}

/// An Erlang node and its siblings: the others of its application that `cluster` has it connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Mesh {
    /// By name, with the `@` and the host.
    pub connected: Vec<String>,
    pub missed: Vec<Missed>,
    /// On other hosts: it is connected to them, because they could dial it, and its own host cannot dial them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreached: Vec<Missed>,
}

/// A sibling that it is not connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Missed {
    pub name: String,
    pub since: Timestamp,
    /// Why, as its host finds when it tries: `unresolved` (the host in the name), `loopback` (that is this host itself),
    /// `name-clash` (another replica has the same name) or one of [`ErlangNode::kind`]; absent: nobody knows, or not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The same as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// What the VM of a replica is, and how it is now. Absent versions: it has no such thing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Vm {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otp: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erts: Option<String>,
    /// Of the OTP application that has the replica's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elixir: Option<String>,
    /// What Gleam leaves of itself in a release is its standard library.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gleam_stdlib: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phoenix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // The console does not need these: to be able to read them would cost every first load of it.
    #[cfg_attr(target_arch = "wasm32", serde(skip_deserializing))]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(target_arch = "wasm32", serde(skip_deserializing))]
    pub limits: Option<VmLimits>,
    /// A sentence: why its figures cannot be read at present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// What of it is above a limit of its application's `monitoring`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<VmLevel>,
    /// Where its Phoenix endpoints say that they are reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Its release has a picture of it, for `GET /applications/{app}/logo`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub logo: bool,
    /// Its newest figures, where they are not old; told of a replica that is asked for alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(target_arch = "wasm32", serde(skip_deserializing))]
    pub now: Option<VmPoint>,
}

/// How much there may be of what is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmLimits {
    pub processes: u64,
    pub ports: u64,
    pub atoms: u64,
    pub ets_tables: u64,
    /// Schedulers online.
    pub schedulers: u32,
}

/// A figure that is above one of the limits of `monitoring`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmLevel {
    #[serde(rename = "type")]
    pub figure: VmFigure,
    pub level: HostLevel,
    /// When the level became this one; of memory, bytes.
    pub count: u64,
    /// Of which that is a share.
    pub limit: u64,
    pub since: Timestamp,
}

impl VmLevel {
    /// `atoms 91 % of 1048576`
    pub fn sentence(&self) -> String {
        level_sentence(self.figure, self.count, self.limit)
    }
}

/// How much of a limit is used, in a few words.
pub fn level_sentence(figure: VmFigure, count: u64, limit: u64) -> String {
    let percent = percent_of(count, limit);
    match figure {
        VmFigure::Atom => format!("atoms {percent} % of {limit}"),
        VmFigure::Process => format!("processes {percent} % of {limit}"),
        VmFigure::Port => format!("ports {percent} % of {limit}"),
        VmFigure::Memory => format!("memory {percent} % of {} MiB", limit >> 20),
    }
}

/// Rounded down: a limit that is not reached is not said to be.
pub fn percent_of(count: u64, limit: u64) -> u64 {
    u64::try_from(u128::from(count) * 100 / u128::from(limit.max(1))).unwrap_or(u64::MAX)
}

impl Vm {
    /// `OTP 25 (ERTS 13.1.5), Elixir 1.14.0`; `None`: nothing is known.
    pub fn runs_on(&self) -> Option<String> {
        let otp = self.otp.as_ref()?;
        let erts = self.erts.as_ref().map(|it| format!(" (ERTS {it})")).unwrap_or_default();
        let others = [
            ("Elixir", &self.elixir),
            ("Phoenix", &self.phoenix),
            ("gleam_stdlib", &self.gleam_stdlib),
            ("application", &self.application),
        ];
        let others =
            others.into_iter().filter_map(|(name, version)| Some(format!(", {name} {}", version.as_ref()?)));
        Some(format!("OTP {otp}{erts}{}", others.collect::<String>()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PortInUse {
    /// The variable that carries it.
    pub key: String,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// 100 is one core.
    pub cpu_percent: f64,
    /// Of the process and its children where they have a control group of their own, without idle page cache; otherwise what
    /// of the process is resident.
    pub memory_bytes: u64,
    /// Processes and threads; absent: not counted on that host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// The limit in force; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LastExit {
    #[serde(flatten)]
    pub cause: ExitCause,
    pub at: Timestamp,
    /// By a stop of ours.
    pub asked_for: bool,
    /// The last lines of its output.
    pub log_tail: String,
    /// Why the Erlang VM crashed, in its own words; absent: it wrote no dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slogan: Option<String>,
    /// Where its dump is kept, on its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crash_dump: Option<String>,
    /// Why the agent ended it on its own account; absent: it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// A check of `ready` or `live` that did not pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailedCheck {
    pub list: ProbeList,
    /// As in `GET /health on port 4000`.
    pub asked: String,
    /// As in `answered 503`.
    pub outcome: String,
    /// The first part of what it answered, or the last of what it printed.
    pub body: String,
    pub at: Timestamp,
    /// How often it has failed in a row; 0: it has passed since.
    pub in_a_row: u32,
    /// The last lines of the replica's output at that time.
    pub log_tail: String,
}

/// Which list of probes in `deployex.yaml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ProbeList {
    Ready,
    Live,
}

impl FailedCheck {
    /// `GET /health on port 4000 answered 503: "database down"`
    pub fn sentence(&self) -> String {
        check_sentence(&self.asked, &self.outcome, &self.body)
    }
}

/// Of a body, in a sentence, in characters.
const BODY_IN_A_SENTENCE: usize = 160;

/// What was asked and what came of it, on one line.
pub fn check_sentence(asked: &str, outcome: &str, body: &str) -> String {
    let words = body.split(|it: char| it.is_whitespace() || it.is_control());
    let said = words.filter(|it| !it.is_empty()).collect::<Vec<_>>().join(" ");
    if said.is_empty() {
        return format!("{asked} {outcome}");
    }
    let more = if said.chars().nth(BODY_IN_A_SENTENCE).is_some() { "…" } else { "" };
    let said: String = said.chars().take(BODY_IN_A_SENTENCE).collect();
    format!("{asked} {outcome}: \"{said}{more}\"")
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Staging {
    pub release: ReleaseKey,
    pub phase: StagingPhase,
    pub fetched_bytes: u64,
    /// The last failure; it is tried again unless `phase` is `failed`.
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum PreCommands {
    Running,
    Passed {
        /// Of each its line and the last that it printed; told of a replica that is asked for alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<String>,
    },
    Failed {
        error: String,
        output: String,
    },
}

/// Which output of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    Both,
    Stdout,
    Stderr,
}

/// One line of a followed log; the body of the answer is one JSON object per line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum LogLine {
    Line {
        stream: LogStream,
        text: String,
    },
    /// Last: why the log ends here although it was to be followed.
    Ended {
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_said_as_a_share_that_is_never_rounded_up() {
        assert_eq!(level_sentence(VmFigure::Atom, 958_399, 1_048_576), "atoms 91 % of 1048576");
        assert_eq!(level_sentence(VmFigure::Memory, 999 << 20, 1_000 << 20), "memory 99 % of 1000 MiB");
        assert_eq!((percent_of(5, 0), percent_of(u64::MAX, 1)), (500, u64::MAX));
    }

    #[test]
    fn what_a_check_found_is_one_line_however_much_was_answered() {
        let said = |body: &str| check_sentence("GET /health on port 4000", "answered 503", body);
        assert_eq!(said(""), "GET /health on port 4000 answered 503");
        assert_eq!(said("database down\n"), "GET /health on port 4000 answered 503: \"database down\"");
        assert_eq!(said("a\r\n\tb\u{0}c"), "GET /health on port 4000 answered 503: \"a b c\"");
        let long = said(&"\u{e4}".repeat(1_000));
        assert!(long.ends_with("ä…\"") && long.chars().count() < 210, "{long}");
    }
}
