//! Pre-commands: each a process of its own under a keeper of its own, so that it too outlives the agent.

use std::sync::Arc;

use proto::pb;
use proto::state::ExitCause;
use tokio_util::sync::CancellationToken;

use super::super::Shared;
use super::super::assigned;
use super::super::launch;
use super::super::process::{self, Confinement, Ended, Keeper, LaunchError};
use super::super::slot::Answer;
use super::owed::{BROKEN_OFF, owed};
use super::places::{lay_out_tls, spec, surroundings, write_cookie};
use super::printed::{mark, printed};
use super::{Answers, REMAINS, SlotContext, chain, look};
use crate::replica::recover::Found;
use crate::replica::{Event, PreCommandFailure, Ticket};

pub(in crate::supervisor) fn run_pre_command(
    shared: &Arc<Shared>,
    context: Arc<SlotContext>,
    ticket: Ticket,
    command: Option<(String, pb::Application)>,
    kill: CancellationToken,
    answers: Answers,
) {
    let owed =
        owed(shared, &answers, Event::PreCommandEnded { ticket, result: Err(failed(BROKEN_OFF.to_owned())) });
    let shared = shared.clone();
    let work = async move {
        let result = match command {
            None => Err(failed("another release is wanted by now".to_owned())),
            Some((line, app)) => start_pre_command(&shared, &context, ticket, &line, &app, &kill).await,
        };
        if let Some(result) = result.transpose() {
            let _ = answers.send(Answer::Event(Event::PreCommandEnded { ticket, result })).await;
        }
    };
    owed.by(work);
}

/// `Ok(None)`: the agent stops; the command goes on and is found by the next one.
async fn start_pre_command(
    shared: &Shared,
    context: &SlotContext,
    ticket: Ticket,
    line: &str,
    app: &pb::Application,
    kill: &CancellationToken,
) -> Result<Option<String>, PreCommandFailure> {
    if kill.is_cancelled() {
        return Err(failed(format!("`{line}` was stopped before it began")));
    }
    let dir = shared.paths.pre_dir(&context.id);
    let work = async {
        let around = surroundings(shared, context, app, context.folder.incoming())?;
        let command = launch::pre_command(app, context.id.slot.number(), &around.places, &around.host, line)?;
        write_cookie(&around.places, &launch::cookie(app, &around.host), around.account.as_ref())?;
        lay_out_tls(shared, context, app, &around).await?;
        let logs = shared.paths.pre_logs(&context.id);
        anyhow::Ok(spec(ticket, command, &around, logs))
    };
    let spec =
        work.await.map_err(|error| failed(format!("`{line}` cannot be run: {}", chain(error.as_ref()))))?;
    let cannot = |error: String| failed(format!("`{line}` cannot be run: {error}"));
    mark(shared, context, ticket);
    let mut gone_before = false;
    // It works for the application and is bounded as a replica of it, beside the one that runs.
    let name = format!("{}-{}-pre-{}", context.id.app, context.id.slot, ticket.0);
    let confinement = Confinement { name, limits: assigned::limits(Some(app)) };
    let keeper = loop {
        match process::launch(&shared.standby, &dir, &spec, Some(&confinement)).await {
            Ok(keeper) => break keeper,
            Err(LaunchError::Held { .. }) => {}
            Err(error) => return Err(cannot(chain(&error))),
        }
        let (found, other, ended) =
            look(shared.keepers(), &dir).await.map_err(|error| cannot(chain(&error)))?;
        match (meet(found, ticket, gone_before), other, ended) {
            (Meeting::Ours, Some(keeper), _) => break *keeper,
            (Meeting::Ours, None, Some(ended)) => return outcome(shared, context, ended, line).map(Some),
            (Meeting::Another, Some(mut other), _) => {
                other.kill();
                tokio::select! {
                    biased;
                    () = shared.cancel.cancelled() => return Ok(None),
                    _ = other.ended() => {}
                    () = kill.cancelled() => return Err(failed(format!("`{line}` could not begin: {REMAINS}"))),
                }
            }
            (Meeting::Gone, ..) => gone_before = true,
            _ => return Err(cannot(REMAINS.to_owned())),
        }
    };
    finish_pre_command(shared, context, keeper, kill, line).await
}

/// Whom a launch met that found the place taken.
#[derive(Debug, PartialEq, Eq)]
enum Meeting {
    /// The same command, started by an earlier agent in answer to the same asking; it may be over by now.
    Ours,
    /// One that was given up and still runs: it goes first.
    Another,
    /// Who ended between the launch and this look: the place may be free now.
    Gone,
    /// The place is taken and nobody is there. A launch has waited as long as an ending may take.
    Remains,
}

fn meet(found: Found, ours: Ticket, gone_before: bool) -> Meeting {
    match found {
        Found::Running { ticket, .. } | Found::Ended { ticket, .. } if ticket == ours => Meeting::Ours,
        Found::Running { .. } => Meeting::Another,
        Found::Ended { .. } | Found::Nothing if gone_before => Meeting::Remains,
        Found::Ended { .. } | Found::Nothing => Meeting::Gone,
    }
}

async fn finish_pre_command(
    shared: &Shared,
    context: &SlotContext,
    mut keeper: Keeper,
    kill: &CancellationToken,
    line: &str,
) -> Result<Option<String>, PreCommandFailure> {
    let ended = tokio::select! {
        // An agent that stops leaves it running, whatever else was asked for at that moment.
        biased;
        () = shared.cancel.cancelled() => return Ok(None),
        ended = keeper.ended() => ended,
        () = kill.cancelled() => {
            keeper.kill();
            keeper.ended().await
        }
    };
    outcome(shared, context, ended, line).map(Some)
}

/// A command that an earlier agent started.
pub(in crate::supervisor) fn await_pre_command(
    shared: &Arc<Shared>,
    context: &Arc<SlotContext>,
    (ticket, line): (Ticket, String),
    kill: CancellationToken,
    answers: Answers,
) {
    let (shared, context) = (shared.clone(), context.clone());
    let owed = owed(
        &shared,
        &answers,
        Event::PreCommandEnded { ticket, result: Err(failed(BROKEN_OFF.to_owned())) },
    );
    let work = async move {
        let dir = shared.paths.pre_dir(&context.id);
        let result = match look(shared.keepers(), &dir).await {
            Ok((_, Some(keeper), _)) => finish_pre_command(&shared, &context, *keeper, &kill, &line).await,
            Ok((_, None, Some(ended))) => outcome(&shared, &context, ended, &line).map(Some),
            Ok((_, None, None)) => Err(failed("its end left no trace".to_owned())),
            Err(error) => Err(failed(chain(&error))),
        };
        if let Some(result) = result.transpose() {
            let _ = answers.send(Answer::Event(Event::PreCommandEnded { ticket, result })).await;
        }
    };
    owed.by(work);
}

pub(in crate::supervisor) fn pre_command_result(
    context: &SlotContext,
    shared: &Shared,
    ended: Ended,
    line: &str,
) -> Result<String, PreCommandFailure> {
    outcome(shared, context, ended, line)
}

fn outcome(
    shared: &Shared,
    context: &SlotContext,
    ended: Ended,
    line: &str,
) -> Result<String, PreCommandFailure> {
    let output = printed(shared, context, &ended, line);
    match ended.cause {
        ExitCause::Code(0) => Ok(output),
        cause => Err(PreCommandFailure { error: format!("`{line}` ended with {cause}"), output }),
    }
}

fn failed(error: String) -> PreCommandFailure {
    PreCommandFailure { error, output: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_ends_while_another_is_to_begin_is_no_obstacle() {
        let (ours, other, pid) = (Ticket(2), Ticket(1), 7);
        let ended = |ticket| Found::Ended { ticket, cause: ExitCause::Code(0) };
        assert_eq!(meet(Found::Running { ticket: other, pid }, ours, false), Meeting::Another);
        for gone in [ended(other), Found::Nothing] {
            assert_eq!(meet(gone, ours, false), Meeting::Gone);
            // Not for ever: somebody holds the place whom no look finds.
            assert_eq!(meet(gone, ours, true), Meeting::Remains);
        }
        for own in [Found::Running { ticket: ours, pid }, ended(ours)] {
            assert_eq!(meet(own, ours, true), Meeting::Ours);
        }
    }
}
