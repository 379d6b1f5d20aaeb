//! What an agent reports of a slot, read: every text is cut to a length, and a word of a newer agent is unknown, not wrong. What
//! becomes of it is the board's.

use std::sync::Arc;

use proto::ids::{BadName, ReleaseKey};
use proto::pb;
use proto::replicas::{ProbeList, VmLimits};
use proto::state::{ExitCause, HostLevel, SlotState, UpgradeState, VmFigure};

use super::reached;
use crate::clock::Time;
use crate::fleet::{
    Observed, ObservedCheck, ObservedExit, ObservedFallback, ObservedLevel, ObservedMesh, ObservedMissed,
    ObservedNode, ObservedPreCommands, ObservedStaging, ObservedUpgrade, ObservedVm, PreCommandsOutcome,
};

/// The last lines of a log, or of a command's output.
const MAX_TAIL: usize = 16 << 10;
/// Names of settings, of which an agent says twenty.
const MAX_SETTINGS: usize = 32;

/// A sentence.
const MAX_SENTENCE: usize = 2 << 10;

/// Of something that a VM runs.
const MAX_VERSION: usize = 100;

/// Of an Erlang node's name, in bytes.
const MAX_NAME: usize = 1 << 10;

/// Nodes of a mesh, and siblings that an agent is told of: Erlang's own meshes end far below.
pub(super) const MAX_SIBLINGS: usize = 1_024;

/// Of a hot upgrade, done: it has eight.
const MAX_STEPS: usize = 16;

/// Figures of a host, or of a VM, that are watched.
pub(super) const MAX_LIMITS: usize = 8;

pub(crate) fn read_report(report: &pb::SlotReport, now: Time) -> Result<Observed, BadName> {
    Ok(Observed {
        generation: report.generation,
        state: report.state().word().unwrap_or(SlotState::Unknown),
        running: report.running.as_ref().map(ReleaseKey::try_from).transpose()?,
        pid: (report.pid != 0).then_some(report.pid),
        started_at: (report.started_unix_ms != 0).then_some(Time(report.started_unix_ms)),
        ready_since: (report.ready_for_ms != 0).then(|| Time(now.since(Time(report.ready_for_ms)))),
        staging: report.staging.as_ref().map(read_staging).transpose()?.flatten(),
        crash_restarts: report.crash_restarts,
        forced_restarts: report.forced_restarts,
        crashes_since_deploy: report.crashes_since_deploy,
        last_exit: report.last_exit.as_ref().map(|exit| ObservedExit {
            cause: ExitCause::from(exit),
            at: Time(exit.at_unix_ms),
            asked_for: exit.asked_for,
            log_tail: last_part(&exit.log_tail, MAX_TAIL),
            slogan: first_part(&exit.slogan),
            crash_dump: first_part(&exit.crash_dump),
            because: first_part(&exit.because),
        }),
        failed_check: report.failed_check.as_ref().map(read_check),
        next_start_at: (report.next_start_in_ms != 0).then(|| now.plus(report.next_start_in_ms)),
        fault: first_part(&report.fault),
        pre_commands: report.pre_commands.as_ref().map(|run| ObservedPreCommands {
            run_id: first_part(&run.run_id),
            outcome: match (run.finished, run.ok) {
                (false, _) => PreCommandsOutcome::Running,
                (true, true) => PreCommandsOutcome::Passed,
                (true, false) => PreCommandsOutcome::Failed {
                    error: first_part(&run.error),
                    output: last_part(&run.output_tail, MAX_TAIL),
                },
            },
            printed: match run.finished && run.ok {
                true => last_part(&run.output_tail, MAX_TAIL).into(),
                false => Arc::default(),
            },
        }),
        fell_back: report.fell_back.as_ref().map(|it| ObservedFallback {
            rollout: first_part(&it.rollout_id),
            because: first_part(&it.because),
        }),
        erlang: report.erlang.as_ref().map(|node| ObservedNode {
            name: first_part(&node.name),
            connected_since: (node.connected_unix_ms != 0).then_some(Time(node.connected_unix_ms)),
            kind: first_part(&node.kind),
            because: first_part(&node.because),
            tls: first_part(&node.tls),
            mesh: node.mesh.as_ref().map(read_mesh),
        }),
        vm: report.vm.as_ref().map(read_vm),
        upgrade: report.upgrade.as_ref().map(|it| read_upgrade(it, now)).transpose()?.flatten().map(Arc::new),
        hot_upgrades: report.hot_upgrades,
        waiting_settings: report
            .waiting_settings
            .iter()
            .take(MAX_SETTINGS)
            .map(|it| first_part(it))
            .collect(),
        ports: report.ports.iter().take(64).filter_map(read_port).collect(),
        reported_at: now,
    })
}

/// `None`: an agent of a later version speaks of something else.
fn read_upgrade(it: &pb::UpgradeReport, now: Time) -> Result<Option<ObservedUpgrade>, BadName> {
    let key = |key: &Option<pb::ReleaseKey>| key.as_ref().map(ReleaseKey::try_from).transpose();
    let (Some(from), Some(to), Some(state)) = (key(&it.from)?, key(&it.to)?, it.state().word()) else {
        return Ok(None);
    };
    let is_over = matches!(state, UpgradeState::Done | UpgradeState::Failed);
    Ok(Some(ObservedUpgrade {
        attempt: first_part(&it.attempt),
        from,
        to,
        state,
        done: it.done.iter().take(MAX_STEPS).map(|it| (first_part(&it.step), it.took_ms)).collect(),
        step: first_part(&it.step),
        step_since: (!is_over).then(|| Time(now.since(Time(it.step_for_ms)))),
        because: first_part(&it.because),
        of_package: it.of_package,
        spoiled: it.spoiled,
        at: (it.at_unix_ms != 0).then_some(Time(it.at_unix_ms)),
    }))
}

fn read_mesh(mesh: &pb::Mesh) -> ObservedMesh {
    let missed = |it: &pb::Missed| ObservedMissed {
        name: name_part(&it.name),
        since: Time(it.since_unix_ms),
        kind: first_part(&it.kind),
        because: first_part(&it.because),
    };
    ObservedMesh {
        connected: mesh.connected.iter().take(MAX_SIBLINGS).map(|it| name_part(it)).collect(),
        missed: mesh.missed.iter().take(MAX_SIBLINGS).map(missed).collect(),
        unreached: mesh.unreached.iter().take(MAX_SIBLINGS).map(missed).collect(),
    }
}

/// Of what is to be an atom.
fn name_part(text: &str) -> String {
    first_part(&text[..text.floor_char_boundary(MAX_NAME)])
}

fn read_vm(vm: &pb::Vm) -> ObservedVm {
    ObservedVm {
        otp: version(&vm.otp),
        erts: version(&vm.erts),
        application: version(&vm.application),
        elixir: version(&vm.elixir),
        gleam_stdlib: version(&vm.gleam_stdlib),
        phoenix: version(&vm.phoenix),
        started_at: (vm.started_unix_ms != 0).then_some(Time(vm.started_unix_ms)),
        limits: (vm.process_limit != 0).then_some(VmLimits {
            processes: vm.process_limit,
            ports: vm.port_limit,
            atoms: vm.atom_limit,
            ets_tables: vm.ets_limit,
            schedulers: vm.schedulers,
        }),
        fault: first_part(&vm.fault),
        levels: vm.levels.iter().take(MAX_LIMITS).filter_map(read_level).collect(),
        logo: vm.logo,
        urls: reached::urls(&vm.urls),
    }
}

/// `None`: within its limits, or a figure that only a newer agent knows.
fn read_level(told: &pb::VmLevel) -> Option<ObservedLevel> {
    let figure = VmFigure::from_word(&told.r#type)?;
    let level = told.level().word().filter(|it| *it != HostLevel::Normal)?;
    let pb::VmLevel { count, limit, since_unix_ms, .. } = *told;
    Some(ObservedLevel { figure, level, count, limit, since: Time(since_unix_ms) })
}

fn version(text: &str) -> String {
    first_part(&text[..text.floor_char_boundary(MAX_VERSION)])
}

fn read_check(check: &pb::FailedCheck) -> ObservedCheck {
    ObservedCheck {
        list: if check.liveness { ProbeList::Live } else { ProbeList::Ready },
        asked: first_part(&check.asked),
        outcome: first_part(&check.outcome),
        body: check.body[..check.body.floor_char_boundary(MAX_SENTENCE)].to_owned(),
        at: Time(check.at_unix_ms),
        in_a_row: check.in_a_row,
        log_tail: last_part(&check.log_tail, MAX_TAIL),
    }
}

fn read_port(port: &pb::PortInUse) -> Option<(String, u16)> {
    Some((first_part(&port.key), u16::try_from(port.port).ok()?))
}

/// `None` for a phase that only a newer agent knows.
fn read_staging(staging: &pb::Staging) -> Result<Option<ObservedStaging>, BadName> {
    let (Some(key), Some(phase)) = (staging.release.as_ref(), staging.phase().word()) else {
        return Ok(None);
    };
    Ok(Some(ObservedStaging {
        release: ReleaseKey::try_from(key)?,
        phase,
        error: first_part(&staging.error),
        fetched_bytes: staging.fetched_bytes,
    }))
}

pub(super) fn first_part(text: &str) -> String {
    let first = &text[..text.floor_char_boundary(MAX_SENTENCE)];
    // A sentence is one line, and PostgreSQL takes no NUL in a text.
    first.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

fn last_part(text: &str, most: usize) -> String {
    text[text.ceil_char_boundary(text.len().saturating_sub(most))..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time(1_000_000);

    fn report(slot: u32, state: pb::SlotState) -> pb::SlotReport {
        pb::SlotReport { app: "shop".to_owned(), slot, state: state.into(), ..Default::default() }
    }

    #[test]
    fn text_is_cut_at_a_character_and_a_tail_keeps_its_end() {
        let fault = "\u{e4}".repeat(MAX_SENTENCE);
        let log = format!("{}end", "\u{e4}".repeat(MAX_TAIL));
        let exit = pb::LastExit { log_tail: log, ..Default::default() };
        let body = "\u{e4}".repeat(MAX_SENTENCE);
        let check = pb::FailedCheck { body, log_tail: exit.log_tail.clone(), ..Default::default() };
        let failed_check = Some(check);
        let long = pb::SlotReport {
            fault,
            last_exit: Some(exit),
            failed_check,
            ..report(1, pb::SlotState::BackingOff)
        };
        let seen = read_report(&long, START).unwrap();
        assert!(seen.fault.len() <= MAX_SENTENCE);
        let check = seen.failed_check.unwrap();
        assert!(check.body.len() <= MAX_SENTENCE);
        for tail in [seen.last_exit.unwrap().log_tail, check.log_tail] {
            assert!(tail.len() <= MAX_TAIL && tail.ends_with("end"));
        }
    }

    #[test]
    fn a_newer_agents_words_are_unknown_not_wrong() {
        let odd = pb::SlotReport { state: 99, ..report(1, pb::SlotState::Stable) };
        assert_eq!(read_report(&odd, START).unwrap().state, SlotState::Unknown);
    }
}
