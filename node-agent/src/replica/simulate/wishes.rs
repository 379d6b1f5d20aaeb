//! What a control plane asks of the slot at random: releases, none, a restart; and what condemns a process.

use super::*;

impl World {
    pub(super) fn wish(&mut self, wanted: Option<ReleaseKey>, pre_commands: bool) {
        self.generation += 1;
        self.wishes += 1;
        let run_id = format!("run-{}", self.wishes);
        let count = u32::try_from(self.roll(4)).unwrap();
        let wanted = wanted.map(|release| Wanted {
            release,
            fallback: self.way_back(&run_id).map(Box::new),
            hot: self.hot(&run_id).map(Box::new),
            pre_commands: pre_commands.then_some(PreCommands { run_id, count }),
        });
        self.assign(wanted);
    }

    /// To what lies there, or whatever else is said.
    fn way_back(&mut self, rollout: &str) -> Option<Fallback> {
        if !self.hostile || self.roll(2) == 0 {
            return None;
        }
        let number = 1 + self.roll(5);
        let lies = self.current.clone().filter(|_| self.roll(4) > 0);
        let within = 2_000 + self.roll(20_000);
        Some(Fallback {
            rollout: rollout.to_owned(),
            release: lies.unwrap_or_else(|| release(number)),
            within,
        })
    }

    /// Of what lies there, or now and then of something else.
    fn hot(&mut self, attempt: &str) -> Option<Hot> {
        if !self.hot || self.roll(2) == 0 {
            return None;
        }
        let number = 1 + self.roll(5);
        let lies = self.current.clone().filter(|_| !self.fault(8));
        let required = self.fault(3);
        Some(Hot { attempt: attempt.to_owned(), from: lies.unwrap_or_else(|| release(number)), required })
    }

    /// Somebody or nobody answers from now on.
    pub(super) fn link(&mut self, held: bool) -> Checked {
        self.alone_since = (!held).then(|| self.alone_since.unwrap_or(self.now));
        self.feed(Event::Linked { held })
    }

    /// What is wanted is to be started anew.
    pub(super) fn ask_for_a_restart(&mut self) {
        let Some(last) = &self.assigned else { return };
        let wanted = last.wanted.clone();
        self.generation += 1;
        self.restart = Some(format!("restart-{}", self.generation));
        self.assign(wanted);
    }

    /// The process that runs hangs or is too large, or its predecessor did: word of that may come late.
    pub(super) fn condemn(&mut self) {
        let Some(ticket) = self.alive.as_ref().map(|alive| alive.ticket) else { return };
        let ticket = if self.roll(3) == 0 { Ticket(ticket.0.saturating_sub(1)) } else { ticket };
        let charge = if self.roll(2) == 0 { Charge::Unresponsive } else { Charge::OverLimit };
        let condemned = Condemned { charge, because: "it does not answer".to_owned() };
        self.answer(self.agent, Event::Condemned { ticket, condemned });
    }

    pub(super) fn assign(&mut self, wanted: Option<Wanted>) {
        self.starts.clear();
        let restart = self.restart.clone();
        let assignment = Assignment { generation: self.generation, wanted, policy: POLICY, restart };
        // An older one may come late, or once more.
        if let Some(old) = self.assigned.replace(assignment.clone())
            && self.fault(3)
        {
            self.after(5_000, Due::Answer { agent: self.agent, event: Event::Assigned(old) });
        }
        self.after(0, Due::Answer { agent: self.agent, event: Event::Assigned(assignment) });
    }

    pub(super) fn random_wish(&mut self) {
        let wanted = match self.roll(6) {
            0 => None,
            number => Some(release(number.min(5))),
        };
        let pre_commands = self.roll(3) == 0;
        self.wish(wanted, pre_commands);
    }
}
