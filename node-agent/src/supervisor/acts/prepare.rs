//! Bringing a release into a slot's `new`: fetched, verified and unpacked once per host, then linked and copied.

use std::sync::Arc;

use proto::pb;
use tokio_util::sync::CancellationToken;

use super::super::Shared;
use super::super::accounts::account;
use super::super::slot::Answer;
use super::owed::{BROKEN_OFF, owed};
use super::{Answers, SlotContext, chain, passed};
use crate::releases::{self, Owner};
use crate::replica::{Event, PrepareFailure, Ticket};

pub(in crate::supervisor) fn prepare(
    shared: &Arc<Shared>,
    context: Arc<SlotContext>,
    ticket: Ticket,
    wanted: Option<(releases::Wanted, pb::Application)>,
    cancel: CancellationToken,
    answers: Answers,
) {
    let owed = owed(
        shared,
        &answers,
        Event::Prepared {
            ticket,
            result: Err(PrepareFailure { error: BROKEN_OFF.to_owned(), permanent: false }),
        },
    );
    let shared = shared.clone();
    let work = async move {
        let Some((wanted, app)) = wanted else {
            let error = "another release is wanted by now".to_owned();
            let result = Err(PrepareFailure { error, permanent: false });
            let _ = answers.send(Answer::Event(Event::Prepared { ticket, result })).await;
            return;
        };
        let result = tokio::select! {
            // What is no longer wanted gets no answer: its ticket means nothing any more.
            biased;
            () = cancel.cancelled() => return,
            result = bring(&shared, &wanted, ticket, &answers) => result,
        };
        let result = match result {
            Ok(unpacked) => {
                passed(&context, &wanted.key, "release: unpacked");
                let result = lay(&shared, &context, &unpacked, &app, &cancel).await;
                passed(&context, &wanted.key, "release: laid");
                result
            }
            Err(failure) => Err(failure),
        };
        let _ = answers.send(Answer::Event(Event::Prepared { ticket, result })).await;
    };
    owed.by(work);
}

async fn bring(
    shared: &Shared,
    wanted: &releases::Wanted,
    ticket: Ticket,
    answers: &Answers,
) -> Result<releases::Unpacked, PrepareFailure> {
    // Progress is for people: what finds no room is left out.
    let progress = |bytes| drop(answers.try_send(Answer::Fetched { ticket, bytes }));
    shared.store.ensure(wanted, shared.fetch.as_ref(), progress).await.map_err(|error| failure(&error))
}

async fn lay(
    shared: &Shared,
    context: &SlotContext,
    unpacked: &releases::Unpacked,
    app: &pb::Application,
    cancel: &CancellationToken,
) -> Result<(), PrepareFailure> {
    let _folders = context.folders.lock().await;
    if cancel.is_cancelled() {
        return Err(PrepareFailure {
            error: "another release is wanted by now".to_owned(),
            permanent: false,
        });
    }
    let account = account(&app.run_as_user, &app.run_as_group)
        .map_err(|error| PrepareFailure { error: chain(&error), permanent: false })?;
    let owner = account.as_ref().map(|it| Owner { uid: it.ids.uid, gid: it.ids.gid });
    shared.store.stage(unpacked, &context.folder, owner).await.map_err(|error| failure(&error))
}

fn failure(error: &releases::StageError) -> PrepareFailure {
    PrepareFailure { error: chain(error), permanent: error.is_permanent() }
}
