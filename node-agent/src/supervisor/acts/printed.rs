//! What one pre-command printed: all of a slot's write into the same files, and of those it is the part since it was begun.
//!
//! Where it was begun is written down beside the ledger, because the agent that sees its end may be another one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::super::Shared;
use super::super::process::Ended;
use super::last_words::{Begin, last_words_from};
use super::{SlotContext, chain};
use crate::clock;
use crate::replica::Ticket;

/// Of a command, in characters: enough to tell it from the others.
const LINE_MAX: usize = 200;

/// How long the log files were when a pre-command was begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::supervisor) struct Mark {
    ticket: u64,
    from: Vec<Begin>,
}

/// Before it is launched. One that an earlier agent has launched already keeps its mark.
pub(super) fn mark(shared: &Shared, context: &SlotContext, ticket: Ticket) {
    let ledger = shared.paths.ledger(&context.id);
    if ledger.mark().ok().flatten().is_some_and(|it| it.ticket == ticket.0) {
        return;
    }
    let long = |path: PathBuf| fs::metadata(path).map_or_else(|_| Begin::default(), |it| end_of(&it));
    let from = shared.paths.pre_logs(&context.id).map(long).to_vec();
    if let Err(fault) = ledger.store_mark(&Mark { ticket: ticket.0, from }) {
        // Then what is shown may begin with what another printed.
        warn!(fault = %chain(&fault), "it is not written down where the output of a pre-command begins");
    }
}

fn end_of(about: &fs::Metadata) -> Begin {
    Begin { file: about.ino(), at: about.len() }
}

/// Its own line, and the last of what it printed.
pub(super) fn printed(shared: &Shared, context: &SlotContext, ended: &Ended, line: &str) -> String {
    let began = clock::unix_ms_of_ticks(ended.process.start_ticks);
    let mark = shared.paths.ledger(&context.id).mark().ok().flatten();
    let from = mark.filter(|it| it.ticket == ended.process.ticket).map(|it| it.from).unwrap_or_default();
    let words = last_words_from(&shared.paths.pre_logs(&context.id), &from, began);
    let first: String = line.lines().next().unwrap_or_default().chars().take(LINE_MAX).collect();
    let took = took(ended.unix_ms.saturating_sub(began));
    format!("$ {first} (took {took})\n{words}")
}

fn took(millis: u64) -> String {
    match millis {
        0..10_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        _ => format!("{} s", millis / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_is_told_in_tenths() {
        assert_eq!([took(0), took(1_290), took(9_999), took(75_400)], ["0.0 s", "1.2 s", "9.9 s", "75 s"]);
    }
}
