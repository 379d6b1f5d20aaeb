//! A step of a hot upgrade, as the node of a slot carries it out.

use node_agent::replica::{Step, UpgradeFailure};
use proto::ids::ReleaseKey;
use proto::state::ExitCause;

use crate::network::Due;
use crate::releases::{Behaviour, Upgrading, behaviour, upgrading};
use crate::world::World;

impl World {
    /// What the node makes of a step. What was done is done, whoever is there to hear of it.
    pub(crate) fn upgrade(
        &mut self,
        host: usize,
        slot: u16,
        step: Step,
        (from, to): (&ReleaseKey, &ReleaseKey),
    ) -> Result<(), UpgradeFailure> {
        let failed = |because: &str, spoiled, of_package| {
            let because = because.to_owned();
            Err(UpgradeFailure { step, because, of_package, spoiled })
        };
        let fails = self.hostile && !self.gentle && self.dice.one_in(40);
        let (now, poor) = (self.now, self.hosts[host].poor && to.sha256.0[0].is_multiple_of(2));
        let it = self.slot(host, slot);
        let Some(alive) = it.alive.as_mut().filter(|it| !it.told) else {
            return failed("nobody answers", step.changes_what_runs(), false);
        };
        let pid = alive.pid;
        match upgrading(from, to) {
            _ if fails => return failed("no room", step.changes_what_runs(), false),
            Upgrading::Fails { at } if at == step => {
                self.not_exchanged.insert(to.clone());
                return failed("its relup is wrong", step.changes_what_runs(), true);
            }
            Upgrading::EndsTheMachine { at } if at == step => {
                self.not_exchanged.insert(to.clone());
                self.later(1, 300, Due::ProcessEnds { host, slot, pid, cause: ExitCause::Signal(11) });
                return failed("nobody answers any more", step.changes_what_runs(), false);
            }
            Upgrading::Works | Upgrading::Fails { .. } | Upgrading::EndsTheMachine { .. } => {}
        }
        match step {
            Step::Install => {
                alive.release = to.clone();
                // It is as ready as what it is now.
                let never =
                    poor || matches!(behaviour(to), Behaviour::NeverReady | Behaviour::CrashesAtStart);
                let was_ready = alive.ready_at.is_some();
                alive.ready_at = (!never).then(|| alive.ready_at.unwrap_or(now));
                if !was_ready && !never {
                    self.at(now + 1, Due::ProcessReady { host, slot, pid });
                }
                if behaviour(to) == Behaviour::CrashesLate {
                    let cause = ExitCause::Code(1);
                    self.later(7_000, 3_000, Due::ProcessEnds { host, slot, pid, cause });
                }
            }
            Step::Prove => {
                // One that is not ready yet is waited for.
                let ready = alive.ready_at.is_some();
                if !ready || matches!(behaviour(to), Behaviour::NeverReady | Behaviour::CrashesAtStart) {
                    return failed("its check does not pass", true, false);
                }
            }
            Step::Permanent => (it.current, it.new) = (Some(to.clone()), None),
            _ => {}
        }
        Ok(())
    }
}
