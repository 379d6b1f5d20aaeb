//! Watches the VM of a slot's process for its limits: what `beam::thresholds` decides of each sample is remembered and told.
//!
//! Which limits there are is part of the assignment and in force at once. Whether a replica is restarted for one is for the
//! control plane to say, like every restart that somebody asks for.

use proto::pb;
use proto::state::HostLevel;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{info, warn};

use super::SlotTask;
use super::node::Said;
use super::vitals::Sampled;
use crate::beam::about::About;
use crate::beam::thresholds::{Levels, Look, Passed, Used};
use crate::beam::vitals::Vitals;
use crate::clock;
use crate::host;
use crate::replica::Ticket;
use crate::supervisor::acts::chain;
use crate::supervisor::notes;

/// As it lies in the slot's ledger. Of another process nothing of it counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::supervisor) struct RememberedLevels {
    ticket: Ticket,
    levels: Levels,
}

impl RememberedLevels {
    /// For a report, before its VM has said anything.
    pub(super) fn as_vm(&self) -> Option<pb::Vm> {
        let levels = self.told();
        (!levels.is_empty()).then(|| pb::Vm { levels, ..Default::default() })
    }

    fn told(&self) -> Vec<pb::VmLevel> {
        let told = |passed: Passed| {
            let Passed { figure, level, used, since_unix_ms } = passed;
            pb::VmLevel {
                r#type: figure.word().to_owned(),
                level: pb::HostLevel::from(level).into(),
                count: used.count,
                limit: used.limit,
                since_unix_ms,
            }
        };
        self.levels.passed().into_iter().map(told).collect()
    }
}

impl SlotTask {
    /// With what an agent before this one remembered of that very process.
    pub(super) fn levels_of(&self, ticket: Ticket) -> RememberedLevels {
        let remembered = self.shared.paths.ledger(&self.id).levels().unwrap_or_else(|fault| {
            warn!(fault = %chain(&fault), "it is not known which limits were passed before");
            None
        });
        let fresh = RememberedLevels { ticket, levels: Levels::default() };
        remembered.filter(|it| it.ticket == ticket).unwrap_or(fresh)
    }
}

impl Sampled {
    pub(super) fn look_at_levels(&mut self, vitals: &Vitals, about: &About, said: &watch::Sender<Said>) {
        let watched = *self.watched.borrow_and_update();
        let memory = watched.memory.and_then(|_| watched.memory_max.or_else(host::memory_total));
        let used = |count, limit| Used { count, limit };
        let look = Look {
            now: clock::now(),
            unix_ms: clock::unix_ms(),
            atoms: used(vitals.atoms, about.atom_limit),
            processes: used(vitals.processes, about.process_limit),
            ports: used(vitals.ports, about.port_limit),
            memory: used(vitals.memory.total, memory.unwrap_or(0)),
        };
        let before = self.levels.told();
        let changes = self.levels.levels.look(&watched, &look);
        let levels = self.levels.told();
        if changes.is_empty() && levels == before {
            return;
        }
        // Before it is told: the next agent must not tell it a second time.
        if let Err(fault) = self.shared.paths.ledger(&self.id).store_levels(&self.levels) {
            warn!(fault = %chain(&fault), "the next agent will not know what this one has warned of");
        }
        for change in &changes {
            let event = notes::vm_level_changed(&self.id, change, look.unix_ms);
            match change.level {
                HostLevel::Normal => info!("{}", event.text),
                HostLevel::Warning | HostLevel::Exceeded => warn!("{}", event.text),
            }
            self.shared.note(event);
        }
        said.send_modify(|said| said.vm.get_or_insert_default().levels = levels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beam::thresholds::Watched;
    use crate::clock::Time;
    use crate::gauge::Bounds;
    use crate::supervisor::ledger::Ledger;

    #[test]
    fn what_was_passed_is_remembered_and_told_before_its_vm_has_said_anything() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::at(folder.path().to_owned());
        assert!(ledger.levels().unwrap().unwrap_or_default().as_vm().is_none());
        let mut remembered = RememberedLevels { ticket: Ticket(7), levels: Levels::default() };
        let watched = Watched { atom: Some(Bounds { warning: 75, restart: Some(90) }), ..Watched::default() };
        let atoms = Used { count: 950, limit: 1_000 };
        for n in 1..4 {
            remembered.levels.look(&watched, &Look { now: Time(n), unix_ms: n, atoms, ..Look::default() });
        }
        ledger.store_levels(&remembered).unwrap();
        let read = ledger.levels().unwrap().unwrap();
        assert_eq!(read, remembered);
        let told = read.as_vm().unwrap().levels;
        let [level] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((level.r#type.as_str(), level.level()), ("atom", pb::HostLevel::Exceeded));
        assert_eq!((level.count, level.limit, level.since_unix_ms), (950, 1_000, 3));
    }
}
