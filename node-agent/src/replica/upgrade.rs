//! A hot upgrade of what runs, as a part of the replica's machine: which step is next, and what follows when one fails.
//!
//! The whole release was staged before, so that there is always something to go on with: an upgrade that fails before the
//! install is undone and leaves everything as it was; one that fails later leaves a virtual machine of which nobody knows what
//! it runs, which is ended and started anew.
//!
//! ```text
//!  Lay ─ Unpack ─ Relup ─ Check ─ Configure ─┊─ Install ─ Prove ─ Permanent ─▶ `current` is the new release
//!   └──────────┴── fails ──┴──────────┘      ┊     └── fails ──┘
//!              Undoing ─▶ as before           ┊   the process is ended, and started anew
//! ```
//! Every step bears repeating under its ticket: a new agent asks again for what its predecessor had asked.

use proto::ids::ReleaseKey;
use serde::{Deserialize, Serialize};

use super::fault::{Fault, planted};
use super::{Action, Charge, Condemned, Current, Health, Note, Process, Replica, Stage, Ticket, Wanted};
use crate::clock::Time;

/// How the wanted release is to take the place of what runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hot {
    /// One attempt for each, however often the assignment arrives.
    pub attempt: String,
    /// What it is an upgrade of: anything else that runs here is not upgraded.
    pub from: ReleaseKey,
    /// What runs is never stopped to make room for the release. Else that is done where nothing of it is left to be kept.
    pub required: bool,
}

/// In their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Step {
    /// Files of the new release are laid beside those of what runs.
    Lay,
    /// The release handler is told of them.
    Unpack,
    Relup,
    Check,
    /// The runtime configuration is resolved, and applied by the relup.
    Configure,
    Install,
    /// The application's check passes.
    Prove,
    /// From now on every start is of the new release.
    Permanent,
}

impl Step {
    pub const ALL: [Self; 8] = [
        Self::Lay,
        Self::Unpack,
        Self::Relup,
        Self::Check,
        Self::Configure,
        Self::Install,
        Self::Prove,
        Self::Permanent,
    ];

    fn next(self) -> Option<Self> {
        Self::ALL.into_iter().find(|it| *it > self)
    }

    /// What runs may be another release from here on.
    pub fn changes_what_runs(self) -> bool {
        self >= Self::Install
    }

    /// For programs and people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lay => "lay",
            Self::Unpack => "unpack",
            Self::Relup => "relup",
            Self::Check => "check",
            Self::Configure => "configure",
            Self::Install => "install",
            Self::Prove => "prove",
            Self::Permanent => "permanent",
        }
    }
}

/// One that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrade {
    pub attempt: String,
    pub from: ReleaseKey,
    pub to: ReleaseKey,
    /// Whose it is.
    pub process: Ticket,
    pub at: At,
    pub done: Vec<Done>,
    pub began: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum At {
    /// It is next, and was not asked for yet.
    Next { step: Step },
    /// It is being carried out. Whatever is wished meanwhile, it is waited for: two things are never done to a node at once.
    Step { ticket: Ticket, step: Step, since: Time },
    /// What was laid is being taken away again.
    Undoing { ticket: Ticket, since: Time, failure: UpgradeFailure },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub step: Step,
    /// Milliseconds.
    pub took: u64,
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeFailure {
    pub step: Step,
    /// A sentence.
    pub because: String,
    /// It would fail like this on any host.
    pub of_package: bool,
    /// What runs is not what it was: it has to be started anew.
    pub spoiled: bool,
}

/// The last one that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    pub attempt: String,
    pub from: ReleaseKey,
    pub to: ReleaseKey,
    pub done: Vec<Done>,
    pub at: Time,
    pub outcome: Result<(), UpgradeFailure>,
}

impl Replica {
    /// How the wanted release takes its place; `None`: as any other does.
    fn hot<'w>(&self, wanted: &'w Wanted) -> Option<&'w Hot> {
        let hot = wanted.hot.as_ref()?;
        let lies = self.current.as_ref().map(|it| &it.release);
        (lies == Some(&hot.from) || (hot.required && lies.is_some())).then_some(hot)
    }

    /// What came of this very attempt.
    fn tried(&self, attempt: &str) -> Option<&UpgradeFailure> {
        let last = self.upgraded.as_ref().filter(|it| it.attempt == attempt)?;
        last.outcome.as_ref().err()
    }

    /// A staged release is to be brought into what runs, or waits for that: the process is not to make room for it.
    pub(super) fn spares_what_runs(&self, wanted: &Wanted) -> bool {
        let Some(hot) = self.hot(wanted) else { return false };
        if planted(Fault::StopForAHotUpgrade) {
            return false;
        }
        match self.process {
            // Also where it was tried in vain: who else serves meanwhile, the control plane knows.
            Process::Up { .. } | Process::Draining { .. } | Process::Launching { .. } => true,
            // Nothing is left that could be kept; save that what is only to be upgraded comes back as it was.
            _ => hot.required,
        }
    }

    /// Ends one that has become pointless. One that has changed what runs goes on, whatever is wished meanwhile.
    pub(super) fn keep_upgrade(&mut self, wanted: Option<&Wanted>, now: Time, actions: &mut Vec<Action>) {
        self.drop_upgrade_of_the_dead(now, actions);
        let Some(upgrade) = &self.upgrade else { return };
        let still =
            wanted.is_some_and(|it| it.release == upgrade.to && it.hot.is_some() && self.may_take_over(it));
        let At::Next { step } = upgrade.at else { return };
        if !still && !step.changes_what_runs() && !planted(Fault::UpgradeToWhatIsNotWanted) {
            let because = "the release is no longer wanted here".to_owned();
            return self.undo(
                UpgradeFailure { step, because, of_package: false, spoiled: false },
                now,
                actions,
            );
        }
        let at = At::Step { ticket: self.ticket(), step, since: now };
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.at = at;
        }
        self.ask(actions);
    }

    /// Where the staged release is to be brought into what runs, and that was not tried yet.
    pub(super) fn begin_upgrade(&mut self, wanted: Option<&Wanted>, now: Time, actions: &mut Vec<Action>) {
        let Some(wanted) = wanted.filter(|it| self.may_take_over(it)) else { return };
        let Some(hot) = self.hot(wanted).cloned() else { return };
        let Process::Up { ticket: process, .. } = self.process else { return };
        let again = self.tried(&hot.attempt).is_some() && !planted(Fault::UpgradeAgainAndAgain);
        let condemned = self.condemned.as_ref().is_some_and(|(it, _)| *it == process);
        if again || condemned {
            return;
        }
        let (attempt, to) = (hot.attempt, wanted.release.clone());
        let lies = self.current.as_ref().map(|it| it.release.clone());
        if lies.as_ref() != Some(&hot.from) {
            let because = match &lies {
                Some(lies) => {
                    format!("{} runs here, and this is an upgrade of {}", lies.version, hot.from.version)
                }
                None => "it is not known what runs here".to_owned(),
            };
            let failure = UpgradeFailure { step: Step::Lay, because, of_package: false, spoiled: false };
            let from = lies.unwrap_or(hot.from);
            let at = At::Next { step: Step::Lay };
            let upgrade = Upgrade { attempt, from, to, process, at, done: Vec::new(), began: now };
            return self.end_upgrade(upgrade, Err(failure), now, actions);
        }
        actions.push(Action::Note(Note::UpgradeStarted { from: hot.from.clone(), to: to.clone() }));
        let at = At::Next { step: Step::Lay };
        self.upgrade =
            Some(Upgrade { attempt, from: hot.from, to, process, at, done: Vec::new(), began: now });
        self.keep_upgrade(Some(wanted), now, actions);
    }

    /// What is waited for.
    pub(super) fn ask(&self, actions: &mut Vec<Action>) {
        let Some(Upgrade { from, to, at, .. }) = &self.upgrade else { return };
        match at {
            At::Next { .. } => {}
            At::Step { ticket, step, .. } => actions.push(Action::Upgrade {
                ticket: *ticket,
                step: *step,
                from: from.clone(),
                to: to.clone(),
            }),
            At::Undoing { ticket, .. } => actions.push(Action::UndoUpgrade { ticket: *ticket }),
        }
    }

    /// Without the process that it is of there is nothing to upgrade; and one that is to end is left alone.
    fn drop_upgrade_of_the_dead(&mut self, now: Time, actions: &mut Vec<Action>) {
        let alive = match self.process {
            Process::Up { ticket, .. } => Some(ticket),
            _ => None,
        };
        let condemned = self.condemned.as_ref();
        let lives =
            |it: &Upgrade| alive == Some(it.process) && condemned.is_none_or(|(of, _)| *of != it.process);
        if planted(Fault::UpgradeTheDead) {
            return;
        }
        if let Some(upgrade) = self.upgrade.take_if(|it| !lives(it)) {
            let because = match condemned.filter(|(of, _)| *of == upgrade.process) {
                Some((_, why)) => format!("the process is ended: {}", why.because),
                None => "the process ended meanwhile".to_owned(),
            };
            let failure = match &upgrade.at {
                At::Next { step } | At::Step { step, .. } => {
                    let spoiled = step.changes_what_runs();
                    UpgradeFailure { step: *step, because, of_package: spoiled, spoiled }
                }
                At::Undoing { failure, .. } => failure.clone(),
            };
            self.distrust_current(&upgrade);
            self.end_upgrade(upgrade, Err(failure), now, actions);
        }
    }

    /// The host has restarted: one that was under way is over, which no package can help. What is started next is what lies
    /// there, so that nothing is spoiled any more, and whoever wishes the release says anew how it is to come.
    pub(super) fn leave_upgrades_behind(&mut self, now: Time, actions: &mut Vec<Action>) {
        if let Some(upgrade) = self.upgrade.take() {
            let failure = match &upgrade.at {
                At::Next { step } | At::Step { step, .. } => {
                    let because = "the host restarted in the middle of it".to_owned();
                    UpgradeFailure { step: *step, because, of_package: false, spoiled: false }
                }
                At::Undoing { failure, .. } => failure.clone(),
            };
            self.distrust_current(&upgrade);
            self.end_upgrade(upgrade, Err(failure), now, actions);
        }
        let lies = self.current.as_ref().map(|it| &it.release);
        if let Some(Upgraded { from, outcome: Err(failure), .. }) = &mut self.upgraded
            && lies == Some(from)
        {
            failure.spoiled = false;
        }
    }

    /// It may have been written already that this lies there: what does is found out by a swap, or it is staged anew.
    fn distrust_current(&mut self, upgrade: &Upgrade) {
        if matches!(upgrade.at, At::Step { step: Step::Permanent, .. })
            && !planted(Fault::TrustAHalfUpgradedFolder)
        {
            self.current = None;
        }
    }

    pub(super) fn step_over(
        &mut self,
        answer: Ticket,
        result: Result<(), UpgradeFailure>,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let Some(upgrade) = self.upgrade.clone() else { return };
        match (upgrade.at.clone(), result) {
            (At::Step { ticket, step, since }, Ok(())) if ticket == answer => {
                let mut upgrade = upgrade;
                upgrade.done.push(Done { step, took: now.since(since) });
                match step.next() {
                    Some(next) => {
                        upgrade.at = At::Next { step: next };
                        self.upgrade = Some(upgrade);
                    }
                    None => self.end_upgrade(upgrade, Ok(()), now, actions),
                }
            }
            (At::Step { ticket, step, .. }, Err(failure)) if ticket == answer => {
                let spoiled = failure.spoiled && step.changes_what_runs();
                let failure = UpgradeFailure { step, spoiled, ..failure };
                if spoiled && !planted(Fault::TrustTheSpoiled) {
                    let because =
                        format!("its hot upgrade to {} failed: {}", upgrade.to.version, failure.because);
                    let process = upgrade.process;
                    self.end_upgrade(upgrade, Err(failure), now, actions);
                    self.condemned = Some((process, Condemned { charge: Charge::HalfUpgraded, because }));
                } else {
                    self.undo(failure, now, actions);
                }
            }
            (At::Undoing { ticket, failure, .. }, Ok(())) if ticket == answer => {
                self.end_upgrade(upgrade, Err(failure), now, actions);
            }
            // What cannot be undone is not what it was.
            (At::Undoing { ticket, failure, .. }, Err(undoing)) if ticket == answer => {
                let because = format!("{}; and it could not be undone: {}", failure.because, undoing.because);
                let process = upgrade.process;
                let failure = UpgradeFailure { because: because.clone(), spoiled: true, ..failure };
                self.end_upgrade(upgrade, Err(failure), now, actions);
                self.condemned = Some((process, Condemned { charge: Charge::HalfUpgraded, because }));
            }
            _ => {}
        }
    }

    fn undo(&mut self, failure: UpgradeFailure, now: Time, actions: &mut Vec<Action>) {
        let ticket = self.ticket();
        let Some(upgrade) = &mut self.upgrade else { return };
        upgrade.at = At::Undoing { ticket, since: now, failure };
        actions.push(Action::UndoUpgrade { ticket });
    }

    fn end_upgrade(
        &mut self,
        upgrade: Upgrade,
        outcome: Result<(), UpgradeFailure>,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let Upgrade { attempt, from, to, process, done, began, .. } = upgrade;
        self.upgrade = None;
        match &outcome {
            Ok(()) => {
                actions.push(Action::Note(Note::Upgraded {
                    from: from.clone(),
                    to: to.clone(),
                    took: now.since(began),
                }));
                // The process is older than what lies there now, and of it all the same.
                let since = self.current.as_ref().map_or(process, |it| it.since);
                self.current = Some(Current { release: to.clone(), since });
                self.stage = Stage::None;
                self.crashes_since_deploy = 0;
                self.failures = 0;
                self.fault = None;
                if let Process::Up { health: Health::Ready { since }, .. } = &mut self.process {
                    // As what it is now.
                    *since = now;
                }
            }
            Err(failure) => actions.push(Action::Note(Note::UpgradeFailed {
                from: from.clone(),
                to: to.clone(),
                step: failure.step,
                because: failure.because.clone(),
            })),
        }
        self.upgraded = Some(Upgraded { attempt, from, to, done, at: now, outcome });
    }
}
