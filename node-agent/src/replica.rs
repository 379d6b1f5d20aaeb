//! The life of one replica, as a pure function.
//!
//! Nothing here reads a clock, spawns, signals or writes. The slot's task (`supervisor::slot`) feeds events in, stores the
//! result, carries the actions out and sleeps until [`Replica::deadline`]; the simulation does the same with a seeded world.
//! What must survive a crash of the agent is the whole [`Replica`]: it is written before any action is carried out.
//!
//! Two things go on side by side: a release is brought into the slot's `new` folder ([`Stage`]) while what lies in
//! `current` runs ([`Process`]). They meet in one place: a staged release takes over once nothing runs.
//!
//! ```text
//!  Stage    None ─ Fetching ─ PreCommand… ─ Staged ─┐      (Retrying: waits to fetch again; Failed: waits for a new wish)
//!                                                   ▼
//!  Process  Up ─ Draining ─ Stopping ─ Down ──── Swapping ─ Down ─ Launching ─ Up
//!            │         └──────────────► Down (its exit)       (withdrawn: Down ─ Clearing ─ Down, and all is empty)
//!            └──── its exit ──► BackingOff ─ Down
//! ```
//! A staged release may also be brought into the process that runs ([`Upgrade`]), which then goes on as it.

use proto::ids::ReleaseKey;
use proto::state::ExitCause;
use serde::{Deserialize, Serialize};

pub(crate) use self::advance::WITHDRAW_MAX;
pub use self::answer::{Blocked, Launch, PreCommandFailure, PrepareFailure};
pub use self::fallback::{Fallback, Link, Trial, Verdict};
pub use self::note::Note;
pub use self::upgrade::{At, Done, Hot, Step, Upgrade, UpgradeFailure, Upgraded};
use crate::clock::Time;

mod absorb;
mod advance;
mod answer;
mod fallback;
pub mod fault;
pub mod held;
mod note;
pub mod recover;
pub mod report;
#[cfg(test)]
mod simulate;
mod upgrade;

/// Fences late answers: an answer counts only with the ticket of what was asked. Tickets of a slot only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ticket(pub u64);

impl Ticket {
    /// Of a process whose record was lost. Those that are drawn begin with 1.
    pub const LOST: Self = Self(0);
}

/// What the control plane wants of this slot; `wanted: None` withdraws it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub generation: u64,
    pub wanted: Option<Wanted>,
    pub policy: Policy,
    /// What runs is to be started anew: once per id, however often it is said. Missing in ledgers of earlier versions.
    #[serde(default)]
    pub restart: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    pub release: ReleaseKey,
    /// Set where this slot is to run the release's pre-commands before it takes over.
    pub pre_commands: Option<PreCommands>,
    /// `None`: it never goes back by itself. Missing in ledgers of earlier versions.
    #[serde(default)]
    pub fallback: Option<Box<Fallback>>,
    /// `None`: what runs ends before the release begins. Missing in ledgers of earlier versions.
    #[serde(default)]
    pub hot: Option<Box<Hot>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreCommands {
    /// One run per id, however often the assignment arrives.
    pub run_id: String,
    pub count: u32,
}

/// Durations in milliseconds; in force from the moment they arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub stable_after: u64,
    pub stop_grace: u64,
    pub backoff_min: u64,
    pub backoff_max: u64,
    pub reset_after: u64,
    /// For each pre-command.
    pub pre_command_timeout: u64,
    /// How long a replica that was ready goes on once it is sent no more requests; 0: it is told to stop at once. Missing in
    /// ledgers of earlier versions.
    #[serde(default)]
    pub drain: u64,
}

/// How a release is being brought into `new`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    #[default]
    None,
    /// Fetched, verified, unpacked and linked, all in one asking.
    Fetching {
        ticket: Ticket,
        release: ReleaseKey,
        attempt: u32,
    },
    Retrying {
        release: ReleaseKey,
        until: Time,
        attempt: u32,
        error: String,
    },
    /// The `index`-th pre-command is next.
    NextPreCommand {
        release: ReleaseKey,
        run: PreCommands,
        index: u32,
    },
    /// It runs, out of the release in `new`.
    PreCommand {
        ticket: Ticket,
        release: ReleaseKey,
        run: PreCommands,
        index: u32,
        deadline: Time,
    },
    /// It was told to die; its end is awaited.
    EndingPreCommand {
        ticket: Ticket,
        release: ReleaseKey,
        run: PreCommands,
        index: u32,
        because: String,
    },
    /// Ready to take over.
    Staged {
        release: ReleaseKey,
    },
    /// Trying again cannot help.
    Failed {
        release: ReleaseKey,
        error: String,
    },
}

/// What lies in `current`, and since which ticket: a process with a later ticket was started from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    pub release: ReleaseKey,
    pub since: Ticket,
}

/// The slot's process. There is no way from one process to the next that does not pass the exit of the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Process {
    #[default]
    Down,
    /// `current` becomes `previous`, `new` becomes `current`.
    Swapping {
        ticket: Ticket,
        release: ReleaseKey,
    },
    /// The process was asked for; its pid is not known yet.
    Launching {
        ticket: Ticket,
    },
    Up {
        ticket: Ticket,
        pid: u32,
        since: Time,
        health: Health,
    },
    /// Is to stop, and finishes what it was sent before. Where that is no longer wanted it is up again.
    Draining {
        ticket: Ticket,
        pid: u32,
        since: Time,
        health: Health,
        /// Of the asking that it be sent no more requests.
        asked: Ticket,
        /// It is sent no more.
        withdrawn: bool,
        /// Told to stop then: the end of the drain, or of the patience with whoever sends requests.
        until: Time,
    },
    /// Told to stop; the keeper kills after the grace, and is told to once more at `deadline`.
    Stopping {
        ticket: Ticket,
        pid: u32,
        deadline: Time,
    },
    /// Waits for its next start, unless something else than a start is due.
    BackingOff {
        until: Time,
    },
    /// A swap or a removal failed and is tried again then.
    Stuck {
        until: Time,
    },
    /// The slot's folders are being removed.
    Clearing {
        ticket: Ticket,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// Has not been ready yet.
    Starting,
    Ready {
        since: Time,
    },
    /// Was ready; its check fails now.
    Unready,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Assigned(Assignment),
    Prepared {
        ticket: Ticket,
        result: Result<(), PrepareFailure>,
    },
    PreCommandEnded {
        ticket: Ticket,
        /// What it printed last where it passed, its own line first.
        result: Result<String, PreCommandFailure>,
    },
    Swapped {
        ticket: Ticket,
        result: Result<(), Blocked>,
    },
    Launched {
        ticket: Ticket,
        result: Launch,
    },
    Probed {
        ticket: Ticket,
        passed: bool,
    },
    /// Nobody sends it requests any more.
    Withdrawn {
        ticket: Ticket,
    },
    Exited {
        ticket: Ticket,
        cause: ExitCause,
    },
    /// This agent ends the process of that ticket on its own account; a successor follows.
    Condemned {
        ticket: Ticket,
        condemned: Condemned,
    },
    Cleared {
        ticket: Ticket,
        result: Result<(), Blocked>,
    },
    /// A step of a hot upgrade is over, or one was undone.
    Upgraded {
        ticket: Ticket,
        result: Result<(), UpgradeFailure>,
    },
    /// A session with the control plane is held, or is not.
    Linked {
        held: bool,
    },
    /// Time has passed; nothing else happened.
    Tick,
}

/// Why a process that nobody asked to be restarted is ended and started anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condemned {
    pub charge: Charge,
    /// A sentence for people: what was seen, and what would have been allowed.
    pub because: String,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Charge {
    /// It hangs: held against its release like a crash.
    Unresponsive,
    /// It went over a limit, or its host did: its release may be as good as before.
    OverLimit,
    /// A hot upgrade failed in the middle: nobody knows what runs.
    HalfUpgraded,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Prepare {
        ticket: Ticket,
        release: ReleaseKey,
    },
    RunPreCommand {
        ticket: Ticket,
        release: ReleaseKey,
        index: u32,
    },
    KillPreCommand {
        ticket: Ticket,
    },
    Swap {
        ticket: Ticket,
        release: ReleaseKey,
    },
    Launch {
        ticket: Ticket,
        release: ReleaseKey,
    },
    /// What runs is to be sent no more requests.
    Withdraw {
        ticket: Ticket,
    },
    Stop {
        ticket: Ticket,
        grace: u64,
    },
    Clear {
        ticket: Ticket,
    },
    /// A step of bringing the staged release into what runs.
    Upgrade {
        ticket: Ticket,
        step: Step,
        from: ReleaseKey,
        to: ReleaseKey,
    },
    /// Nothing of an upgrade that was not installed is to be left.
    UndoUpgrade {
        ticket: Ticket,
    },
    Note(Note),
}

/// What is remembered of the pre-commands that were run last: to be reported, and never run twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreCommandsRun {
    pub run_id: String,
    pub outcome: Result<(), PreCommandFailure>,
    /// What those that passed printed last, one by one. Missing in ledgers of earlier versions.
    #[serde(default)]
    pub printed: Vec<String>,
}

impl PreCommandsRun {
    pub fn passed(run_id: String) -> Self {
        Self { run_id, outcome: Ok(()), printed: Vec::new() }
    }

    pub fn failed(run_id: String, failure: PreCommandFailure) -> Self {
        Self { run_id, outcome: Err(failure), printed: Vec::new() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    pub cause: ExitCause,
    pub at: Time,
    pub asked_for: bool,
    /// Why this agent ended it on its own account. Missing in ledgers of earlier versions.
    #[serde(default)]
    pub because: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// `None` until a first assignment arrives: nothing is decided before, also about what may run.
    pub assignment: Option<Assignment>,
    pub stage: Stage,
    pub current: Option<Current>,
    /// Something may lie in the slot's folders.
    pub occupied: bool,
    pub process: Process,
    pub pre_commands: Option<PreCommandsRun>,
    /// By the pre-commands that are being run: as in [`PreCommandsRun::printed`]. Missing in ledgers of earlier versions.
    #[serde(default)]
    pub printed: Vec<String>,
    pub last_exit: Option<LastExit>,
    /// Why the last start, swap or removal failed; cleared when one works.
    pub fault: Option<String>,
    pub crash_restarts: u32,
    pub forced_restarts: u32,
    pub crashes_since_deploy: u32,
    /// Of the process that was or is being ended on this agent's own account. Missing in ledgers of earlier versions.
    #[serde(default)]
    pub condemned: Option<(Ticket, Condemned)>,
    /// Endings and failed starts in a row, for the backoff.
    pub failures: u32,
    /// Told by the shell: another number for every slot of every host, so that what fell together does not rise together.
    /// Missing in ledgers of earlier versions.
    #[serde(default)]
    pub spread: u64,
    /// A restart that was asked for and not yet done; then the last that was.
    pub restart: Restart,
    /// Of the release that took its place and has a fallback. Missing in ledgers of earlier versions.
    #[serde(default)]
    pub trial: Option<Trial>,
    /// The hot upgrade that is under way. Missing, as the next, in ledgers of earlier versions.
    #[serde(default)]
    pub upgrade: Option<Upgrade>,
    /// The last one that is over.
    #[serde(default)]
    pub upgraded: Option<Upgraded>,
    /// Not remembered: each agent finds out for itself.
    #[serde(skip)]
    pub link: Link,
    next_ticket: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restart {
    #[default]
    Never,
    Due {
        request: String,
    },
    Done {
        request: String,
    },
}

/// The one way a replica changes: take in what happened, then take the next steps it calls for.
pub fn decide(replica: &Replica, event: Event, now: Time) -> (Replica, Vec<Action>) {
    let mut next = replica.clone();
    let mut actions = Vec::new();
    // What was stable until this happened was stable.
    next.see_stable(now);
    next.absorb(event, now, &mut actions);
    next.advance(now, &mut actions);
    (next, actions)
}

impl Default for Replica {
    fn default() -> Self {
        Self {
            assignment: None,
            stage: Stage::None,
            current: None,
            occupied: false,
            process: Process::Down,
            pre_commands: None,
            printed: Vec::new(),
            last_exit: None,
            fault: None,
            crash_restarts: 0,
            forced_restarts: 0,
            crashes_since_deploy: 0,
            condemned: None,
            failures: 0,
            spread: 0,
            restart: Restart::Never,
            trial: None,
            upgrade: None,
            upgraded: None,
            link: Link::Held,
            next_ticket: 1,
        }
    }
}

impl Replica {
    /// When the slot's task must call back with [`Event::Tick`] even if nothing else happens. `told_at`: when the slot was
    /// last reported. What time alone has changed since then is still to be told, however long ago it was.
    pub fn deadline(&self, told_at: Time) -> Option<Time> {
        let stage = match &self.stage {
            Stage::Retrying { until, .. } => Some(*until),
            Stage::PreCommand { deadline, .. } => Some(*deadline),
            Stage::None
            | Stage::Fetching { .. }
            | Stage::NextPreCommand { .. }
            | Stage::EndingPreCommand { .. }
            | Stage::Staged { .. }
            | Stage::Failed { .. } => None,
        };
        let process = match &self.process {
            Process::Stopping { deadline, .. } => Some(*deadline),
            Process::BackingOff { until } | Process::Stuck { until } | Process::Draining { until, .. } => {
                Some(*until)
            }
            // So that its becoming stable is published when it happens.
            Process::Up { health: Health::Ready { since }, .. } => {
                Some(since.plus(self.policy()?.stable_after)).filter(|at| *at > told_at)
            }
            Process::Down
            | Process::Up { .. }
            | Process::Swapping { .. }
            | Process::Launching { .. }
            | Process::Clearing { .. } => None,
        };
        stage.into_iter().chain(process).chain(self.trial_deadline()).min()
    }

    /// Nothing runs, nothing lies here and nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.assignment.as_ref().is_some_and(|it| it.wanted.is_none())
            && !self.occupied
            && self.stage == Stage::None
            && self.process == Process::Down
    }

    pub fn wanted(&self) -> Option<&Wanted> {
        self.assignment.as_ref()?.wanted.as_ref()
    }

    pub fn policy(&self) -> Option<&Policy> {
        self.assignment.as_ref().map(|it| &it.policy)
    }

    fn ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }
}

/// `first`, doubled `times` times, at most `cap`.
fn doubling(first: u64, cap: u64, times: u32) -> u64 {
    first.saturating_mul(1_u64.checked_shl(times.min(32)).unwrap_or(u64::MAX)).min(cap)
}
