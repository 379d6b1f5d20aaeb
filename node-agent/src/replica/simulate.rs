//! The machine against a seeded host: slow, lossy, crashing, full, with an agent that dies before, between and after ledger
//! and actions.
//!
//! What the slot's task guarantees is taken for granted: each action ends in one answer for as long as its agent lives. That
//! may be hours late (a disk that hangs), and it may say that what was done has failed (a keeper that was lost on its way, a
//! check afterwards that could not be made). A deadline was rejected: what hangs in the slot's folders cannot be called
//! back, and nothing else may work there meanwhile.
//!
//! After every step the invariants below must hold; once hostility ends the slot must reach what is wanted, and then be
//! empty once nothing is. `SEED=n cargo nextest run -E 'test(replica::simulate)'` repeats one history with its log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use proto::ids::{Digest, ReleaseKey};
use proto::state::ExitCause;

use self::ledger::Ledger;
use super::fault::{Fault, plant};
use super::recover::{Boot, Found};
use super::*;

mod agent;
mod every_step;
mod host;
mod hot;
mod laws;
mod ledger;
mod wishes;

const HISTORIES: u64 = 10_000;
const STEPS: usize = 200;
const CALM_STEPS: usize = 250;
/// So many violations of other rules are gone through for the one that a planted fault is to show.
const MORE: usize = 500;

const POLICY: Policy = Policy {
    stable_after: 3_000,
    stop_grace: 2_000,
    backoff_min: 1_000,
    backoff_max: 30_000,
    reset_after: 20_000,
    pre_command_timeout: 8_000,
    drain: 1_500,
};

/// What must never be otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Invariant {
    FoldersRestWhileAProcessRuns,
    NothingIsStartedBesideARunningProcess,
    OnlyWhatWasStagedRuns,
    GenerationsOnlyGrow,
    PausesAreCapped,
    CrashLoopsAreSlowedDown,
    PreCommandsRunOnceAndInOrder,
    NothingTakesOverBeforeItsPreCommandsPassed,
    NothingIsStoppedWithoutCause,
    NothingIsStoppedWhileItIsSentRequests,
    NothingIsKilledBeforeItsGrace,
    ACrashIsAnsweredWithoutALedger,
    OnlyCrashesAreCounted,
    CountsOnlyGrow,
    RestartsAreDoneOnce,
    TheCondemnedEnd,
    NobodyGoesBackWhoNeedNot,
    WhoIsLeftAloneGoesBack,
    NobodyGoesBackTwice,
    UpgradesGoStepByStep,
    AnAttemptIsMadeOnce,
    NothingOfAFailedUpgradeIsLeft,
    WhatRunsIsWhatIsSaid,
    ATickAddsNothing,
    WhatIsWantedRunsInTheEnd,
    AWithdrawnSlotIsEmptyInTheEnd,
}

struct Violation {
    invariant: Invariant,
    detail: String,
}

type Checked<T = ()> = Result<T, Violation>;

fn violated<T>(invariant: Invariant, detail: impl Into<String>) -> Checked<T> {
    Err(Violation { invariant, detail: detail.into() })
}

#[derive(Clone, Debug)]
struct Running {
    ticket: Ticket,
    pid: u32,
    release: ReleaseKey,
    /// The present agent has been told of it.
    known: bool,
    /// Its agent was told that it was not started.
    denied: bool,
    /// A hot upgrade failed in the middle of it.
    spoiled: bool,
    /// It was told to stop, and has so long.
    spared_until: Option<Time>,
}

#[derive(Clone, Debug)]
enum Due {
    /// An answer to the agent that asked; lost when that one is dead.
    Answer {
        agent: u32,
        event: Event,
    },
    KeeperStarts {
        agent: u32,
        ticket: Ticket,
        release: ReleaseKey,
    },
    ProcessEnds {
        pid: u32,
        cause: ExitCause,
    },
    /// NGINX was reloaded.
    Withdrawn {
        agent: u32,
        ticket: Ticket,
    },
    PreKeeperStarts {
        agent: u32,
        ticket: Ticket,
        release: ReleaseKey,
        run_id: String,
        index: u32,
    },
    PreCommandEnds {
        ticket: Ticket,
        passed: bool,
    },
    Prepared {
        agent: u32,
        ticket: Ticket,
        release: ReleaseKey,
    },
    Swapped {
        agent: u32,
        ticket: Ticket,
        release: ReleaseKey,
    },
    Cleared {
        agent: u32,
        ticket: Ticket,
    },
    Upgraded {
        agent: u32,
        ticket: Ticket,
        process: Option<Ticket>,
        step: Step,
        to: ReleaseKey,
    },
    Undone {
        agent: u32,
        ticket: Ticket,
    },
    AgentDies,
    Wish,
    DiskFills,
    DiskHasRoom,
    LinkFails,
    LinkHolds,
}

struct World {
    random: u64,
    /// Releases may be brought into what runs: in every fourth history.
    hot: bool,
    now: Time,
    hostile: bool,
    due: BTreeMap<(Time, u64), Due>,
    sequence: u64,
    agent: u32,
    boot: u32,
    // The disk.
    new: Option<ReleaseKey>,
    current: Option<ReleaseKey>,
    /// A power cut came before what lies in `current` was on the disk.
    torn: bool,
    /// A hot upgrade has laid something beside what runs, and how far it is.
    laid: Option<(ReleaseKey, Step)>,
    /// With which ticket each attempt began.
    attempts: BTreeMap<String, Ticket>,
    preparing: Option<Ticket>,
    fence: Ticket,
    // The processes.
    alive: Option<Running>,
    newest: Ticket,
    ended: Option<(Ticket, ExitCause)>,
    /// Has been ready, and may be sent requests since.
    served: Option<Ticket>,
    /// From when on it may be told to stop.
    drained: Option<Time>,
    pre_alive: Option<Ticket>,
    pre_newest: Ticket,
    pre_ended: Option<(Ticket, bool)>,
    pre_killed: Ticket,
    pre_log: BTreeMap<String, u32>,
    pre_spared: BTreeSet<String>,
    // The wishes.
    generation: u64,
    wishes: u64,
    /// The last that was asked for.
    restart: Option<String>,
    assigned: Option<Assignment>,
    /// What the agent has stored of it.
    stored: Option<Assignment>,
    /// Since when its agent has had no session.
    alone_since: Option<Time>,
    /// For which rollout what is wanted lies in its place, since when, and since when for certain: a host that restarts may
    /// forget of the time before.
    in_place: Option<(String, Time, Time)>,
    /// Rollouts of which the ledger has said that their release was stable here.
    was_stable: BTreeSet<String>,
    /// Rollouts of which it has gone back.
    went_back: BTreeSet<String>,
    // What is checked over time.
    /// Ends that no stop had been begun for.
    crashes: u32,
    condemned: BTreeSet<Ticket>,
    starts: Vec<Time>,
    replica: Replica,
    ledger: Ledger,
    /// Places at which the agent could have died so far, and the one where it does; counted where every one has its turn.
    places: u64,
    dies_at: Option<u64>,
    log: Option<String>,
}

fn release(number: u64) -> ReleaseKey {
    ReleaseKey {
        version: format!("{number}.0").parse().unwrap(),
        sha256: Digest([u8::try_from(number).unwrap(); 32]),
    }
}

/// Release 4 is a hostile archive, release 3 crashes soon after its start.
fn is_hostile(key: &ReleaseKey) -> bool {
    key.version.as_str() == "4.0"
}

fn is_crashing(key: &ReleaseKey) -> bool {
    key.version.as_str() == "3.0"
}

impl World {
    fn new(seed: u64, log: bool) -> Self {
        Self {
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            hot: seed.is_multiple_of(4),
            now: Time(1_000),
            hostile: true,
            due: BTreeMap::new(),
            sequence: 0,
            agent: 1,
            boot: 0,
            new: None,
            current: None,
            torn: false,
            laid: None,
            attempts: BTreeMap::new(),
            preparing: None,
            fence: Ticket(0),
            alive: None,
            newest: Ticket(0),
            ended: None,
            served: None,
            drained: None,
            pre_alive: None,
            pre_newest: Ticket(0),
            pre_ended: None,
            pre_killed: Ticket(0),
            pre_log: BTreeMap::new(),
            pre_spared: BTreeSet::new(),
            generation: 0,
            wishes: 0,
            restart: None,
            assigned: None,
            stored: None,
            alone_since: None,
            in_place: None,
            was_stable: BTreeSet::new(),
            went_back: BTreeSet::new(),
            crashes: 0,
            condemned: BTreeSet::new(),
            starts: Vec::new(),
            replica: Replica::default(),
            ledger: Ledger::new(),
            places: 0,
            dies_at: None,
            log: log.then(String::new),
        }
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % sides
    }

    fn fault(&mut self, one_in: u64) -> bool {
        self.hostile && self.roll(one_in) == 0
    }

    fn after(&mut self, millis: u64, due: Due) {
        self.sequence += 1;
        self.due.insert((self.now.plus(millis), self.sequence), due);
    }

    fn soon(&mut self, due: Due) {
        let slow = match self.fault(10) {
            true if self.fault(10) => 3_600_000,
            true => 20_000,
            false => 60,
        };
        let millis = 1 + self.roll(slow);
        self.after(millis, due);
    }

    fn answer(&mut self, agent: u32, event: Event) {
        self.soon(Due::Answer { agent, event });
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "{:>8} {}", self.now.0, text());
        }
    }

    fn step(&mut self) -> Checked {
        let due = self.due.first_key_value().map(|(key, _)| *key);
        let deadline = self.replica.deadline(self.now).into_iter().chain(self.ledger.again).min();
        match (due, deadline) {
            (Some((at, _)), Some(deadline)) if deadline <= at => self.tick(deadline),
            (Some(key), _) => {
                self.now = self.now.max(key.0);
                let due = self.due.remove(&key).unwrap();
                self.happen(due)
            }
            (None, Some(deadline)) => self.tick(deadline),
            (None, None) => self.tick(self.now.plus(1_000)),
        }
    }

    fn tick(&mut self, at: Time) -> Checked {
        self.now = self.now.max(at);
        self.feed(Event::Tick)
    }

    fn play(&mut self) -> Checked {
        for _ in 0..STEPS {
            if self.roll(12) == 0 {
                self.soon(Due::Wish);
            }
            if self.roll(25) == 0 {
                self.soon(Due::AgentDies);
            }
            if self.roll(40) == 0 {
                self.ask_for_a_restart();
            }
            if self.roll(100) == 0 {
                let (fills, lasts) = (self.roll(2_000), self.roll(120_000));
                self.after(fills, Due::DiskFills);
                self.after(fills + lasts, Due::DiskHasRoom);
            }
            if self.roll(40) == 0 {
                self.condemn();
            }
            if self.roll(20) == 0 {
                let link = if self.roll(2) == 0 { Due::LinkFails } else { Due::LinkHolds };
                self.soon(link);
            }
            self.step()?;
        }
        self.hostile = false;
        self.ledger.disk_is_full = false;
        self.due
            .retain(|_, due| !matches!(due, Due::AgentDies | Due::Wish | Due::DiskFills | Due::LinkFails));
        let good = release(5);
        self.wish(Some(good.clone()), true);
        self.calm(Invariant::WhatIsWantedRunsInTheEnd, |world| {
            world.current.as_ref() == Some(&good)
                && world.alive.is_some()
                && matches!(world.replica.process, Process::Up { health: Health::Ready { .. }, .. })
                && world.replica.stage == Stage::None
                && world.replica.pre_commands.as_ref().is_some_and(|it| it.outcome.is_ok())
        })?;
        self.wish(None, false);
        self.calm(Invariant::AWithdrawnSlotIsEmptyInTheEnd, |world| {
            world.replica.is_empty()
                && world.alive.is_none()
                && world.current.is_none()
                && world.new.is_none()
        })
    }

    /// Steps until `reached`, which is what `invariant` promises.
    fn calm(&mut self, invariant: Invariant, reached: impl Fn(&Self) -> bool) -> Checked {
        for _ in 0..CALM_STEPS {
            if reached(self) {
                return Ok(());
            }
            self.step()?;
        }
        violated(invariant, format!("alive {:?}, current {:?}, {:?}", self.alive, self.current, self.replica))
    }
}

fn pre_command_ended(ticket: Ticket, passed: bool) -> Event {
    let failure = || PreCommandFailure { error: "exit status 1".to_owned(), output: String::new() };
    Event::PreCommandEnded { ticket, result: if passed { Ok(String::new()) } else { Err(failure()) } }
}

fn first_violation(histories: u64) -> Option<(u64, Violation)> {
    (1..=histories).find_map(|seed| World::new(seed, false).play().err().map(|violation| (seed, violation)))
}

/// The history of `seed` with its log, for a person.
fn tell(seed: u64) -> String {
    let mut world = World::new(seed, true);
    let _ = world.play();
    world.log.unwrap_or_default()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how a person asks for one history")]
fn ten_thousand_histories_keep_every_invariant() {
    if let Ok(seed) = std::env::var("SEED") {
        let seed = seed.parse().unwrap();
        print!("{}", tell(seed));
        if let Err(violation) = World::new(seed, false).play() {
            panic!("seed {seed}: {:?}: {}", violation.invariant, violation.detail);
        }
        return;
    }
    if let Some((seed, violation)) = first_violation(HISTORIES) {
        let log = tell(seed);
        let from = log.floor_char_boundary(log.len().saturating_sub(6_000));
        panic!("{}\nseed {seed}: {:?}: {}", &log[from..], violation.invariant, violation.detail);
    }
}

/// The invariant that catches a fault: this one, where any history shows it.
fn caught(fault: Fault, wanted: Invariant) -> Option<Invariant> {
    plant(Some(fault));
    let mut named = (1..=HISTORIES).filter_map(|seed| World::new(seed, false).play().err());
    let first = named.next().map(|it| it.invariant);
    let found = first.filter(|it| *it == wanted);
    // Some break more than one rule, and another shows first.
    let found = found.or_else(|| named.take(MORE).map(|it| it.invariant).find(|it| *it == wanted)).or(first);
    plant(None);
    found
}

macro_rules! caught {
    ($($test:ident: $fault:ident => $invariant:ident;)+) => {
        $(
            #[test]
            fn $test() {
                assert_eq!(caught(Fault::$fault, Invariant::$invariant), Some(Invariant::$invariant));
            }
        )+
    };
}

mod planted_faults {
    use super::*;

    caught! {
        a_swap_under_a_running_process: SwapUnderARunningProcess => FoldersRestWhileAProcessRuns;
        forgetting_who_is_stopping: ForgetWhoIsStopping => FoldersRestWhileAProcessRuns;
        taking_any_answer: TakeAnyAnswer => OnlyWhatWasStagedRuns;
        taking_older_assignments: TakeOlderAssignments => GenerationsOnlyGrow;
        no_cap_on_pauses: NoCapOnPauses => PausesAreCapped;
        no_pauses: NoPauses => CrashLoopsAreSlowedDown;
        missing_exits: MissExits => WhatIsWantedRunsInTheEnd;
        trusting_any_archive: TrustAnyArchive => OnlyWhatWasStagedRuns;
        forgetting_pre_commands: ForgetPreCommands => PreCommandsRunOnceAndInOrder;
        ignoring_pre_commands: IgnorePreCommands => NothingTakesOverBeforeItsPreCommandsPassed;
        stopping_undrained: StopUndrained => NothingIsStoppedWhileItIsSentRequests;
        draining_for_ever: DrainForEver => WhatIsWantedRunsInTheEnd;
        stopping_before_staged: StopBeforeStaged => NothingIsStoppedWithoutCause;
        stopping_only_once: StopOnlyOnce => WhatIsWantedRunsInTheEnd;
        forgetting_counts: ForgetCounts => CountsOnlyGrow;
        ignoring_what_runs: IgnoreWhatRuns => NothingIsStartedBesideARunningProcess;
        clearing_under_a_running_process: ClearUnderARunningProcess => FoldersRestWhileAProcessRuns;
        restarting_every_time: RestartEveryTime => RestartsAreDoneOnce;
        condemning_any_process: CondemnAnyProcess => NothingIsStoppedWithoutCause;
        sparing_the_condemned: SpareTheCondemned => TheCondemnedEnd;
        trusting_any_folder: TrustAnyFolder => OnlyWhatWasStagedRuns;
        starting_what_is_not_written: StartWhatIsNotWritten => NothingIsStoppedWithoutCause;
        starting_nothing_unwritten: StartNothingUnwritten => ACrashIsAnsweredWithoutALedger;
        running_pre_commands_unwritten: RunPreCommandsUnwritten => PreCommandsRunOnceAndInOrder;
        swapping_unwritten: SwapUnwritten => OnlyWhatWasStagedRuns;
        stopping_unwritten: StopUnwritten => OnlyCrashesAreCounted;
        beginning_pre_commands_in_memory: BeginPreCommandsInMemory => PreCommandsRunOnceAndInOrder;
        killing_what_was_not_told: KillWhatWasNotTold => NothingIsKilledBeforeItsGrace;
        killing_at_once_afterwards: KillAtOnceAfterwards => NothingIsKilledBeforeItsGrace;
        going_back_while_linked: FallBackWhileLinked => NobodyGoesBackWhoNeedNot;
        going_back_at_once: FallBackAtOnce => NobodyGoesBackWhoNeedNot;
        going_back_though_stable: FallBackThoughStable => NobodyGoesBackWhoNeedNot;
        going_back_before_it_moved: FallBackBeforeItMoved => NobodyGoesBackWhoNeedNot;
        never_going_back: NeverFallBack => WhoIsLeftAloneGoesBack;
        going_back_twice: FallBackTwice => NobodyGoesBackTwice;
        stopping_for_a_hot_upgrade: StopForAHotUpgrade => NothingIsStoppedWithoutCause;
        upgrading_to_what_is_not_wanted: UpgradeToWhatIsNotWanted => UpgradesGoStepByStep;
        upgrading_again_and_again: UpgradeAgainAndAgain => AnAttemptIsMadeOnce;
        upgrading_the_dead: UpgradeTheDead => WhatIsWantedRunsInTheEnd;
        trusting_the_spoiled: TrustTheSpoiled => WhatRunsIsWhatIsSaid;
        trusting_a_half_upgraded_folder: TrustAHalfUpgradedFolder => OnlyWhatWasStagedRuns;
    }
}
