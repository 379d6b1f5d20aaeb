//! Makes the upstream files say what they should, and NGINX read them: written whole or not at all, checked, put back where the
//! check fails, reloaded only on change. One thing after the other.
//!
//! What is under way outlives the agent (`pending`): the next one finds by it what the file held before, and that NGINX may
//! not have read it yet. Where there is no room for that the file is written all the same: nobody is sent to a replica that
//! ended because a disk is full.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use proto::ids::AppName;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tracing::{info, warn};

use super::super::acts::chain;
use super::super::{Shared, notes};
use super::command::{CommandError, Commands, run};
use super::damping::Damping;
use super::file::{FileError, put_back, read, replace};
use super::upstream::{Plan, Upstream, plans};
use super::workers::{Before, WorksOn};
use super::{Table, Traffic};
use crate::clock::{self, Time};

/// What could not be brought into force is tried again after this, doubling …
const AGAIN_MIN: u64 = 1_000;
/// … to this: who mends NGINX's configuration sees it soon.
const AGAIN_MAX: u64 = 30_000;

#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("NGINX refuses the new {}, and it is as it was before", path.display())]
    Refused {
        path: PathBuf,
        #[source]
        source: CommandError,
    },
    #[error("NGINX is not reloaded")]
    Reload(#[source] CommandError),
    #[error("NGINX sends requests as it did before")]
    NotTaken(#[source] WorksOn),
    #[error(transparent)]
    Command(CommandError),
}

/// A file that was replaced and is not in force yet. On the disk for the next agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::supervisor) struct Pending {
    file: PathBuf,
    /// What it held when NGINX last took it; `None`: it was not there.
    before: Option<String>,
}

/// What this task knows of one application's file.
#[derive(Debug, Default)]
struct Kept {
    /// The record on the disk was looked for.
    looked: bool,
    pending: Option<Pending>,
    /// What passed the check last while it is pending: a refused one gives way to that, whether NGINX has read it or not.
    passed: Option<String>,
    /// NGINX was told to read the file while it is pending, or may have been: which text it goes by is not known.
    asked: bool,
    failed: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    of: Upstream,
    attempts: u32,
    again: Time,
}

/// Until the agent stops.
pub(in crate::supervisor) async fn keep(shared: Arc<Shared>) {
    let mut table = shared.traffic.table.subscribe();
    let mut keeper = Keeper::new(shared.clone());
    loop {
        let now = table.borrow_and_update().clone();
        let again = tokio::select! {
            // A command that is cut off is run again by the next agent: what is under way is on the disk.
            biased;
            () = shared.cancel.cancelled() => return,
            again = keeper.round(&now) => again,
        };
        tokio::select! {
            biased;
            () = shared.cancel.cancelled() => return,
            Ok(()) = table.changed() => {}
            () = sleep(again.map_or_else(Default::default, |it| it.wait_from(clock::now()))), if again.is_some() => {}
        }
    }
}

struct Keeper {
    shared: Arc<Shared>,
    kept: BTreeMap<AppName, Kept>,
    damping: Damping,
}

impl Keeper {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, kept: BTreeMap::new(), damping: Damping::default() }
    }

    fn traffic(&self) -> &Traffic {
        &self.shared.traffic
    }

    /// Brings into force what the table says. When something is to be tried again, if anything is.
    async fn round(&mut self, table: &Table) -> Option<Time> {
        let now = clock::now();
        let (slots, over) = self.damping.damp(&table.slots, now);
        let plans = plans(&slots, now);
        let mut again: Vec<Time> = over.into_iter().collect();
        // By the command that makes NGINX read them.
        let mut reloads: BTreeMap<&str, Vec<(&AppName, &Upstream)>> = BTreeMap::new();
        for (app, plan) in &plans {
            match plan {
                Plan::Wait { until } => {
                    self.rest(app);
                    again.push(*until);
                }
                Plan::Nothing => {
                    self.let_go(app);
                    self.in_force(app, table.revision, None);
                }
                Plan::Fault(fault) => {
                    self.rest(app);
                    self.not_in_force(app, fault);
                }
                Plan::Keep(upstream) => match self.write(app, upstream).await {
                    Written::Same => self.in_force(app, table.revision, upstream.fault.as_deref()),
                    Written::ToReload => reloads.entry(&upstream.reload).or_default().push((app, upstream)),
                    Written::Later => {}
                },
            }
        }
        for (line, of) in reloads {
            match reload(line).await {
                Ok(()) => {
                    for (app, upstream) in of {
                        info!(%app, file = %upstream.file.display(), "NGINX reads the new upstream file");
                        self.forget_pending(app);
                        self.in_force(app, table.revision, upstream.fault.as_deref());
                    }
                }
                Err(error) => {
                    let fault = chain(&error);
                    for (app, upstream) in of {
                        self.failed(app, upstream, &fault);
                    }
                }
            }
        }
        let named: BTreeSet<&AppName> = plans.keys().collect();
        self.kept.retain(|app, _| named.contains(app));
        again.extend(self.kept.values().filter_map(|it| Some(it.failed.as_ref()?.again)));
        again.into_iter().min()
    }

    /// The file itself, and NGINX's word on it.
    async fn write(&mut self, app: &AppName, upstream: &Upstream) -> Written {
        self.look_for_pending(app, upstream);
        let kept = self.kept.entry(app.clone()).or_default();
        if let Some(failure) = &kept.failed
            && failure.of == *upstream
            && clock::now() < failure.again
        {
            return Written::Later;
        }
        match self.replace_and_check(app, upstream).await {
            Ok(written) => written,
            Err(error) => {
                self.failed(app, upstream, &chain(&error));
                Written::Later
            }
        }
    }

    async fn replace_and_check(&mut self, app: &AppName, upstream: &Upstream) -> Result<Written, KeepError> {
        let Upstream { file, reload, .. } = upstream;
        let commands = Commands::of(reload, rustix::process::geteuid().is_root());
        let commands = commands.map_err(KeepError::Command)?;
        let present = read(file)?;
        let text = &upstream.text(present.as_deref());
        let kept = self.kept.entry(app.clone()).or_default();
        let is_there = present.as_ref() == Some(text);
        if is_there && kept.pending.is_none() {
            return Ok(Written::Same);
        }
        if !is_there {
            let pending = match kept.pending.take().filter(|it| it.file == *file) {
                Some(pending) => pending,
                None => {
                    kept.passed = None;
                    Pending { file: file.clone(), before: present }
                }
            };
            kept.pending = Some(pending.clone());
            let ledger = self.shared.paths.traffic_ledger(app);
            if let Err(fault) = ledger.create().and_then(|()| ledger.store_pending(&pending)) {
                warn!(fault = %chain(&fault), "that an upstream file is being replaced cannot be noted");
            }
            replace(file, text)?;
        }
        if let Some(check) = &commands.check
            && let Err(source) = run(check).await
        {
            let kept = self.kept.entry(app.clone()).or_default();
            if let Some(pending) = &kept.pending {
                let good = kept.passed.as_ref().filter(|it| *it != text).or(pending.before.as_ref());
                put_back(&pending.file, good.map(String::as_str))?;
            }
            // Else what was put back is still to be read.
            if !kept.asked {
                self.forget_pending(app);
            }
            return Err(KeepError::Refused { path: file.clone(), source });
        }
        let kept = self.kept.entry(app.clone()).or_default();
        kept.passed = Some(text.clone());
        kept.asked = true;
        Ok(Written::ToReload)
    }

    /// What the agent before had under way.
    fn look_for_pending(&mut self, app: &AppName, upstream: &Upstream) {
        let kept = self.kept.entry(app.clone()).or_default();
        if std::mem::replace(&mut kept.looked, true) {
            return;
        }
        match self.shared.paths.traffic_ledger(app).pending() {
            Ok(pending) => {
                kept.pending = pending.filter(|it| it.file == upstream.file);
                kept.asked = kept.pending.is_some();
            }
            Err(fault) => {
                warn!(fault = %chain(&fault), "what the agent before did to an upstream file is not known");
            }
        }
    }

    fn forget_pending(&mut self, app: &AppName) {
        if let Some(kept) = self.kept.get_mut(app) {
            kept.pending = None;
            kept.passed = None;
            kept.asked = false;
        }
        if let Err(fault) = self.shared.paths.traffic_ledger(app).remove_pending() {
            warn!(fault = %chain(&fault), "an upstream file will be checked and read once more by the next agent");
        }
    }

    /// Its file stays as it is: whoever took the key out of the configuration may have taken over the file, and an NGINX whose
    /// upstream is gone does not start.
    fn let_go(&mut self, app: &AppName) {
        if self.kept.remove(app).is_some() {
            self.forget_pending(app);
        }
    }

    /// There is nothing to try again: whatever it was that failed is not wanted any more.
    fn rest(&mut self, app: &AppName) {
        if let Some(kept) = self.kept.get_mut(app) {
            kept.failed = None;
        }
    }

    fn in_force(&mut self, app: &AppName, revision: u64, fault: Option<&str>) {
        self.rest(app);
        self.traffic().in_force.send_if_modified(|it| it.insert(app.clone(), revision) != Some(revision));
        match fault {
            Some(fault) => {
                self.fault(app, &format!("the upstream file does not say all that it should: {fault}"));
            }
            None => drop(self.traffic().faults.send_if_modified(|it| it.remove(app).is_some())),
        }
    }

    fn failed(&mut self, app: &AppName, upstream: &Upstream, fault: &str) {
        let kept = self.kept.entry(app.clone()).or_default();
        let attempts = kept.failed.as_ref().filter(|it| it.of == *upstream).map_or(0, |it| it.attempts);
        let pause = AGAIN_MIN.saturating_mul(1 << attempts.min(16)).min(AGAIN_MAX);
        let again = clock::now().plus(pause);
        kept.failed = Some(Failure { of: upstream.clone(), attempts: attempts.saturating_add(1), again });
        self.not_in_force(app, &format!("{fault}; it is tried again"));
    }

    fn not_in_force(&self, app: &AppName, why: &str) {
        self.fault(app, &format!("the upstream file is not in force: {why}"));
    }

    /// In the report of each of its slots for as long as it lasts, and once as an event.
    fn fault(&self, app: &AppName, fault: &str) {
        let is_new = self
            .traffic()
            .faults
            .send_if_modified(|it| it.insert(app.clone(), fault.to_owned()).as_deref() != Some(fault));
        if is_new {
            warn!(%app, fault, "NGINX does not send requests as it should");
            self.shared.note(notes::traffic_failed(app, fault, clock::unix_ms()));
        }
    }
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// It says so already, and NGINX has read it.
    Same,
    ToReload,
    /// It failed, and is tried again.
    Later,
}

async fn reload(line: &str) -> Result<(), KeepError> {
    let commands = Commands::of(line, false).map_err(KeepError::Command)?;
    let before = Before::look();
    run(&commands.reload).await.map_err(KeepError::Reload)?;
    before.turned_over().await.map_err(KeepError::NotTaken)
}

#[cfg(test)]
mod tests;
