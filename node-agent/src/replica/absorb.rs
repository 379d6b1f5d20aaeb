//! What an event does to a replica: the only part of the machine that sees events. What follows from the new state is
//! `advance`'s work.

use proto::state::ExitCause;

use super::fault::{Fault, planted};
use super::{
    Action, Assignment, Blocked, Charge, Condemned, Current, Event, Health, LastExit, Launch, Note,
    PreCommandFailure, PreCommandsRun, PrepareFailure, Process, Replica, Restart, Stage, Ticket, doubling,
};
use crate::clock::Time;

/// A release that cannot be fetched is tried again after this, doubling …
const FETCH_RETRY_MIN: u64 = 1_000;
/// … to this: a missing tarball may appear at any time, and asking costs little.
const FETCH_RETRY_MAX: u64 = 60_000;
/// A swap or a removal that failed (a full or read-only disk) is tried again after this.
const STUCK_RETRY: u64 = 5_000;
/// A start that the host did not let happen is tried again after this, however often: it works when the host can again.
const HINDERED_RETRY: u64 = 5_000;

impl Replica {
    /// Takes in what happened. Only this looks at the event.
    pub(super) fn absorb(&mut self, event: Event, now: Time, actions: &mut Vec<Action>) {
        match event {
            Event::Assigned(new) => self.assigned(new),
            Event::Prepared { ticket, result } => self.prepared(ticket, result, now, actions),
            Event::PreCommandEnded { ticket, result } => self.pre_command_ended(ticket, result, actions),
            Event::Swapped { ticket, result } => self.swapped(ticket, result, now, actions),
            Event::Launched { ticket, result } => self.launched(ticket, result, now, actions),
            Event::Probed { ticket, passed } => self.probed(ticket, passed, now, actions),
            Event::Withdrawn { ticket } => self.withdrawn(ticket, now),
            Event::Exited { ticket, cause } => self.exited(ticket, cause, now, actions),
            Event::Condemned { ticket, condemned } => self.condemn(ticket, condemned),
            Event::Cleared { ticket, result } => self.cleared(ticket, result, now),
            Event::Upgraded { ticket, result } => self.step_over(ticket, result, now, actions),
            Event::Linked { held } => self.linked(held, now),
            Event::Tick => {}
        }
    }

    fn assigned(&mut self, new: Assignment) {
        let older = self.assignment.as_ref().is_some_and(|old| new.generation <= old.generation);
        if older && !planted(Fault::TakeOlderAssignments) {
            return;
        }
        if self.wanted().map(|it| &it.release) != new.wanted.as_ref().map(|it| &it.release) {
            self.failures = 0;
        }
        let known = match &self.restart {
            Restart::Never => None,
            Restart::Due { request } | Restart::Done { request } => Some(request),
        };
        // Whoever knows of no earlier assignment has lost its memory, or has nothing to start anew: it may well have been done.
        if let (Some(request), None) = (&new.restart, &self.assignment) {
            self.restart = Restart::Done { request: request.clone() };
        } else if let Some(request) = &new.restart
            && (known != Some(request) || planted(Fault::RestartEveryTime))
        {
            self.restart = Restart::Due { request: request.clone() };
        }
        if planted(Fault::FallBackTwice) {
            self.trial = None;
        }
        self.assignment = Some(new);
    }

    fn prepared(
        &mut self,
        answer: Ticket,
        result: Result<(), PrepareFailure>,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let Stage::Fetching { ticket, release, attempt } = &self.stage else { return };
        if *ticket != answer && !planted(Fault::TakeAnyAnswer) {
            return;
        }
        let (release, attempt) = (release.clone(), *attempt);
        self.stage = match result {
            Ok(()) => Stage::Staged { release },
            Err(_) if planted(Fault::TrustAnyArchive) => Stage::Staged { release },
            Err(PrepareFailure { error, permanent: true }) => {
                actions.push(Action::Note(Note::CannotPrepare {
                    release: release.clone(),
                    error: error.clone(),
                }));
                Stage::Failed { release, error }
            }
            Err(PrepareFailure { error, permanent: false }) => {
                // Once, not with every try: what it waits for stays in the report.
                if attempt == 0 {
                    actions.push(Action::Note(Note::CannotPrepare {
                        release: release.clone(),
                        error: error.clone(),
                    }));
                }
                let until = now.plus(doubling(FETCH_RETRY_MIN, FETCH_RETRY_MAX, attempt));
                Stage::Retrying { release, until, attempt: attempt + 1, error }
            }
        };
    }

    fn pre_command_ended(
        &mut self,
        answer: Ticket,
        result: Result<String, PreCommandFailure>,
        actions: &mut Vec<Action>,
    ) {
        let (ticket, release, run, index, told) = match self.stage.clone() {
            Stage::PreCommand { ticket, release, run, index, .. } => (ticket, release, run, index, None),
            Stage::EndingPreCommand { ticket, release, run, index, because } => {
                (ticket, release, run, index, Some(because))
            }
            _ => return,
        };
        if ticket != answer {
            return;
        }
        let output = result.as_ref().err().map(|it| it.output.clone()).unwrap_or_default();
        let result = result.map(|printed| self.printed.push(printed));
        let outcome = match (result, told) {
            (Ok(()), None) if index + 1 < run.count => {
                self.stage = Stage::NextPreCommand { release, run, index: index + 1 };
                return;
            }
            // It was through before it was told to die.
            (Ok(()), _) if index + 1 >= run.count => Ok(()),
            (_, Some(because)) => Err(PreCommandFailure { error: because, output }),
            (result, None) => result,
        };
        self.stage = match &outcome {
            Err(_) if planted(Fault::IgnorePreCommands) => Stage::Staged { release },
            Ok(()) => Stage::Staged { release },
            Err(PreCommandFailure { error, .. }) => {
                let (release, error) = (release, error.clone());
                actions.push(Action::Note(Note::PreCommandFailed {
                    release: release.clone(),
                    error: error.clone(),
                }));
                Stage::Failed { release, error }
            }
        };
        let printed = std::mem::take(&mut self.printed);
        self.pre_commands = Some(PreCommandsRun { run_id: run.run_id, outcome, printed });
    }

    fn swapped(&mut self, answer: Ticket, result: Result<(), Blocked>, now: Time, actions: &mut Vec<Action>) {
        let Process::Swapping { ticket, release } = &self.process else { return };
        if *ticket != answer {
            return;
        }
        match result {
            Ok(()) => {
                actions.push(Action::Note(Note::Deployed { release: release.clone() }));
                self.current = Some(Current { release: release.clone(), since: answer });
                self.process = Process::Down;
                self.crashes_since_deploy = 0;
                self.failures = 0;
                self.fault = None;
            }
            Err(blocked) => self.blocked("the new release cannot take its place", blocked, now),
        }
    }

    fn cleared(&mut self, answer: Ticket, result: Result<(), Blocked>, now: Time) {
        if self.process != (Process::Clearing { ticket: answer }) {
            return;
        }
        match result {
            Ok(()) => {
                self.process = Process::Down;
                self.occupied = false;
                self.fault = None;
            }
            Err(blocked) => self.blocked("the slot's folders cannot be removed", blocked, now),
        }
    }

    fn blocked(&mut self, what: &str, blocked: Blocked, now: Time) {
        match blocked {
            Blocked::Held { by, pid } => self.hold(by, pid, now),
            Blocked::Failed { error } => {
                self.fault = Some(format!("{what}: {error}"));
                self.process = Process::Stuck { until: now.plus(STUCK_RETRY) };
            }
        }
    }

    fn launched(&mut self, answer: Ticket, result: Launch, now: Time, actions: &mut Vec<Action>) {
        if self.process != (Process::Launching { ticket: answer }) {
            return;
        }
        match result {
            Launch::Started { pid } => {
                self.fault = None;
                self.process = Process::Up { ticket: answer, pid, since: now, health: Health::Starting };
            }
            Launch::Failed { error } => {
                actions.push(Action::Note(Note::CannotStart { error: error.clone() }));
                self.back_off(error, now);
            }
            Launch::Hindered { error } => {
                // Once, not with every try.
                if self.fault.as_ref() != Some(&error) {
                    actions.push(Action::Note(Note::CannotStart { error: error.clone() }));
                }
                self.fault = Some(error);
                self.process = Process::BackingOff { until: now.plus(HINDERED_RETRY) };
            }
            Launch::Held { by, pid } => self.hold(by, pid, now),
        }
    }

    /// A process that the slot's lock says is there. It goes on, save where it was started before the last release took its
    /// place: then it is of an earlier one, and must end before that is started. One whose ticket was lost goes on: nothing
    /// healthy is ended for that, and a swap takes the lock, so it was started from what lies there.
    pub(super) fn hold(&mut self, by: Ticket, pid: u32, now: Time) {
        self.next_ticket = self.next_ticket.max(by.0 + 1);
        self.process = match &self.current {
            // Its deadline has passed: `advance` tells it to stop at once.
            Some(current) if by != Ticket::LOST && by < current.since => {
                Process::Stopping { ticket: by, pid, deadline: now }
            }
            _ => Process::Up { ticket: by, pid, since: now, health: Health::Starting },
        };
    }

    fn probed(&mut self, answer: Ticket, passed: bool, now: Time, actions: &mut Vec<Action>) {
        let release = self.current.as_ref().map(|it| it.release.clone());
        let (Process::Up { ticket, health, .. } | Process::Draining { ticket, health, .. }) =
            &mut self.process
        else {
            return;
        };
        if *ticket != answer {
            return;
        }
        let was = *health;
        match (passed, was) {
            (true, Health::Starting | Health::Unready) => {
                *health = Health::Ready { since: now };
                actions.push(Action::Note(Note::Ready { release }));
            }
            (false, Health::Ready { .. }) => {
                *health = Health::Unready;
                // What is about to end often fails its check first.
                self.forgive(was, now);
            }
            (true, Health::Ready { .. }) | (false, Health::Starting | Health::Unready) => {}
        }
    }

    /// A process that is not the one that runs has ended already, or is about to.
    fn condemn(&mut self, condemned: Ticket, why: Condemned) {
        match self.process {
            Process::Up { ticket, .. } | Process::Draining { ticket, .. }
                if ticket == condemned || planted(Fault::CondemnAnyProcess) =>
            {
                self.condemned = Some((ticket, why));
            }
            _ => {}
        }
    }

    /// From now on the drain counts.
    fn withdrawn(&mut self, answer: Ticket, now: Time) {
        let drain = self.policy().map_or(0, |it| it.drain);
        let Process::Draining { asked, withdrawn, until, .. } = &mut self.process else { return };
        if *asked == answer && !*withdrawn {
            *withdrawn = true;
            *until = now.plus(drain);
        }
    }

    pub(super) fn exited(&mut self, answer: Ticket, cause: ExitCause, now: Time, actions: &mut Vec<Action>) {
        match self.process {
            Process::Stopping { ticket, .. } if ticket == answer => {
                self.out_of_the_way(ticket, cause, true, now, actions);
            }
            // By itself, as is said; yet no release is judged by it, and nothing waits because of it: it was on its way out.
            Process::Draining { ticket, .. } if ticket == answer => {
                self.out_of_the_way(ticket, cause, false, now, actions);
            }
            Process::Up { .. } if planted(Fault::MissExits) => {}
            Process::Up { ticket, health, .. } if ticket == answer => {
                self.last_exit = Some(LastExit { cause, at: now, asked_for: false, because: None });
                self.crash_restarts = self.crash_restarts.saturating_add(1);
                self.crashes_since_deploy = self.crashes_since_deploy.saturating_add(1);
                actions.push(Action::Note(Note::Crashed { cause, restarts: self.crash_restarts }));
                self.forgive(health, now);
                self.wait_before_start(now);
            }
            // An exit that nobody waits for: of a process whose end was already seen.
            _ => {}
        }
    }

    /// A process that was to end has; `told`: after it was told to.
    fn out_of_the_way(
        &mut self,
        ticket: Ticket,
        cause: ExitCause,
        told: bool,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let condemned = self.condemned.take_if(|(it, _)| *it == ticket).map(|(_, why)| why);
        let because = condemned.as_ref().map(|it| it.because.clone());
        let asked_for = told && condemned.as_ref().is_none_or(|it| it.charge != Charge::Unresponsive);
        self.last_exit = Some(LastExit { cause, at: now, asked_for, because: because.clone() });
        self.process = Process::Down;
        if let Restart::Due { request } = &self.restart {
            self.restart = Restart::Done { request: request.clone() };
            self.restarting(because, actions);
        } else if let Some(Condemned { charge, .. }) = condemned {
            self.restarting(because, actions);
            if charge == Charge::Unresponsive {
                self.crashes_since_deploy = self.crashes_since_deploy.saturating_add(1);
            }
            self.wait_before_start(now);
        } else {
            actions.push(Action::Note(Note::Stopped));
        }
    }

    pub(super) fn restarting(&mut self, because: Option<String>, actions: &mut Vec<Action>) {
        self.forced_restarts = self.forced_restarts.saturating_add(1);
        actions.push(Action::Note(Note::Restarting { restarts: self.forced_restarts, because }));
    }

    /// Endings before a good time do not count for the pauses after it.
    pub(super) fn forgive(&mut self, health: Health, now: Time) {
        let reset_after = self.policy().map_or(u64::MAX, |it| it.reset_after);
        if matches!(health, Health::Ready { since } if now.since(since) >= reset_after) {
            self.failures = 0;
        }
    }

    fn back_off(&mut self, fault: String, now: Time) {
        self.fault = Some(fault);
        // What failed may fail again at once: even the first time is waited for.
        self.failures = self.failures.max(1);
        self.wait_before_start(now);
    }

    /// The first ending after a good time is answered at once, the next ones after pauses that double.
    fn wait_before_start(&mut self, now: Time) {
        let pause = match (self.failures, self.policy()) {
            (0, _) | (_, None) => 0,
            _ if planted(Fault::NoPauses) => 0,
            (failures, Some(policy)) => {
                let cap = if planted(Fault::NoCapOnPauses) { u64::MAX } else { policy.backoff_max };
                let pause = doubling(policy.backoff_min, cap, failures - 1);
                // Up to a tenth less, so that what fell together does not rise together, nor at the longest pause.
                pause - scattered(self.spread ^ self.next_ticket) % (pause / 10 + 1)
            }
        };
        self.failures = self.failures.saturating_add(1);
        self.process = Process::BackingOff { until: now.plus(pause) };
    }
}

/// Neighbouring numbers, far apart (the last step of `splitmix64`).
fn scattered(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use proto::ids::{Digest, ReleaseKey};

    use super::super::{Policy, PreCommands, Wanted, decide};
    use super::*;

    const POLICY: Policy = Policy {
        stable_after: 0,
        stop_grace: 0,
        backoff_min: 0,
        backoff_max: 0,
        reset_after: 0,
        pre_command_timeout: 0,
        drain: 0,
    };

    fn told(replica: &Replica, generation: u64, restart: &str) -> Restart {
        let restart = Some(restart.to_owned());
        let assignment = Assignment { generation, wanted: None, policy: POLICY, restart };
        decide(replica, Event::Assigned(assignment), Time(0)).0.restart
    }

    #[test]
    fn a_start_that_the_host_hinders_is_tried_again_soon_counts_for_nothing_and_is_noted_once() {
        let process = Process::Launching { ticket: Ticket(1) };
        let policy = Policy { backoff_min: 1_000, backoff_max: 300_000, ..POLICY };
        let assignment = Assignment { generation: 1, wanted: None, policy, restart: None };
        let launching = Replica { assignment: Some(assignment), process, failures: 3, ..Replica::default() };
        let hindered = Launch::Hindered { error: "no file descriptor".to_owned() };
        let mut actions = Vec::new();
        let mut replica = launching.clone();
        for _ in 0..9 {
            replica.process = launching.process.clone();
            replica.launched(Ticket(1), hindered.clone(), Time(7), &mut actions);
            assert_eq!(replica.process, Process::BackingOff { until: Time(7 + HINDERED_RETRY) });
        }
        assert_eq!((replica.failures, actions.len()), (3, 1));
        assert_eq!(replica.fault.as_deref(), Some("no file descriptor"));
    }

    #[test]
    fn what_became_stable_before_anybody_looked_again_is_still_to_be_told() {
        let policy = Policy { stable_after: 300, ..POLICY };
        let assignment = Assignment { generation: 1, wanted: None, policy, restart: None };
        let health = Health::Ready { since: Time(1_000) };
        let process = Process::Up { ticket: Ticket(1), pid: 7, since: Time(900), health };
        let replica = Replica { assignment: Some(assignment), process, ..Replica::default() };
        // The report said "ready"; whoever asks only at 1,400 must not sleep for ever.
        assert_eq!(replica.deadline(Time(1_299)), Some(Time(1_300)));
        assert_eq!(replica.deadline(Time(1_300)), None);
    }

    #[test]
    fn an_agent_that_lost_its_memory_takes_a_restart_for_done() {
        let done = |request: &str| Restart::Done { request: request.to_owned() };
        assert_eq!(told(&Replica::default(), 1, "one"), done("one"));
        let earlier = Assignment { generation: 1, wanted: None, policy: POLICY, restart: None };
        let knows = Replica { assignment: Some(earlier), restart: done("one"), ..Replica::default() };
        assert_eq!(told(&knows, 2, "one"), done("one"));
        assert_eq!(told(&knows, 2, "two"), Restart::Due { request: "two".to_owned() });
    }

    /// How long it waits after each of its crashes, which come so long after it was ready.
    fn pauses(spread: u64, ready_for: &[u64]) -> Vec<u64> {
        pauses_where(spread, ready_for, false)
    }

    /// `unready`: its check fails before it ends.
    fn pauses_where(spread: u64, ready_for: &[u64], unready: bool) -> Vec<u64> {
        let policy = Policy { backoff_min: 1_000, backoff_max: 300_000, reset_after: 60_000, ..POLICY };
        let release = ReleaseKey { version: "1.0".parse().unwrap(), sha256: Digest([1; 32]) };
        let wanted = Some(Wanted { release: release.clone(), pre_commands: None, fallback: None, hot: None });
        let assignment = Some(Assignment { generation: 1, wanted, policy, restart: None });
        let current = Some(Current { release, since: Ticket(0) });
        let mut replica = Replica { assignment, current, spread, ..Replica::default() };
        let mut now = Time(1_000_000);
        let mut pauses = Vec::new();
        for ready_for in ready_for {
            let launched = decide(&replica, Event::Tick, now).0;
            let Process::Launching { ticket } = launched.process else { panic!("{launched:?}") };
            let up = decide(&launched, Event::Launched { ticket, result: Launch::Started { pid: 7 } }, now).0;
            let mut ready = decide(&up, Event::Probed { ticket, passed: true }, now).0;
            now = now.plus(*ready_for);
            if unready {
                ready = decide(&ready, Event::Probed { ticket, passed: false }, now).0;
                now = now.plus(5_000);
            }
            replica = decide(&ready, Event::Exited { ticket, cause: ExitCause::Signal(9) }, now).0;
            let until = match replica.process {
                Process::BackingOff { until } => until,
                Process::Launching { .. } => now,
                ref other => panic!("{other:?}"),
            };
            pauses.push(until.since(now));
            // What is answered at once is on its way already.
            replica.process = Process::BackingOff { until };
            now = until;
        }
        pauses
    }

    #[test]
    fn the_first_crash_is_answered_at_once_and_the_next_after_pauses_that_double_to_five_minutes() {
        let pauses = pauses(7, &[10; 12]);
        let doubled = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300].map(|seconds| seconds * 1_000);
        for (pause, longest) in pauses.iter().zip(doubled) {
            assert!((longest - longest / 10..=longest).contains(pause), "{pauses:?}");
        }
    }

    #[test]
    fn only_a_good_time_is_a_new_beginning() {
        let pauses = pauses(7, &[10, 59_999, 59_999, 60_000, 10]);
        assert!(pauses[1] > 0 && pauses[2] > pauses[1], "{pauses:?}");
        assert_eq!(pauses[3], 0);
        assert!((900..=1_000).contains(&pauses[4]), "{pauses:?}");
    }

    #[test]
    fn a_check_that_fails_before_the_end_takes_no_good_time_back() {
        let pauses = pauses_where(7, &[10, 10, 10, 60_000, 10], true);
        assert!(pauses[2] > 0 && pauses[3] == 0, "{pauses:?}");
        assert!((900..=1_000).contains(&pauses[4]), "{pauses:?}");
    }

    #[test]
    fn a_restart_that_ends_a_pause_is_counted_and_told() {
        let release = ReleaseKey { version: "1.0".parse().unwrap(), sha256: Digest([1; 32]) };
        let wanted = Some(Wanted { release: release.clone(), pre_commands: None, fallback: None, hot: None });
        let assignment = Assignment { generation: 1, wanted, policy: POLICY, restart: None };
        let waiting = Replica {
            assignment: Some(assignment.clone()),
            current: Some(Current { release, since: Ticket(0) }),
            process: Process::BackingOff { until: Time(90_000) },
            last_exit: Some(LastExit {
                cause: ExitCause::Code(1),
                at: Time(1),
                asked_for: false,
                because: None,
            }),
            crash_restarts: 4,
            ..Replica::default()
        };
        let restart = Assignment { generation: 2, restart: Some("now".to_owned()), ..assignment };
        let (next, actions) = decide(&waiting, Event::Assigned(restart.clone()), Time(10));
        assert!(matches!(next.process, Process::Launching { .. }), "{next:?}");
        assert_eq!((next.forced_restarts, next.crash_restarts), (1, 4));
        let told = Action::Note(Note::Restarting { restarts: 1, because: None });
        assert!(actions.contains(&told), "{actions:?}");
        // What has not run here yet begins.
        let new = Replica { last_exit: None, ..waiting };
        assert_eq!(decide(&new, Event::Assigned(restart), Time(10)).0.forced_restarts, 0);
    }

    #[test]
    fn what_fell_together_does_not_rise_together() {
        for crashes in [2, 12] {
            let risen: std::collections::BTreeSet<u64> =
                (0..20).map(|slot| *pauses(slot, &vec![10; crashes]).last().unwrap()).collect();
            assert!(risen.len() > 15, "{risen:?}");
        }
    }

    fn ended_after(condemned: Condemned) -> (Replica, Vec<Action>) {
        let assignment = Assignment { generation: 1, wanted: None, policy: POLICY, restart: None };
        let wanted = Wanted {
            release: ReleaseKey { version: "1.0".parse().unwrap(), sha256: Digest([1; 32]) },
            pre_commands: None,
            fallback: None,
            hot: None,
        };
        let current = Some(Current { release: wanted.release.clone(), since: Ticket(1) });
        let assignment = Assignment { wanted: Some(wanted), ..assignment };
        let process = Process::Up { ticket: Ticket(2), pid: 7, since: Time(0), health: Health::Starting };
        let up = Replica { assignment: Some(assignment), current, process, ..Replica::default() };
        let (late, actions) =
            decide(&up, Event::Condemned { ticket: Ticket(1), condemned: condemned.clone() }, Time(5));
        assert_eq!((&late, actions), (&up, Vec::new()));
        let (stopping, actions) = decide(&up, Event::Condemned { ticket: Ticket(2), condemned }, Time(5));
        assert!(matches!(actions[..], [Action::Stop { ticket: Ticket(2), .. }]), "{actions:?}");
        decide(&stopping, Event::Exited { ticket: Ticket(2), cause: ExitCause::Signal(15) }, Time(9))
    }

    #[test]
    fn who_does_not_answer_is_started_anew_and_its_release_charged_with_it() {
        let because = "its liveness check failed 3 times".to_owned();
        let (next, actions) =
            ended_after(Condemned { charge: Charge::Unresponsive, because: because.clone() });
        assert_eq!((next.forced_restarts, next.crash_restarts, next.crashes_since_deploy), (1, 0, 1));
        let exit = next.last_exit.unwrap();
        assert_eq!((exit.asked_for, exit.because), (false, Some(because.clone())));
        let note = Action::Note(Note::Restarting { restarts: 1, because: Some(because) });
        assert!(actions.contains(&note), "{actions:?}");
        assert!(actions.iter().any(|it| matches!(it, Action::Launch { .. })), "{actions:?}");
    }

    #[test]
    fn who_went_over_a_limit_is_started_anew_and_nobody_charged() {
        let condemned = Condemned { charge: Charge::OverLimit, because: "its host is full".to_owned() };
        let (next, _) = ended_after(condemned);
        assert_eq!((next.forced_restarts, next.crashes_since_deploy), (1, 0));
        assert!(next.last_exit.unwrap().asked_for);
    }

    #[test]
    fn what_each_pre_command_printed_is_kept_until_the_next_run() {
        let release = ReleaseKey { version: "1.0".parse().unwrap(), sha256: Digest([1; 32]) };
        let run = |run_id: &str, count| PreCommands { run_id: run_id.to_owned(), count };
        let wished = |generation, run: PreCommands| {
            let wanted =
                Wanted { release: release.clone(), pre_commands: Some(run), fallback: None, hot: None };
            let policy = Policy { pre_command_timeout: 60_000, ..POLICY };
            Event::Assigned(Assignment { generation, wanted: Some(wanted), policy, restart: None })
        };
        let ended = |replica: &Replica, result: Result<&str, &str>| {
            let Stage::PreCommand { ticket, .. } = replica.stage else { panic!("{replica:?}") };
            let failure = |output: &str| PreCommandFailure { error: "exit".into(), output: output.into() };
            let result = result.map(str::to_owned).map_err(failure);
            decide(replica, Event::PreCommandEnded { ticket, result }, Time(3)).0
        };
        let staged = Stage::Staged { release: release.clone() };
        let first = Replica { stage: staged.clone(), ..Replica::default() };
        let begun = decide(&first, wished(1, run("one", 2)), Time(1)).0;
        let half = ended(&begun, Ok("$ a\nfirst\n"));
        let through = ended(&half, Ok("$ b\n"));
        assert_eq!(through.pre_commands.as_ref().unwrap().printed, ["$ a\nfirst\n", "$ b\n"]);
        // As an agent reads it that comes between their end and their report.
        let json = serde_json::to_string(&through).unwrap();
        assert_eq!(serde_json::from_str::<Replica>(&json).unwrap().pre_commands, through.pre_commands);
        let old = r#"{"run_id":"one","outcome":{"Ok":null}}"#;
        let old = serde_json::from_str::<PreCommandsRun>(old).unwrap();
        assert_eq!((old.printed.len(), old.outcome), (0, Ok(())));
        let report = through.pre_commands_report().unwrap();
        assert_eq!((report.ok, report.output_tail.as_str()), (true, "$ a\nfirst\n$ b\n"));

        // One that fails tells what those before it printed, and the next run begins with nothing.
        let half = ended(&begun, Ok("$ a\nfirst\n"));
        let failed = ended(&half, Err("$ b\nno table\n"));
        assert_eq!(failed.pre_commands_report().unwrap().output_tail, "$ a\nfirst\n$ b\nno table\n");
        let again = Replica { stage: staged, process: Process::Down, ..failed };
        let begun = decide(&again, wished(2, run("two", 1)), Time(4)).0;
        assert_eq!(ended(&begun, Ok("$ b\n")).pre_commands.unwrap().printed, ["$ b\n"]);
    }
}
