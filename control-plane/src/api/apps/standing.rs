//! What is said of an application in one line. Pure.

use proto::replicas::ReplicaTile;
use proto::state::{FaultKind, RolloutPhase, SlotState, Tone};

use crate::picture::AppPicture;

/// The first thing that a person would want to know.
pub(super) struct Standing<'a> {
    pub(super) app: &'a AppPicture,
    pub(super) tiles: &'a [ReplicaTile],
    pub(super) wanted: u32,
    pub(super) ready: u32,
}

impl Standing<'_> {
    /// Colour, sentence, and whether a person has to look.
    pub(super) fn said(&self) -> (Tone, String, bool) {
        let AppPicture { fleet, bucket, waiting, .. } = self.app;
        let rollout = self.rollout();
        let failing = self.tiles.iter().find(|tile| tile.state.tone() == Tone::Bad);
        let fault = |kind| bucket.as_ref()?.fault.as_ref().filter(|fault| fault.kind == kind);
        if let Some(fault) = fault(FaultKind::Broken) {
            return (Tone::Bad, fault.text.clone(), true);
        }
        if let Some(said) = rollout {
            return said;
        }
        if fleet.spec.is_none() {
            return (
                Tone::Off,
                "is no longer configured; its replicas are being withdrawn".to_owned(),
                false,
            );
        }
        if let Some(tile) = failing {
            let ReplicaTile { node, slot, state, .. } = tile;
            return (Tone::Bad, format!("slot {slot} on {node} is {state}"), true);
        }
        let ghosted = fleet.wanted.as_ref().filter(|wish| fleet.ghosted.contains(&wish.release));
        if let Some(wish) = ghosted {
            let stays = match &fleet.in_force {
                Some(release) => format!("{} stays in force", release.version),
                None => "nothing runs".to_owned(),
            };
            return (Tone::Waiting, format!("{} is ghosted; {stays}", wish.release.version), true);
        }
        if let Some(fault) = fault(FaultKind::Waiting) {
            return (Tone::Waiting, fault.text.clone(), false);
        }
        let watched = fleet.rollout.as_ref().is_some_and(|it| it.phase == RolloutPhase::Watching);
        match (&fleet.wanted, waiting.first()) {
            // Nothing is amiss while the only thing waited for is the end of the watch.
            (Some(_), Some(waiting)) if watched => match self.replicas() {
                (Tone::Ok, _, _) => (Tone::Ok, waiting.clone(), false),
                other => other,
            },
            (None, _) => (Tone::Off, "waits for its first release".to_owned(), false),
            (Some(_), Some(waiting)) => (Tone::Waiting, waiting.clone(), false),
            (Some(_), None) => self.replicas(),
        }
    }

    fn replicas(&self) -> (Tone, String, bool) {
        let Self { wanted, ready, .. } = self;
        let unknown = self.tiles.iter().filter(|tile| tile.state == SlotState::Unknown).count();
        match (unknown, wanted) {
            (0, 0) => (Tone::Waiting, "no node may run it yet".to_owned(), false),
            (0, wanted) if ready >= wanted => {
                (Tone::Ok, format!("{ready} of {wanted} replicas are ready"), false)
            }
            (0, wanted) => (Tone::Moving, format!("{ready} of {wanted} replicas are ready"), false),
            (unknown, _) => {
                (Tone::Waiting, format!("{unknown} replicas are on nodes that are not connected"), true)
            }
        }
    }

    fn rollout(&self) -> Option<(Tone, String, bool)> {
        let AppPicture { fleet, waiting, .. } = self.app;
        let rollout = fleet.rollout.as_ref()?;
        let version = &rollout.release.version;
        let why = waiting.first().map(|waiting| format!("; {waiting}")).unwrap_or_default();
        let reason = rollout.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        match rollout.phase {
            RolloutPhase::Pending | RolloutPhase::Running => {
                Some((Tone::Moving, format!("is moving to {version}{why}"), false))
            }
            RolloutPhase::Reverting => {
                let back = match &rollout.from {
                    Some(from) => format!("is going back to {}", from.version),
                    None => "is being stopped".to_owned(),
                };
                Some((Tone::Bad, format!("{version} failed and {back}{reason}"), true))
            }
            // Watched, it runs as any other; what happens to its replicas is what counts.
            RolloutPhase::Watching
            | RolloutPhase::Done
            | RolloutPhase::Reverted
            | RolloutPhase::Superseded
            | RolloutPhase::Failed => None,
        }
    }
}
