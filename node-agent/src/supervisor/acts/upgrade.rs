//! The steps of a hot upgrade, carried out one by one in the slot's folder and on its node. What a step does is `hot`'s
//! business; this finds the folder and the node for it, and says what became of it.

use std::sync::Arc;
use std::time::Duration;

use proto::ids::ReleaseKey;
use proto::pb;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::accounts::account;
use super::super::assigned;
use super::super::probe::{Asker, NodeEnd, Probe, prove};
use super::super::{Shared, crash_point};
use super::owed::{BROKEN_OFF, owed};
use super::{Answers, SlotContext, chain, flush};
use crate::clock::Time;
use crate::dist::connection::Connection;
use crate::dist::link::Standing;
use crate::hot::{self, Fault, Site};
use crate::releases::Owner;
use crate::replica::{Event, Step, Ticket, UpgradeFailure};
use crate::supervisor::slot::Answer;

/// A connection that was lost is dialled anew at once, and refused ones after some seconds.
const CONNECTED_WITHIN: Duration = Duration::from_secs(30);
/// A virtual machine that boots answers before it has loaded all that it is made of.
const BOOTED_WITHIN: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Until the application's check has passed: as long as a start may take.
const PROVED_WITHIN: Duration = Duration::from_mins(1);
const ASK: Duration = Duration::from_secs(10);

/// What is upgraded, and with what it was started.
pub(in crate::supervisor) struct Subject {
    pub(in crate::supervisor) from: ReleaseKey,
    pub(in crate::supervisor) to: ReleaseKey,
    pub(in crate::supervisor) app: pb::Application,
    pub(in crate::supervisor) node: Option<NodeEnd>,
    /// Settings that have changed since; none where it may be nothing but hot: what runs is to be kept then, and they go on waiting.
    pub(in crate::supervisor) waiting: Vec<String>,
}

/// `checks`: what has to pass before the upgrade is good.
pub(in crate::supervisor) fn upgrade(
    shared: &Arc<Shared>,
    context: Arc<SlotContext>,
    (ticket, step): (Ticket, Step),
    subject: Subject,
    checks: (Vec<Probe>, Asker),
    answers: Answers,
) {
    let broken = failure(step, BROKEN_OFF.to_owned(), false, step.changes_what_runs());
    let owed = owed(shared, &answers, Event::Upgraded { ticket, result: Err(broken) });
    let shared = shared.clone();
    let cancel = shared.cancel.clone();
    let work = async move {
        let (upgrading, folders) = (context.upgrading.lock().await, context.folders.lock().await);
        let place = |what: &str| format!("{} {} {} {what}", context.id, subject.to.version, step.word());
        crash_point::here(|| place("step: to be done"));
        let work = Work { context: &context, subject: &subject };
        let result = match step {
            Step::Prove => {
                let (probes, asker) = &checks;
                prove(probes, asker, PROVED_WITHIN)
                    .await
                    .map_err(|because| failure(step, because, true, true))
            }
            Step::Install | Step::Permanent => work.change(step).await,
            step => work.step(step).await.map_err(|fault| of_fault(step, &fault, step.changes_what_runs())),
        };
        crash_point::here(|| place("step: done"));
        drop((upgrading, folders));
        if step.changes_what_runs() {
            context.upgrades.send_modify(|it| *it = it.wrapping_add(1));
        }
        let done = result.is_ok() && step == Step::Permanent;
        let _ = answers.send(Answer::Event(Event::Upgraded { ticket, result })).await;
        if done {
            flush(&shared, &context);
            // Nobody waits for it, and what cannot be removed now is by the next one.
            let (_upgrading, _folders) = (context.upgrading.lock().await, context.folders.lock().await);
            work.tidy().await;
        }
    };
    owed.by(until(cancel, work));
}

pub(in crate::supervisor) fn undo_upgrade(
    shared: &Arc<Shared>,
    context: Arc<SlotContext>,
    ticket: Ticket,
    node: Option<NodeEnd>,
    answers: Answers,
) {
    let broken = failure(Step::Lay, BROKEN_OFF.to_owned(), false, true);
    let owed = owed(shared, &answers, Event::Upgraded { ticket, result: Err(broken) });
    let cancel = shared.cancel.clone();
    let work = async move {
        let (_upgrading, _folders) = (context.upgrading.lock().await, context.folders.lock().await);
        crash_point::here(|| format!("{} upgrade: to be undone", context.id));
        let result = match hot::pending(&context.folder.current()) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => match connected(node.as_ref()).await {
                Ok(connection) => hot::undo(Some(&connection), &context.folder.current()).await,
                Err(fault) => Err(fault),
            },
            Err(fault) => Err(fault),
        };
        crash_point::here(|| format!("{} upgrade: undone", context.id));
        let result = result.map_err(|fault| of_fault(Step::Lay, &fault, true));
        let _ = answers.send(Answer::Event(Event::Upgraded { ticket, result })).await;
    };
    owed.by(until(cancel, work));
}

/// A step takes minutes where a node does not answer, and an agent that is to end leaves it as its death would: the next one looks
/// what came of it.
async fn until(cancel: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = cancel.cancelled() => {}
    }
}

/// What an upgrade has left whose process has ended: nothing runs in the slot, and what starts next is what `current` is said
/// to be.
pub(super) async fn leave_no_upgrade(context: &SlotContext) -> Result<(), Fault> {
    let current = context.folder.current();
    match hot::pending(&current)? {
        None => Ok(()),
        Some(_) => hot::undo(None, &current).await,
    }
}

fn failure(step: Step, because: String, of_package: bool, spoiled: bool) -> UpgradeFailure {
    UpgradeFailure { step, because, of_package, spoiled }
}

fn of_fault(step: Step, fault: &Fault, spoiled: bool) -> UpgradeFailure {
    failure(step, chain(fault), fault.is_of_package(), spoiled)
}

struct Work<'a> {
    context: &'a SlotContext,
    subject: &'a Subject,
}

impl Work<'_> {
    fn site(&self) -> Result<Site, Fault> {
        let Subject { from, to, app, .. } = self.subject;
        let account =
            account(&app.run_as_user, &app.run_as_group).map_err(|error| Fault::here(chain(&error)))?;
        let language = assigned::language(app.language());
        Ok(Site {
            root: self.context.folder.current(),
            incoming: self.context.folder.incoming(),
            app: app.name.clone(),
            language: language.ok_or_else(|| Fault::here("its language is not known".to_owned()))?,
            from: from.version.to_string(),
            to: to.version.to_string(),
            owner: account.map(|it| Owner { uid: it.ids.uid, gid: it.ids.gid }),
        })
    }

    async fn connected(&self) -> Result<Connection, Fault> {
        connected(self.subject.node.as_ref()).await
    }

    /// Who has changed a setting counts on it from this deployment on.
    fn brings_what_is_wanted(&self) -> Result<(), Fault> {
        match self.subject.waiting.join(", ") {
            none if none.is_empty() => Ok(()),
            some => Err(Fault::here(format!(
                "{some} changed since it was started, which no hot upgrade brings: it is deployed in full"
            ))),
        }
    }

    async fn step(&self, step: Step) -> Result<(), Fault> {
        let site = self.site()?;
        let connection = self.connected().await?;
        if step < Step::Install {
            booted(&connection).await?;
            let standing = hot::standing(&connection, &site).await?;
            // It was installed by an agent that could not say so.
            if standing.current == site.to {
                return Ok(());
            }
        }
        match step {
            Step::Lay => {
                self.brings_what_is_wanted()?;
                hot::lay(&site).await
            }
            Step::Unpack => hot::unpack(&connection, &site).await,
            Step::Relup => hot::relup(&connection, &site).await,
            Step::Check => hot::check(&connection, &site).await,
            Step::Configure => hot::configure(&connection, &site).await,
            Step::Install => hot::install(&connection, &site).await,
            Step::Prove => Ok(()),
            Step::Permanent => {
                hot::permanent(&connection, &site).await?;
                let folder = &self.context.folder;
                let said = folder.becomes(&self.subject.to).await;
                said.map_err(|error| Fault::here(chain(&error)))?;
                hot::settle(&site).await?;
                folder.clear_new().await.map_err(|error| Fault::here(chain(&error)))
            }
        }
    }

    /// A step that changes what runs, or is to last. One that failed may have changed nothing: then it can be undone, and the
    /// process goes on. One that was not answered, in time or before the connection was lost, is asked for once more where the
    /// process lived on: it says what came of it.
    async fn change(&self, step: Step) -> Result<(), UpgradeFailure> {
        let began = crate::clock::now();
        let Err(mut fault) = self.step(step).await else { return Ok(()) };
        let mut stands = self.stands(began).await;
        if fault.is_unanswered() && stands.is_some() {
            tracing::info!(fault = chain(&fault), step = step.word(), "it is looked what came of it");
            let Err(again) = self.step(step).await else { return Ok(()) };
            (fault, stands) = (again, self.stands(began).await);
        }
        let untouched = step == Step::Install
            && stands.is_some_and(|current| current == self.subject.from.version.as_str())
            && !fault.has_touched_what_runs()
            && !fault.is_unanswered();
        Err(of_fault(step, &fault, !untouched))
    }

    /// The release that runs in the process that ran when it `began`. `None`: it has ended since, or nobody knows.
    async fn stands(&self, began: Time) -> Option<String> {
        let looked = async {
            let site = self.site()?;
            let connection = self.connected().await?;
            let status = status(&connection).await?;
            let standing = hot::standing(&connection, &site).await?;
            let lived_on = status == STARTED && standing.up_ms > crate::clock::now().since(began);
            Ok::<_, Fault>(lived_on.then_some(standing.current))
        };
        looked.await.ok().flatten()
    }

    async fn tidy(&self) {
        let tidied = async {
            let site = self.site()?;
            hot::tidy(&self.connected().await?, &site).await
        };
        match tidied.await {
            Ok(gone) if gone.is_empty() => {}
            Ok(gone) => {
                tracing::info!(releases = gone.join(", "), "older releases were removed from the slot");
            }
            Err(fault) => tracing::warn!(fault = chain(&fault), "older releases stay in the slot"),
        }
    }
}

/// How a virtual machine stands that has booted and is not about to end.
const STARTED: &str = "started";

async fn status(connection: &Connection) -> Result<String, Fault> {
    let status = connection.call("init", "get_status", Vec::new(), ASK).await;
    let status =
        status.map_err(|error| Fault::here(format!("its node does not answer: {}", chain(&error))))?;
    let word = status.as_tuple().and_then(|it| it.first()).and_then(|it| it.as_atom());
    Ok(word.unwrap_or_default().to_owned())
}

async fn booted(connection: &Connection) -> Result<(), Fault> {
    let booted = timeout(BOOTED_WITHIN, async {
        while status(connection).await? != STARTED {
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    });
    let late = || Fault::here(format!("its node was not up within {} s", BOOTED_WITHIN.as_secs()));
    booted.await.unwrap_or_else(|_| Err(late()))
}

/// To the node, where there is one; waits a while for it.
async fn connected(node: Option<&NodeEnd>) -> Result<Connection, Fault> {
    let Some(NodeEnd { standing, said }) = node else {
        return Err(Fault::here("it is no Erlang node, so that nothing can be brought into it".to_owned()));
    };
    let mut standing = standing.clone();
    let found =
        timeout(CONNECTED_WITHIN, standing.wait_for(|it| matches!(it, Standing::Connected { .. }))).await;
    if let Ok(Ok(now)) = &found
        && let Standing::Connected { connection, .. } = &**now
    {
        return Ok(connection.for_another());
    }
    drop(found);
    let because = said.borrow().node.as_ref().map(|it| it.because.clone()).filter(|it| !it.is_empty());
    let because = because.unwrap_or_else(|| match &*standing.borrow() {
        Standing::Without(reason) => chain(reason),
        Standing::Dialling | Standing::Connected { .. } => {
            "it is no Erlang node, or has not answered yet".to_owned()
        }
    });
    Err(Fault::here(format!("its node cannot be reached: {because}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_agent_that_is_to_end_waits_for_no_step() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        until(cancel, std::future::pending()).await;
    }
}
