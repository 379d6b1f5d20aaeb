//! A pretended host with its agent: takes up assignments, starts and loses processes, and says so sooner or later.

use std::collections::{BTreeMap, VecDeque};

use proto::ids::{ReleaseKey, RestartId, Slot};
use proto::state::{SlotState, StagingPhase};

use super::dice::Dice;
use crate::clock::Time;
use crate::fleet::{Assigned, Observed, ObservedPreCommands, ObservedStaging, PreCommandsOutcome};
use crate::rollout::fixture::{above_its_limit, seen};

/// What is wrong with a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    Good,
    NeverReady,
    CrashesAtStart,
    CrashesLate,
    PreCommandsFail,
    CannotBeStaged,
}

pub(super) fn behaviour(release: &ReleaseKey) -> Behaviour {
    match release.sha256.0[0] % 12 {
        6 => Behaviour::NeverReady,
        7 => Behaviour::CrashesAtStart,
        8 => Behaviour::CrashesLate,
        9 => Behaviour::PreCommandsFail,
        10 => Behaviour::CannotBeStaged,
        _ => Behaviour::Good,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Empty,
    Preparing(u64),
    PreCommands(u64),
    Stopping(u64),
    Starting(u64),
    Ready(u64),
    Stable(u64),
    BackingOff(u64),
    Failed,
}

#[derive(Clone, Debug)]
struct HostSlot {
    wanted: Option<ReleaseKey>,
    run: Option<String>,
    running: Option<ReleaseKey>,
    /// The old release serves until the new one takes over.
    serves: bool,
    phase: Phase,
    crashes: u32,
    /// The last restart that it was told of.
    restart: Option<RestartId>,
    /// When its last process was started, whatever anybody was told of it.
    started_at: u64,
    ran: Option<(String, bool)>,
    /// Its process has passed a limit.
    over: bool,
}

pub(super) struct Host {
    /// Releases with an even number never become ready on it.
    pub(super) poor: bool,
    pub(super) generation: u64,
    slots: BTreeMap<Slot, HostSlot>,
    pub(super) connected: bool,
    pub(super) changed_at: u64,
    /// In earlier sessions, in all.
    pub(super) connected_for: u64,
    /// Reports on their way: when they arrive, and what they say.
    pub(super) outbox: VecDeque<(u64, Slot, Observed)>,
    /// When the newest assignment arrives.
    pub(super) inbox: Option<u64>,
}

const STABLE_AFTER: u64 = 3_000;

impl Host {
    pub(super) fn new() -> Self {
        Self {
            poor: false,
            generation: 0,
            slots: BTreeMap::new(),
            connected: true,
            changed_at: 1_000_000,
            connected_for: 0,
            outbox: VecDeque::new(),
            inbox: None,
        }
    }

    /// A snapshot of all that it is to run.
    pub(super) fn take_up(
        &mut self,
        generation: u64,
        wanted: &BTreeMap<Slot, &Assigned>,
        now: u64,
        dice: &mut Dice,
    ) {
        if generation <= self.generation {
            return;
        }
        self.generation = generation;
        for (number, slot) in &mut self.slots {
            if !wanted.contains_key(number) && slot.phase != Phase::Empty {
                slot.wanted = None;
                slot.phase = Phase::Stopping(now + dice.up_to(1_500));
                slot.serves = false;
            }
        }
        for (number, assigned) in wanted {
            let slot = self.slots.entry(*number).or_insert_with(|| HostSlot {
                wanted: None,
                run: None,
                running: None,
                serves: false,
                phase: Phase::Empty,
                crashes: 0,
                restart: None,
                started_at: 0,
                ran: None,
                over: false,
            });
            let restart = assigned.restart.map(|it| it.id);
            let restarts = restart.is_some() && restart != slot.restart;
            slot.restart = restart.or(slot.restart);
            // Also where another release was about to take its place.
            let lives = slot.running.is_some() && slot.running == assigned.release;
            if restarts && lives {
                slot.serves = false;
                slot.phase = Phase::Stopping(now + dice.up_to(1_500));
            } else if restarts && slot.running.is_some() {
                // What serves until the other is there, too.
                slot.begin(now);
            }
            if slot.wanted == assigned.release && slot.run == assigned.pre_commands_run {
                continue;
            }
            let back = slot.running == assigned.release && slot.serves;
            slot.wanted.clone_from(&assigned.release);
            slot.run.clone_from(&assigned.pre_commands_run);
            if slot.running == assigned.release {
                // It runs the release already: there is nothing to run before it.
                slot.ran = slot.run.clone().map(|run| (run, true));
            }
            if back {
                slot.phase = Phase::Ready(now);
            } else if slot.running != assigned.release
                || slot.phase == Phase::Failed
                || slot.phase == Phase::Empty
            {
                slot.serves |= matches!(slot.phase, Phase::Ready(_) | Phase::Stable(_));
                slot.phase = Phase::Preparing(now + 100 + dice.up_to(2_000));
            }
        }
        self.slots.retain(|number, slot| wanted.contains_key(number) || slot.phase != Phase::Empty);
        self.report_all(now, dice);
    }

    /// Since when the process runs that is in a slot, where it is of that release.
    pub(super) fn runs_since(&self, slot: Slot, release: &ReleaseKey) -> Option<u64> {
        let slot = self.slots.get(&slot).filter(|slot| slot.running.as_ref() == Some(release))?;
        let lives = matches!(slot.phase, Phase::Starting(_) | Phase::Ready(_) | Phase::Stable(_));
        (slot.serves || lives).then_some(slot.started_at)
    }

    /// Every phase whose time has come goes on.
    pub(super) fn step(&mut self, now: u64, dice: &mut Dice) {
        let mut changed = Vec::new();
        for (number, slot) in &mut self.slots {
            if slot.step(now, self.poor, dice) {
                changed.push(*number);
            }
        }
        let emptied = !changed.is_empty();
        for number in changed {
            self.report(number, now, dice);
        }
        if emptied {
            self.slots.retain(|_, slot| slot.phase != Phase::Empty || slot.wanted.is_some());
        }
    }

    /// A process of some slot dies.
    pub(super) fn crash(&mut self, now: u64, dice: &mut Dice) {
        let count = u64::try_from(self.slots.len()).unwrap_or(0);
        let Some(number) = self.slots.keys().nth(usize::try_from(dice.up_to(count)).unwrap_or(0)).copied()
        else {
            return;
        };
        if let Some(slot) = self.slots.get_mut(&number) {
            if !slot.crash(now) {
                return;
            }
            self.report(number, now, dice);
        }
    }

    /// What some slot runs passes a limit; a process that follows has not.
    pub(super) fn grow(&mut self, now: u64, dice: &mut Dice) {
        let count = u64::try_from(self.slots.len()).unwrap_or(0);
        let number = self.slots.keys().nth(usize::try_from(dice.up_to(count)).unwrap_or(0)).copied();
        if let Some((number, slot)) = number.and_then(|it| Some((it, self.slots.get_mut(&it)?))) {
            slot.over = slot.serves || matches!(slot.phase, Phase::Ready(_) | Phase::Stable(_));
            self.report(number, now, dice);
        }
    }

    pub(super) fn reboot(&mut self, now: u64) {
        for slot in self.slots.values_mut() {
            slot.serves = false;
            if slot.wanted.is_some() {
                slot.phase = Phase::Preparing(now + 500);
            }
        }
    }

    /// A new session: all that it holds is said anew, and nothing that was under way before arrives.
    pub(super) fn hello(&mut self, now: u64) -> Vec<(Slot, Observed)> {
        self.outbox.clear();
        self.slots.iter().map(|(number, slot)| (*number, slot.observed(self.generation, now))).collect()
    }

    pub(super) fn report_all(&mut self, now: u64, dice: &mut Dice) {
        let numbers: Vec<Slot> = self.slots.keys().copied().collect();
        for number in numbers {
            self.report(number, now, dice);
        }
    }

    fn report(&mut self, number: Slot, now: u64, dice: &mut Dice) {
        if !self.connected {
            return;
        }
        let Some(slot) = self.slots.get(&number) else { return };
        let last = self.outbox.back().map_or(0, |(at, ..)| *at);
        let at = last.max(now + dice.up_to(600));
        let observed = slot.observed(self.generation, now);
        if dice.one_in(10) {
            self.outbox.push_back((at, number, observed.clone()));
        }
        self.outbox.push_back((at, number, observed));
    }

    /// When something happens by itself.
    pub(super) fn next_at(&self) -> Option<u64> {
        let slots = self.slots.values().filter_map(|slot| match slot.phase {
            Phase::Preparing(at)
            | Phase::PreCommands(at)
            | Phase::Stopping(at)
            | Phase::Starting(at)
            | Phase::BackingOff(at) => Some(at),
            Phase::Ready(since) => Some(since + STABLE_AFTER),
            Phase::Stable(_) | Phase::Empty | Phase::Failed => None,
        });
        slots.chain(self.outbox.front().map(|(at, ..)| *at)).chain(self.inbox).min()
    }
}

impl HostSlot {
    /// Another process runs.
    fn begin(&mut self, now: u64) {
        self.started_at = now;
        self.over = false;
    }

    fn step(&mut self, now: u64, poor: bool, dice: &mut Dice) -> bool {
        let mut behaviour = self.wanted.as_ref().map_or(Behaviour::Good, behaviour);
        let even = self.wanted.as_ref().is_some_and(|release| release.sha256.0[0].is_multiple_of(2));
        if poor && even && behaviour == Behaviour::Good {
            behaviour = Behaviour::NeverReady;
        }
        match self.phase {
            Phase::Preparing(at) if now >= at => {
                let fresh_run =
                    self.run.clone().filter(|run| self.ran.as_ref().is_none_or(|(ran, _)| ran != run));
                self.phase = if behaviour == Behaviour::CannotBeStaged {
                    Phase::Failed
                } else if fresh_run.is_some() {
                    Phase::PreCommands(now + dice.up_to(4_000))
                } else {
                    self.serves = false;
                    Phase::Stopping(now + dice.up_to(500))
                };
            }
            Phase::PreCommands(at) if now >= at => {
                let ok = behaviour != Behaviour::PreCommandsFail;
                self.ran = self.run.clone().map(|run| (run, ok));
                self.phase = if ok { Phase::Stopping(now + dice.up_to(500)) } else { Phase::Failed };
                self.serves &= !ok;
            }
            Phase::Stopping(at) if now >= at => {
                self.crashes = if self.running == self.wanted { self.crashes } else { 0 };
                self.running.clone_from(&self.wanted);
                self.phase = if self.wanted.is_some() {
                    self.begin(now);
                    Phase::Starting(now + dice.up_to(2_000))
                } else {
                    Phase::Empty
                };
            }
            Phase::Starting(at) if now >= at => match behaviour {
                Behaviour::NeverReady => return false,
                Behaviour::CrashesAtStart => {
                    self.crashes += 1;
                    self.phase = Phase::BackingOff(now + 2_000);
                }
                _ => self.phase = Phase::Ready(now),
            },
            Phase::BackingOff(at) if now >= at => {
                self.begin(now);
                self.phase = Phase::Starting(now + dice.up_to(1_000));
            }
            Phase::Ready(since) if now >= since + STABLE_AFTER => self.phase = Phase::Stable(now),
            Phase::Stable(since) if behaviour == Behaviour::CrashesLate && now >= since + 5_000 => {
                return self.crash(now);
            }
            _ => return false,
        }
        true
    }

    fn crash(&mut self, now: u64) -> bool {
        match self.phase {
            Phase::Ready(_) | Phase::Stable(_) | Phase::Starting(_) => {
                self.crashes += 1;
                self.phase = Phase::BackingOff(now + 1_000);
                true
            }
            _ => false,
        }
    }

    fn observed(&self, generation: u64, now: u64) -> Observed {
        let state = match self.phase {
            Phase::Empty => SlotState::Empty,
            _ if self.serves => SlotState::Stable,
            Phase::Preparing(_) | Phase::PreCommands(_) => SlotState::Preparing,
            Phase::Stopping(_) => SlotState::Stopping,
            Phase::Starting(_) => SlotState::Starting,
            Phase::Ready(_) => SlotState::Ready,
            Phase::Stable(_) => SlotState::Stable,
            Phase::BackingOff(_) => SlotState::BackingOff,
            Phase::Failed => SlotState::Failed,
        };
        let failed = self.phase == Phase::Failed;
        let staging =
            self.wanted.clone().filter(|_| failed || matches!(self.phase, Phase::Preparing(_))).map(
                |release| {
                    let phase = if failed { StagingPhase::Failed } else { StagingPhase::Fetching };
                    ObservedStaging { release, phase, error: String::new(), fetched_bytes: 0 }
                },
            );
        let finished = self.ran.clone().filter(|(run, _)| Some(run) == self.run.as_ref());
        let pre_commands = match (&finished, &self.run, self.phase) {
            (Some((run, true)), ..) => Some((run.clone(), PreCommandsOutcome::Passed)),
            (Some((run, false)), ..) => {
                let outcome =
                    PreCommandsOutcome::Failed { error: "exit status 1".to_owned(), output: String::new() };
                Some((run.clone(), outcome))
            }
            (None, Some(run), Phase::PreCommands(_)) => Some((run.clone(), PreCommandsOutcome::Running)),
            _ => None,
        };
        let lives = self.serves || matches!(self.phase, Phase::Ready(_) | Phase::Stable(_));
        Observed {
            vm: (self.over && lives).then(|| above_its_limit(Time(now))),
            ready_since: matches!(self.phase, Phase::Ready(_) | Phase::Stable(_)).then_some(Time(now)),
            staging,
            crashes_since_deploy: self.crashes,
            pre_commands: pre_commands.map(|(run_id, outcome)| ObservedPreCommands {
                run_id,
                outcome,
                printed: "".into(),
            }),
            ..seen(state, self.running.clone(), generation)
        }
    }
}
