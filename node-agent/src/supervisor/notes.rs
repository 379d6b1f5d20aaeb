//! What the machine and its surroundings find worth remembering, in words for the fleet's list of events.

use std::collections::HashMap;

use proto::ids::{AppName, ReleaseKey};
use proto::pb;
use proto::replicas::{level_sentence, percent_of};
use proto::state::HostLevel;

use super::SlotId;
use crate::beam::thresholds::{self as vm, Used};
use crate::host::thresholds::{Candidate, Change, Figure, Limit};
use crate::replica::Note;

/// What a slot's ledger remembered could not be read.
pub(super) fn ledger_failed(id: &SlotId, fault: &str, at_unix_ms: u64) -> pb::AgentEvent {
    about(
        id,
        "ledger_failed",
        format!("slot {} was taken up without its ledger: {fault}", id.slot),
        at_unix_ms,
    )
}

/// An assignment was not taken, or could not be stored. The slot is the one that it is about, where that can be told.
pub(super) fn assignment_failed(id: Option<&SlotId>, fault: &str, at_unix_ms: u64) -> pb::AgentEvent {
    let text = format!("an assignment is not in force: {fault}");
    match id {
        Some(id) => about(id, "assignment_failed", text, at_unix_ms),
        None => {
            pb::AgentEvent { at_unix_ms, kind: "assignment_failed".to_owned(), text, ..Default::default() }
        }
    }
}

/// Requests are not sent as the readiness of an application's slots says.
pub(super) fn traffic_failed(app: &AppName, fault: &str, at_unix_ms: u64) -> pb::AgentEvent {
    pb::AgentEvent {
        at_unix_ms,
        kind: "traffic_failed".to_owned(),
        app: app.to_string(),
        text: fault.to_owned(),
        ..Default::default()
    }
}

/// Somebody else has a port that is to be the slot's.
pub(super) fn port_held(id: &SlotId, fault: &str, at_unix_ms: u64) -> pb::AgentEvent {
    about(id, "port_failed", format!("slot {} is not alone: {fault}", id.slot), at_unix_ms)
}

/// What the whole node's ledger remembered could not be read.
pub(super) fn node_ledger_failed(fault: &str, at_unix_ms: u64) -> pb::AgentEvent {
    let text = format!("the agent began without its ledger, and is sent its assignment anew: {fault}");
    pb::AgentEvent { at_unix_ms, kind: "ledger_failed".to_owned(), text, ..Default::default() }
}

/// A figure of the host has passed a limit, or is below it again.
pub(super) fn level_changed(change: &Change, at_unix_ms: u64) -> pb::AgentEvent {
    let Change { figure, level, percent, limit } = change;
    let warning = limit.warning;
    let (kind, action, text) = match level {
        HostLevel::Normal => (
            "watchdog_threshold_cleared",
            "none",
            format!("{figure} of this host is at {percent:.0} % and below its limits again"),
        ),
        HostLevel::Warning | HostLevel::Exceeded => (
            "watchdog_threshold_warning",
            "warning",
            format!("{figure} of this host is at {percent:.0} %; it is warned of from {warning} % on"),
        ),
    };
    let data = [("warning_threshold_percent", warning.to_string()), ("action", action.to_owned())];
    of_host(kind, *figure, *percent, data, text, at_unix_ms)
}

/// A figure of a replica's virtual machine has passed a limit, or is below it again.
pub(super) fn vm_level_changed(id: &SlotId, change: &vm::Change, at_unix_ms: u64) -> pb::AgentEvent {
    let vm::Change { figure, level, used: Used { count, limit }, bounds } = *change;
    let (slot, share) = (id.slot, level_sentence(figure, count, limit));
    let restart = bounds.restart.map(|it| ("restart_threshold_percent", it.to_string()));
    let warning = Some(("warning_threshold_percent", bounds.warning.to_string()));
    let (kind, action, percent, text) = match level {
        HostLevel::Normal => (
            "watchdog_threshold_cleared",
            "none",
            warning,
            format!("slot {slot} is below its limits again: {share}"),
        ),
        HostLevel::Warning => (
            "watchdog_threshold_warning",
            "warning",
            warning,
            format!("slot {slot} has passed a limit: {share}; it is warned of from {} % on", bounds.warning),
        ),
        HostLevel::Exceeded => (
            "watchdog_threshold_exceeded",
            "restart",
            restart,
            format!(
                "slot {slot} has passed a limit: {share}; it is restarted from {} % on, when it is its turn",
                bounds.restart.unwrap_or_default()
            ),
        ),
    };
    let data = [
        Some(("type", figure.word().to_owned())),
        Some(("current_percentage", percent_of(count, limit).to_string())),
        Some(("count", count.to_string())),
        Some(("limit", limit.to_string())),
        Some(("action", action.to_owned())),
        percent,
    ];
    let data = data.into_iter().flatten().map(|(key, value)| (key.to_owned(), value)).collect();
    pb::AgentEvent { data, ..about(id, kind, text, at_unix_ms) }
}

/// The memory of the host is above its limit, and that replica is restarted for it.
pub(super) fn restarted_for_memory(
    candidate: &Candidate,
    limit: Limit,
    percent: f64,
    at_unix_ms: u64,
) -> pb::AgentEvent {
    let Candidate { app, slot, bytes, .. } = candidate;
    let text = format!(
        "memory of this host is at {percent:.0} %: slot {slot} of {app}, which holds {} and is the largest replica, is \
         restarted, as from {} % on",
        mib(*bytes),
        limit.restart.unwrap_or_default()
    );
    let data = [
        ("restart_threshold_percent", limit.restart.unwrap_or_default().to_string()),
        ("action", "restart".to_owned()),
        ("memory_bytes", bytes.to_string()),
    ];
    let event = of_host("watchdog_threshold_exceeded", Figure::Memory, percent, data, text, at_unix_ms);
    pb::AgentEvent { app: app.to_string(), slot: u32::from(slot.number()), ..event }
}

/// The memory of the host is above its limit, and nobody can be restarted for it now.
pub(super) fn nothing_restarted(why: &str, limit: Limit, percent: f64, at_unix_ms: u64) -> pb::AgentEvent {
    let restart = limit.restart.unwrap_or_default();
    let text = format!(
        "memory of this host is at {percent:.0} %, and a replica is to be restarted from {restart} % on: {why}"
    );
    let data = [("restart_threshold_percent", restart.to_string()), ("action", "none".to_owned())];
    of_host("watchdog_threshold_exceeded", Figure::Memory, percent, data, text, at_unix_ms)
}

/// What stands beside the end of a replica that was restarted for its host.
pub(super) fn because_of_memory(candidate: &Candidate, limit: Limit, percent: f64) -> String {
    format!(
        "memory of its host was at {percent:.0} % (a replica is restarted from {} % on), and it was the largest with {}",
        limit.restart.unwrap_or_default(),
        mib(candidate.bytes)
    )
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn of_host<const N: usize>(
    kind: &str,
    figure: Figure,
    percent: f64,
    data: [(&str, String); N],
    text: String,
    at_unix_ms: u64,
) -> pb::AgentEvent {
    let mut data: HashMap<String, String> =
        data.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    data.insert("type".to_owned(), figure.word().to_owned());
    data.insert("current_percentage".to_owned(), format!("{percent:.1}"));
    pb::AgentEvent { at_unix_ms, kind: kind.to_owned(), text, data, ..Default::default() }
}

fn about(id: &SlotId, kind: &str, text: String, at_unix_ms: u64) -> pb::AgentEvent {
    pb::AgentEvent {
        at_unix_ms,
        kind: kind.to_owned(),
        app: id.app.to_string(),
        slot: u32::from(id.slot.number()),
        text,
        data: HashMap::new(),
        // The link numbers it.
        sequence: 0,
    }
}

fn between(data: &mut HashMap<String, String>, from: &ReleaseKey, to: &ReleaseKey) {
    data.insert("from_version".to_owned(), from.version.to_string());
    data.insert("to_version".to_owned(), to.version.to_string());
}

/// Kinds keep the names that DeployEx's notifications have, where there is one.
pub(super) fn event(id: &SlotId, note: Note, at_unix_ms: u64) -> pb::AgentEvent {
    let slot = id.slot;
    let mut data = HashMap::new();
    let (kind, text) = match note {
        Note::DeploymentStarted { release } => {
            data.insert("version".to_owned(), release.version.to_string());
            ("deployment_started", format!("{} is being brought to slot {slot}", release.version))
        }
        Note::Deployed { release } => {
            data.insert("version".to_owned(), release.version.to_string());
            ("deployment_complete", format!("{} has taken its place in slot {slot}", release.version))
        }
        Note::Ready { release } => {
            let version = release.map_or_else(|| "a release".to_owned(), |it| it.version.to_string());
            data.insert("version".to_owned(), version.clone());
            ("application_ready", format!("{version} is ready in slot {slot}"))
        }
        Note::Crashed { cause, restarts } => {
            data.insert("crash_restart_count".to_owned(), restarts.to_string());
            ("crash_restart", format!("slot {slot} ended by itself: {cause}; crash {restarts}"))
        }
        Note::Restarting { restarts, because } => {
            data.insert("forced_restart_count".to_owned(), restarts.to_string());
            let why = because.map_or_else(|| " as asked".to_owned(), |because| format!(": {because}"));
            ("forced_restart", format!("slot {slot} starts again{why}"))
        }
        Note::Stopped => ("deployment_shutdown", format!("slot {slot} has stopped as it was told")),
        Note::CannotPrepare { release, error } => {
            data.insert("version".to_owned(), release.version.to_string());
            ("release_failed", format!("{} cannot be brought to slot {slot}: {error}", release.version))
        }
        Note::PreCommandFailed { release, error } => {
            data.insert("version".to_owned(), release.version.to_string());
            ("pre_commands_failed", format!("{} in slot {slot}: {error}", release.version))
        }
        Note::CannotStart { error } => ("start_failed", format!("slot {slot} cannot be started: {error}")),
        Note::UpgradeStarted { from, to } => {
            between(&mut data, &from, &to);
            (
                "hot_upgrade_started",
                format!("{} is hot-upgraded to {} in slot {slot}", from.version, to.version),
            )
        }
        Note::Upgraded { from, to, took } => {
            between(&mut data, &from, &to);
            data.insert("took_ms".to_owned(), took.to_string());
            let text =
                format!("slot {slot} was hot-upgraded from {} to {} in {took} ms", from.version, to.version);
            ("hot_upgrade_complete", text)
        }
        Note::UpgradeFailed { from, to, step, because } => {
            between(&mut data, &from, &to);
            data.insert("step".to_owned(), step.word().to_owned());
            let (from, to, step) = (from.version, to.version, step.word());
            let text = format!(
                "slot {slot} could not be hot-upgraded from {from} to {to}, at the step {step}: {because}"
            );
            ("hot_upgrade_failed", text)
        }
        Note::FellBack { from, to, because } => {
            between(&mut data, &from, &to);
            ("fell_back", format!("slot {slot} goes back by itself: {because}"))
        }
    };
    pb::AgentEvent { data, ..about(id, kind, text, at_unix_ms) }
}
