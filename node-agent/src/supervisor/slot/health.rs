//! Asking whether the process of a slot is ready, and once it was whether it still answers, for as long as there is one.

use proto::ids::ReleaseKey;
use proto::pb;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::super::listeners::{Ports, vouch};
use super::super::probe::{self, Asker, Watch, watch};
use super::super::{acts, assigned, notes};
use super::{Answer, SlotTask};
use crate::clock;
use crate::replica::report::FailedCheck;
use crate::replica::{Health, Process, Ticket};

/// Answers of a list of probes that wait until it is seen who gave them.
const CHECKS: usize = 8;

/// Who is asked now, by both lists of probes.
#[derive(Debug, Default)]
pub(super) struct Watches {
    ready: Option<(Ticket, CancellationToken)>,
    live: Option<(Ticket, CancellationToken)>,
}

/// The last check that failed, and of whom.
#[derive(Debug)]
pub(super) struct Failed {
    release: ReleaseKey,
    ticket: Ticket,
    check: FailedCheck,
}

fn ticket(watch: Option<&(Ticket, CancellationToken)>) -> Option<Ticket> {
    watch.map(|(ticket, _)| *ticket)
}

fn end(watch: &mut Option<(Ticket, CancellationToken)>) {
    if let Some((_, cancel)) = watch.take() {
        cancel.cancel();
    }
}

impl SlotTask {
    /// A process that runs is asked whether it is ready; one that does not is not.
    pub(super) fn watch_health(&mut self) {
        let running = match self.replica.process {
            // Also while it drains: it may be up again.
            Process::Up { ticket, health, .. } | Process::Draining { ticket, health, .. } => {
                Some((ticket, health))
            }
            _ => None,
        };
        self.watch_node(running.map(|(ticket, _)| (ticket, self.running_pid())));
        self.watch_readiness(running);
        self.watch_liveness(running);
    }

    fn watch_readiness(&mut self, running: Option<(Ticket, Health)>) {
        if running.map(|(ticket, _)| ticket) == ticket(self.watches.ready.as_ref()) {
            return;
        }
        end(&mut self.watches.ready);
        let Some((ticket, health)) = running else {
            self.launched_with = None;
            self.unconfined = [None, None];
            // Who held its port may be why it ended: that is said until it runs again, or is not to.
            if !matches!(self.replica.process, Process::BackingOff { .. } | Process::Launching { .. }) {
                self.port_held = None;
            }
            return;
        };
        self.confine();
        self.launched_with = self.shared.paths.ledger(&self.id).deployed().unwrap_or_else(|fault| {
            warn!(fault = %acts::chain(&fault), "the settings of what runs are not known; those of the assignment count");
            None
        });
        self.publish();
        let settings = self.launched_with.clone().or_else(|| self.assigned.application());
        let probes = probe::ready(settings.as_ref(), self.id.slot.number());
        // What an agent before found ready is so until a check fails, and what it found unready until one passes.
        let passes = matches!(health, Health::Ready { .. });
        let ports = assigned::ports(settings.as_ref(), self.id.slot.number());
        let ports = Ports {
            id: self.id.clone(),
            pid: self.running_pid(),
            numbers: ports.into_iter().map(|(_, port)| port).collect(),
            checked: probes.iter().filter_map(probe::Probe::port).collect(),
            slots: self.shared.paths.slots(),
        };
        let asker = self.asker(settings.unwrap_or_default());
        let (sender, checks) = mpsc::channel(CHECKS);
        let cancel = self.begin(Watch { ticket, liveness: false, probes, passes, asker }, sender);
        self.shared.tracker.spawn(vouch(ports, ticket, checks, self.answers.clone(), cancel.clone()));
        self.watches.ready = Some((ticket, cancel));
    }

    /// From the first time that the process was ready: how long a start may take is not a question of liveness.
    fn watch_liveness(&mut self, running: Option<(Ticket, Health)>) {
        let wished = self.assigned.is_asked_live();
        let was_ready = running.filter(|(_, health)| wished && *health != Health::Starting);
        if was_ready.map(|(ticket, _)| ticket) == ticket(self.watches.live.as_ref()) {
            return;
        }
        end(&mut self.watches.live);
        let Some((ticket, _)) = was_ready else { return };
        let settings = self.launched_with.clone().or_else(|| self.assigned.application());
        let probes = probe::live(settings.as_ref(), self.id.slot.number());
        if probes.is_empty() {
            return;
        }
        let asker = self.asker(settings.unwrap_or_default());
        let begun = Watch { ticket, liveness: true, probes, passes: true, asker };
        self.watches.live = Some((ticket, self.begin(begun, self.answers.clone())));
    }

    pub(super) fn asker(&self, app: pb::Application) -> Asker {
        let pid = self.running_pid();
        let node = self.node_end();
        Asker { shared: self.shared.clone(), context: self.context.clone(), pid, node, app }
    }

    fn running_pid(&self) -> u32 {
        match self.replica.process {
            Process::Up { pid, .. } | Process::Draining { pid, .. } => pid,
            _ => 0,
        }
    }

    fn begin(&self, begun: Watch, answers: mpsc::Sender<Answer>) -> CancellationToken {
        let cancel = self.shared.cancel.child_token();
        self.shared.tracker.spawn(watch(begun, answers, cancel.clone()));
        cancel
    }

    /// Told once for each stranger; the report says it for as long as it is so.
    pub(super) fn port_is_held(&mut self, asked: Ticket, held: Option<String>) {
        if ticket(self.watches.ready.as_ref()) != Some(asked) || self.port_held == held {
            return;
        }
        if let Some(fault) = &held {
            warn!(fault, "a port of this slot is another's");
            self.shared.note(notes::port_held(&self.id, fault, clock::unix_ms()));
        }
        self.port_held = held;
        self.publish();
    }

    /// A check that failed, or that failed before and has passed since.
    pub(super) fn checked(&mut self, asked: Ticket, check: FailedCheck) {
        let Process::Up { ticket, .. } = self.replica.process else { return };
        let Some(current) = self.replica.current.as_ref().filter(|_| ticket == asked) else { return };
        self.failed_check = Some(Failed { release: current.release.clone(), ticket, check });
        self.publish();
    }

    /// The process is ready. What failed until it was for the first time was its start, and no failure; what failed before is
    /// over, save where it still answers badly to the other list.
    pub(super) fn passes_again(&mut self, ready: Ticket) {
        let has_started = matches!(self.replica.process, Process::Up { health: Health::Starting, .. });
        let of_this = |it: &Failed| it.ticket == ready && !it.check.liveness;
        self.failed_check.take_if(|it| has_started && of_this(it));
        if let Some(Failed { ticket, check, .. }) = &mut self.failed_check
            && (*ticket != ready || !check.liveness)
        {
            check.in_a_row = 0;
        }
    }

    /// The last of what lies here: of an earlier release nobody wants to know.
    pub(super) fn failed_check(&self) -> Option<&FailedCheck> {
        let Failed { release, check, .. } = self.failed_check.as_ref()?;
        let current = self.replica.current.as_ref()?;
        (current.release == *release).then_some(check)
    }
}
