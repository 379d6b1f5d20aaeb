//! What is said of an application in one line. Pure.

use proto::replicas::ReplicaTile;
use proto::state::{FaultKind, RolloutPhase, SlotState, Tone};

use crate::picture::AppPicture;
use crate::rollout::Waiting;

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
        if let Some(because) = &fleet.untold {
            return (Tone::Bad, Waiting::Untold { because: because.clone() }.to_string(), true);
        }
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

#[cfg(test)]
mod tests {
    use proto::ids::{Digest, ReleaseKey, RolloutId};
    use proto::state::Language;

    use super::*;
    use crate::clock::Time;
    use crate::db::{Application, Source};
    use crate::fleet::{AppFleet, Wish, WishedBy};
    use crate::rollout::{PreCommandsState, Progress, Rollout};
    use crate::spec::AppSpec;

    /// `myapp`, whose only rollout is in `phase` and waits for something.
    fn moving(phase: RolloutPhase) -> AppPicture {
        let spec = AppSpec::new("myapp".parse().unwrap(), Language::Erlang);
        let release = ReleaseKey { version: "1.0.0".parse().unwrap(), sha256: Digest([7; 32]) };
        let rollout = Rollout {
            id: RolloutId(uuid::Uuid::nil()),
            app: spec.name.clone(),
            release: release.clone(),
            from: None,
            wished_at: Time(0),
            phase,
            reason: None,
            pre_commands: PreCommandsState::NotNeeded,
            progress: Progress::default(),
            by: "bucket".to_owned(),
            started_at: Time(0),
            phase_since: Time(0),
            finished_at: None,
        };
        let wanted = Wish { release, pre_commands: false, by: WishedBy::Bucket, at: Time(0) };
        let fleet = AppFleet {
            spec: Some(spec.clone()),
            wanted: Some(wanted),
            rollout: Some(rollout),
            ..crate::api::tests::empty_fleet("myapp")
        };
        let application = Application {
            spec,
            configured: true,
            source: Source::Yaml,
            manual: None,
            in_force: None,
            cookie: Vec::new(),
            generation: 0,
            created_at: Time(0),
            updated_at: Time(0),
            placed: std::collections::BTreeMap::new(),
        };
        AppPicture { application, fleet, bucket: None, waiting: vec!["1.0.0 is watched".to_owned()] }
    }

    fn tone(app: &AppPicture, ready: u32) -> Tone {
        Standing { app, tiles: &[], wanted: 2, ready }.said().0
    }

    #[test]
    fn a_secret_that_is_missing_comes_before_all_else() {
        let mut app = moving(RolloutPhase::Running);
        app.fleet.untold = Some("its variable A cannot be had".to_owned());
        let (tone, sentence, attention) = Standing { app: &app, tiles: &[], wanted: 2, ready: 2 }.said();
        assert!(sentence.starts_with("its variable A cannot be had; until it can, "), "{sentence}");
        assert_eq!((tone, attention), (Tone::Bad, true));
    }

    #[test]
    fn what_is_watched_after_it_became_stable_is_well() {
        let app = moving(RolloutPhase::Watching);
        let said = Standing { app: &app, tiles: &[], wanted: 2, ready: 2 }.said();
        assert_eq!(said, (Tone::Ok, "1.0.0 is watched".to_owned(), false));
        assert_eq!(tone(&app, 1), Tone::Moving, "a replica of it is not ready");
        assert_eq!(tone(&moving(RolloutPhase::Done), 2), Tone::Waiting, "something else is waited for");
    }
}
