//! Taking a slot up: what its ledger says and what its lock shows become the state to go on from.

use tracing::{info, warn};

use super::super::acts;
use super::super::assigned::Assigned;
use super::SlotTask;
use crate::clock;
use crate::replica::recover::Found;
use crate::replica::{Event, Ticket};

impl SlotTask {
    pub(super) async fn recover(&mut self) -> anyhow::Result<()> {
        let ledger = self.shared.paths.ledger(&self.id);
        let runtime = match ledger.runtime() {
            Ok(runtime) => runtime,
            // Set aside: the lock still says what runs, and the assignment what is wanted.
            Err(fault) => {
                warn!(fault = %acts::chain(&fault), "the slot's ledger could not be read");
                None
            }
        };
        let same_boot = runtime.as_ref().is_none_or(|it| it.boot_id == self.shared.boot_id);
        let replica = runtime.map(|it| it.replica).unwrap_or_default();
        let (found, keeper, ended) = acts::look(&self.shared.keeper, &self.context.dir).await?;
        let (pre_found, _, pre_ended) =
            acts::look(&self.shared.keeper, &self.shared.paths.pre_dir(&self.id)).await?;
        self.keeper = keeper.map(|it| *it);
        let found = if same_boot { found } else { Found::Nothing };
        let (replica, again) = replica.recover(found, pre_found, same_boot, clock::now());
        self.assigned = Assigned::load(&ledger)?;
        self.replica = replica;
        self.store(true);
        for action in again {
            self.carry_out(action);
        }
        if let (true, Some(ended)) = (same_boot, ended) {
            self.exited(ended);
        }
        if let (true, Some(ended)) = (same_boot, pre_ended) {
            let result = acts::pre_command_result(&self.context, &self.shared, ended);
            self.happen(Event::PreCommandEnded { ticket: Ticket(ended.process.ticket), result });
        } else if let Found::Running { ticket, .. } = pre_found {
            acts::await_pre_command(
                &self.shared,
                &self.context,
                ticket,
                self.killing.clone(),
                self.answers.clone(),
            );
        }
        if let Some(assignment) = self.assigned.assignment() {
            self.happen(Event::Assigned(assignment));
        }
        self.happen(Event::Tick);
        info!(process = ?self.replica.process, "taken up");
        Ok(())
    }
}
