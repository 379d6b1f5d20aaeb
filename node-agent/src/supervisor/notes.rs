//! What the machine and its surroundings find worth remembering, in words for the fleet's list of events.

use std::collections::HashMap;

use proto::ids::AppName;
use proto::pb;

use super::SlotId;
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
    };
    pb::AgentEvent { data, ..about(id, kind, text, at_unix_ms) }
}
