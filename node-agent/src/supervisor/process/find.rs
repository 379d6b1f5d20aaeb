//! What is in a slot, for an agent that does not know: asked of the keeper, else of the slot's lock and records.

use std::io;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use super::connection::Connection;
use super::error::{FindError, explain};
use super::silence::Turn;
use super::standby::{Keepers, Standby};
use super::{ANSWER_DEADLINE, Ended, Keeper, LAUNCH_DEADLINE, SlotDir, open_fifos};
use crate::cgroup::Cgroup;
use crate::keeper::fifo::printers;
use crate::keeper::locks::{SLOT_LOCK, is_free};
use crate::keeper::procfs::boot_id;
use crate::keeper::protocol::Said;
use crate::keeper::record::ProcessRecord;
use crate::keeper::spec::Order;

/// While one keeper goes and another comes, neither answers. Longer than a launcher stage may take on its own.
const FIND_DEADLINE: Duration = Duration::from_secs(10);

/// Between two looks at a slot in which a keeper comes or goes.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What is in a slot.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "an answer that is taken apart at once, never kept")]
pub enum Found {
    /// Nothing, and nothing that anybody would have to hear of.
    Nothing,
    Running(Keeper),
    Ended(Ended),
}

/// What is in the slot now, for an agent that does not know. A program without a keeper is given one.
pub async fn find(keepers: &Keepers, dir: &SlotDir) -> Result<Found, FindError> {
    let deadline = Instant::now() + FIND_DEADLINE;
    loop {
        if let Some(found) = look(keepers, dir).await? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(FindError::Silent(dir.0.join(SLOT_LOCK)));
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// `None`: a keeper is coming or going, look again.
async fn look(keepers: &Keepers, dir: &SlotDir) -> Result<Option<Found>, FindError> {
    let folder = |source| FindError::Folder { slot: dir.0.clone(), source };
    if !dir.0.try_exists().map_err(folder)? {
        return Ok(Some(Found::Nothing));
    }
    if let Ok(mut connection) = Connection::open(dir).await {
        let mut heard = timeout(ANSWER_DEADLINE, connection.next()).await;
        for turn in [Turn::Wake, Turn::GiveUp] {
            // Stopped, or stuck: nobody else can keep the slot before it goes on or is gone.
            if heard.is_err() {
                connection.act(turn);
                heard = timeout(ANSWER_DEADLINE, connection.next()).await;
            }
        }
        match heard {
            Ok(Some(Said::Hello(process))) => {
                let fifos = open_fifos(dir).map_err(folder)?;
                let keeper = Keeper::new(keepers, dir, process, Some(connection), None, fifos);
                return Ok(Some(Found::Running(keeper)));
            }
            Ok(Some(Said::Exited(ended))) => return Ok(Some(Found::Ended(ended))),
            // It went while we knocked, or speaks another language; the lock tells which.
            _ => {}
        }
    }
    if is_free(&dir.0).map_err(folder)? {
        let record = ProcessRecord::load(&dir.0);
        match (record, Ended::load(&dir.0)) {
            (None, _) => return Ok(Some(Found::Nothing)),
            (Some(record), Some(ended)) if ended.process == record.process => {
                if !is_peopled(dir, record).await {
                    return Ok(Some(Found::Ended(ended)));
                }
            }
            (Some(record), _) if record.boot_id != boot_id() => return Ok(Some(Found::Nothing)),
            // It ended unseen, or not all of it. A keeper writes its last words into its logs.
            (Some(_), _) => {}
        }
    }
    adopt(keepers, dir).await
}

/// A keeper that was killed before its time has left somebody of its program, to be ended by another: in the group of it, or
/// where there are no groups by what it prints to.
async fn is_peopled(dir: &SlotDir, record: ProcessRecord) -> bool {
    if record.boot_id != boot_id() {
        return false;
    }
    let slot = dir.0.clone();
    let look = move || match record.cgroup {
        Some(group) => !Cgroup::at(group).members().is_empty(),
        None => !printers(&slot).is_empty(),
    };
    // All processes of the host are looked at. Where that fails there was nobody to be seen.
    spawn_blocking(look).await.unwrap_or(false)
}

async fn adopt(keepers: &Keepers, dir: &SlotDir) -> Result<Option<Found>, FindError> {
    let fifos = open_fifos(dir).map_err(|source| FindError::Folder { slot: dir.0.clone(), source })?;
    let lost = |source| FindError::Keeper { keeper: keepers.program().to_owned(), source };
    let order = Order::Adopt { slot: dir.0.clone() }
        .encode()
        .map_err(|error| lost(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let mut connection = Standby::new(keepers.clone()).order(|_| Ok(order.clone()), lost).await?;
    match timeout(LAUNCH_DEADLINE, connection.next()).await {
        Ok(Some(Said::Hello(process))) => {
            let keeper = Keeper::new(keepers, dir, process, Some(connection), None, fifos);
            Ok(Some(Found::Running(keeper)))
        }
        Ok(Some(Said::Exited(ended))) => Ok(Some(Found::Ended(ended))),
        Ok(Some(Said::Gone)) => Ok(Some(Found::Nothing)),
        Ok(Some(Said::Failed(failure))) => {
            let (step, path, source) = explain(failure, dir, None);
            Err(FindError::Step { step, path, source })
        }
        _ => Ok(None),
    }
}
