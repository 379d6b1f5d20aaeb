//! What the machine finds worth remembering, in words for the fleet's list of events.

use std::collections::HashMap;

use proto::pb;

use super::SlotId;
use crate::replica::Note;

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
        Note::Restarting { restarts } => {
            data.insert("forced_restart_count".to_owned(), restarts.to_string());
            ("forced_restart", format!("slot {slot} starts again as asked"))
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
    pb::AgentEvent {
        at_unix_ms,
        kind: kind.to_owned(),
        app: id.app.to_string(),
        slot: u32::from(slot.number()),
        text,
        data,
    }
}
