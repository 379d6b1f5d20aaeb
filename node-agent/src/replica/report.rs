//! What is said of a replica to the control plane: a pure projection of its state.

use proto::pb;

use super::{At, Done, Health, Process, Replica, Restart, Stage, Upgrade, UpgradeFailure, Upgraded};
use crate::clock::Time;

/// How much of a log or an output goes along with a report, in bytes: enough for a stack trace, small beside a heartbeat.
pub const TAIL_MAX: usize = 4096;

/// What the machine does not know and the report holds.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    pub app: &'a str,
    pub slot: u32,
    /// Wall time, milliseconds since 1970.
    pub unix_ms: u64,
    pub now: Time,
    pub ports: &'a [(String, u16)],
    /// The last lines of the last crash.
    pub log_tail: &'a str,
    /// Why its VM crashed, in its own words, and where its dump is kept; empty: it wrote none.
    pub slogan: &'a str,
    pub crash_dump: &'a str,
    /// The last check that failed of what runs.
    pub failed_check: Option<&'a FailedCheck>,
    pub fetched_bytes: u64,
    /// What is wrong around the machine; empty: nothing.
    pub fault: &'a str,
}

/// A check of the process that did not pass. Remembered by the shell: the machine goes by whether it passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedCheck {
    /// One of `live`; else of `ready`.
    pub liveness: bool,
    /// As in `GET /health on port 4000`, and what came of it, as in `answered 503`.
    pub asked: String,
    pub outcome: String,
    pub body: String,
    pub at: Time,
    /// 0: it has passed since.
    pub in_a_row: u32,
    pub log_tail: String,
}

impl Replica {
    pub fn report(&self, around: Surroundings<'_>) -> pb::SlotReport {
        let unix = |time: Time| around.unix_ms.saturating_sub(around.now.since(time));
        let (pid, started_unix_ms) = match self.process {
            Process::Up { pid, since, .. } | Process::Draining { pid, since, .. } => (pid, unix(since)),
            Process::Stopping { pid, .. } => (pid, 0),
            _ => (0, 0),
        };
        let (Process::BackingOff { until } | Process::Stuck { until }) = self.process else {
            return self.report_with(around, pid, started_unix_ms, 0, unix);
        };
        self.report_with(around, pid, started_unix_ms, until.since(around.now), unix)
    }

    fn report_with(
        &self,
        around: Surroundings<'_>,
        pid: u32,
        started_unix_ms: u64,
        next_start_in_ms: u64,
        unix: impl Fn(Time) -> u64,
    ) -> pb::SlotReport {
        let fell_back = self.fell_back().map(|(fallback, from, because)| pb::FellBack {
            rollout_id: fallback.rollout.clone(),
            from: Some(key(from)),
            to: Some(key(&fallback.release)),
            because: because.to_owned(),
        });
        pb::SlotReport {
            app: around.app.to_owned(),
            slot: around.slot,
            generation: self.assignment.as_ref().map_or(0, |it| it.generation),
            state: self.state(around.now).into(),
            running: self.current.as_ref().map(|it| key(&it.release)),
            pid,
            started_unix_ms,
            ready_for_ms: self.ready_for(around.now).map_or(0, |it| it.max(1)),
            staging: self.staging(around),
            crash_restarts: self.crash_restarts,
            forced_restarts: self.forced_restarts,
            last_exit: self.last_exit.as_ref().map(|exit| pb::LastExit {
                at_unix_ms: unix(exit.at),
                asked_for: exit.asked_for,
                log_tail: tail(around.log_tail, TAIL_MAX),
                slogan: around.slogan.to_owned(),
                crash_dump: around.crash_dump.to_owned(),
                because: exit.because.clone().unwrap_or_default(),
                ..pb::LastExit::of(exit.cause)
            }),
            next_start_in_ms,
            fault: sentence([
                around.fault,
                self.fault.as_deref().unwrap_or_default(),
                fell_back.as_ref().map_or("", |it| &it.because),
            ]),
            pre_commands: self.pre_commands_report(),
            ports: around
                .ports
                .iter()
                .map(|(key, port)| pb::PortInUse { key: key.clone(), port: u32::from(*port) })
                .collect(),
            crashes_since_deploy: self.crashes_since_deploy,
            output_dropped: false,
            failed_check: around.failed_check.map(|check| pb::FailedCheck {
                liveness: check.liveness,
                asked: check.asked.clone(),
                outcome: check.outcome.clone(),
                body: check.body.clone(),
                at_unix_ms: unix(check.at),
                in_a_row: check.in_a_row,
                log_tail: check.log_tail.clone(),
            }),
            fell_back,
            erlang: None,
            vm: None,
            upgrade: self.upgrade_report(around.now, unix),
            hot_upgrades: true,
            waiting_settings: Vec::new(),
        }
    }

    /// Of the hot upgrade that is under way, or the last one.
    fn upgrade_report(&self, now: Time, unix: impl Fn(Time) -> u64) -> Option<pb::UpgradeReport> {
        let steps = |done: &[Done]| {
            let step = |it: &Done| pb::UpgradeStep { step: it.step.word().to_owned(), took_ms: it.took };
            done.iter().map(step).collect()
        };
        let failed = |failure: &UpgradeFailure| pb::UpgradeReport {
            step: failure.step.word().to_owned(),
            because: failure.because.clone(),
            of_package: failure.of_package,
            spoiled: failure.spoiled,
            ..Default::default()
        };
        if let Some(Upgrade { attempt, from, to, at, done, .. }) = &self.upgrade {
            let report = match at {
                At::Next { step } => pb::UpgradeReport {
                    step: step.word().to_owned(),
                    state: pb::UpgradeState::Running.into(),
                    ..Default::default()
                },
                At::Step { step, since, .. } => pb::UpgradeReport {
                    step: step.word().to_owned(),
                    step_for_ms: now.since(*since),
                    state: pb::UpgradeState::Running.into(),
                    ..Default::default()
                },
                At::Undoing { failure, since, .. } => pb::UpgradeReport {
                    step_for_ms: now.since(*since),
                    state: pb::UpgradeState::Undoing.into(),
                    ..failed(failure)
                },
            };
            let (attempt, from, to, done) = (attempt.clone(), Some(key(from)), Some(key(to)), steps(done));
            return Some(pb::UpgradeReport { attempt, from, to, done, ..report });
        }
        let Upgraded { attempt, from, to, done, at, outcome } = self.upgraded.as_ref()?;
        let (report, state) = match outcome {
            Ok(()) => (pb::UpgradeReport::default(), pb::UpgradeState::Done),
            Err(failure) => (failed(failure), pb::UpgradeState::Failed),
        };
        Some(pb::UpgradeReport {
            attempt: attempt.clone(),
            from: Some(key(from)),
            to: Some(key(to)),
            done: steps(done),
            state: state.into(),
            at_unix_ms: unix(*at),
            ..report
        })
    }

    /// How long it has been ready without a break, in milliseconds.
    fn ready_for(&self, now: Time) -> Option<u64> {
        match self.process {
            Process::Up { health: Health::Ready { since }, .. } => Some(now.since(since)),
            _ => None,
        }
    }

    pub fn state(&self, now: Time) -> pb::SlotState {
        match &self.process {
            Process::Up { health: Health::Starting, .. } | Process::Launching { .. } => {
                pb::SlotState::Starting
            }
            Process::Up { health: Health::Ready { .. }, .. } if self.is_stable(now) => pb::SlotState::Stable,
            Process::Up { health: Health::Ready { .. }, .. } => pb::SlotState::Ready,
            Process::Up { health: Health::Unready, .. } => pb::SlotState::Unready,
            Process::Draining { .. } | Process::Stopping { .. } | Process::Clearing { .. } => {
                pb::SlotState::Stopping
            }
            Process::BackingOff { .. } => pb::SlotState::BackingOff,
            Process::Stuck { .. } => pb::SlotState::Failed,
            Process::Swapping { .. } => pb::SlotState::Preparing,
            Process::Down => match &self.stage {
                Stage::Failed { .. } => pb::SlotState::Failed,
                Stage::None if self.wanted().is_none() => pb::SlotState::Empty,
                _ => pb::SlotState::Preparing,
            },
        }
    }

    fn staging(&self, around: Surroundings<'_>) -> Option<pb::Staging> {
        let release = key(self.staged_release()?);
        let (phase, error, retry_in_ms) = match &self.stage {
            Stage::None => return None,
            Stage::Fetching { .. } => (pb::StagingPhase::Fetching, String::new(), 0),
            Stage::Retrying { until, error, .. } => {
                (pb::StagingPhase::Fetching, error.clone(), until.since(around.now))
            }
            Stage::NextPreCommand { .. } | Stage::PreCommand { .. } | Stage::EndingPreCommand { .. } => {
                (pb::StagingPhase::PreCommands, String::new(), 0)
            }
            Stage::Staged { .. } => (pb::StagingPhase::Staged, String::new(), 0),
            Stage::Failed { error, .. } => (pb::StagingPhase::Failed, error.clone(), 0),
        };
        Some(pb::Staging {
            release: Some(release),
            phase: phase.into(),
            error,
            retry_in_ms,
            fetched_bytes: around.fetched_bytes,
        })
    }

    pub(super) fn pre_commands_report(&self) -> Option<pb::PreCommandsReport> {
        let (Stage::NextPreCommand { run, .. }
        | Stage::PreCommand { run, .. }
        | Stage::EndingPreCommand { run, .. }) = &self.stage
        else {
            let run = self.pre_commands.as_ref()?;
            let failure = run.outcome.as_ref().err();
            let own = failure.map(|it| it.output.as_str());
            let printed = run.printed.iter().map(String::as_str).chain(own);
            let printed: Vec<&str> = printed.filter(|it| !it.is_empty()).collect();
            let output_tail = last_of_each(&printed, TAIL_MAX);
            let error = failure.map(|it| it.error.clone()).unwrap_or_default();
            return Some(pb::PreCommandsReport {
                run_id: run.run_id.clone(),
                finished: true,
                ok: run.outcome.is_ok(),
                error,
                output_tail,
            });
        };
        Some(pb::PreCommandsReport { run_id: run.run_id.clone(), finished: false, ..Default::default() })
    }

    /// A restart was asked for and has not happened yet.
    pub fn restart_is_due(&self) -> bool {
        matches!(self.restart, Restart::Due { .. })
    }
}

fn sentence(faults: [&str; 3]) -> String {
    let said: Vec<_> = faults.into_iter().filter(|it| !it.is_empty()).collect();
    said.join("; ")
}

fn key(release: &proto::ids::ReleaseKey) -> pb::ReleaseKey {
    pb::ReleaseKey { version: release.version.to_string(), sha256: release.sha256.0.to_vec().into() }
}

/// What several printed one after the other, at most so many bytes: of each its first line, which says whose it is, and as
/// much of its end as there is room for. None takes more than its share where the others have as much to say.
fn last_of_each(texts: &[&str], most: usize) -> String {
    let mut by_length: Vec<usize> = (0..texts.len()).collect();
    by_length.sort_by_key(|at| texts[*at].len());
    let (mut left, mut parts) = (most, vec![String::new(); texts.len()]);
    for (done, at) in by_length.into_iter().enumerate() {
        let share = left / (texts.len() - done);
        let part = cut_within(texts[at], share);
        left = left.saturating_sub(part.len());
        parts[at] = part;
    }
    parts.concat()
}

/// The first line of `text` and its end, on lines of their own.
fn cut_within(text: &str, most: usize) -> String {
    let text = text.trim_end_matches('\n');
    if text.len() < most {
        return format!("{text}\n");
    }
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let first = &first[..first.floor_char_boundary(most / 2)];
    let room = most.saturating_sub(first.len() + 2);
    match tail(rest, room) {
        end if end.is_empty() => format!("{first}\n"),
        end => format!("{first}\n{end}\n"),
    }
}

/// The end of `text`, at most so many bytes, cut at a line where there is one.
pub fn tail(text: &str, most: usize) -> String {
    let mut from = text.len().saturating_sub(most);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let cut = &text[from..];
    match (from, cut.find('\n')) {
        (0, _) | (_, None) => cut.to_owned(),
        (_, Some(end)) => cut[end + 1..].to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pre_commands_printed_is_told_one_by_one_and_capped_whole() {
        assert_eq!(last_of_each(&[], 100), "");
        assert_eq!(
            last_of_each(&["$ a\nnone\n", "$ b", "$ c\ntwo\nlines"], 100),
            "$ a\nnone\n$ b\n$ c\ntwo\nlines\n"
        );
        let loud = format!("$ loud\n{}its end\n", "a line of many\n".repeat(1_000));
        let told = last_of_each(&[&loud, "$ short\ndone\n", &loud], TAIL_MAX);
        assert!(told.len() <= TAIL_MAX && told.len() > TAIL_MAX * 9 / 10, "{}", told.len());
        assert_eq!(told.matches("$ loud\na line of many\n").count(), 2, "{told}");
        assert_eq!(told.matches("its end\n").count(), 2);
        assert!(told.contains("its end\n$ short\ndone\n$ loud\n"), "{told}");
        // Whatever they are, it ends and holds.
        let odd = "\u{e4}".repeat(10_000);
        for most in 0..200 {
            assert!(last_of_each(&[&odd, "", "\n", &loud], most).len() <= most + 8, "{most}");
        }
    }
}
