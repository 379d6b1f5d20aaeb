//! When nodes were last heard is written down now and then, so that it is still known after a restart.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::agents::Agents;
use crate::clock::Time;
use crate::db::{Db, DbError};
use crate::error::chain;

/// What a crash of the program may make it forget; one transaction each time, however many nodes there are.
const WRITE_EVERY: Duration = Duration::from_secs(5);

/// Until cancelled, and once more then.
pub(super) async fn remember(db: Db, agents: Agents, cancel: CancellationToken) {
    let mut until = Time::default();
    loop {
        let stopped = cancel.run_until_cancelled(tokio::time::sleep(WRITE_EVERY)).await.is_none();
        match write(&db, &agents, until).await {
            Ok(newest) => until = newest,
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "when nodes were heard is not written down; trying again"
                );
            }
        }
        if stopped {
            return;
        }
    }
}

/// Returns the newest moment that was written.
async fn write(db: &Db, agents: &Agents, since: Time) -> Result<Time, DbError> {
    let heard = agents.heard_after(since);
    let newest = heard.iter().map(|(_, at)| *at).max().unwrap_or(since);
    if !heard.is_empty() {
        let shown: Vec<_> = heard.iter().map(|(node, at)| (*node, agents.shown(*at))).collect();
        db.touch_nodes(&shown).await?;
    }
    Ok(newest)
}
