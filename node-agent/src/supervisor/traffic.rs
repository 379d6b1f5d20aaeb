//! Which replicas the NGINX of this host sends requests to: for each application that has `nginx`, one upstream file that lists
//! exactly its ready slots.
//!
//! Slots tell how they stand; one task ([`keep`]) makes of it what the files should say (`upstream`, pure), and writes, checks
//! and reloads (`keep`), less often for who comes and goes (`damping`, pure). Whatever changes while it is at it is taken together in its next round. What NGINX has in force is
//! told back, so that a slot may wait until nobody is sent to it any more; what cannot be brought into force is told as the
//! application's fault, and tried again.

mod command;
mod damping;
mod file;
mod keep;
mod upstream;
mod workers;

use std::collections::BTreeMap;

use proto::ids::AppName;
use proto::pb;
use tokio::sync::watch;

pub(super) use self::keep::{Pending, keep};
use super::SlotId;
use crate::clock::{self, Time};

/// How a slot stands, as far as whoever sends requests is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Of the settings: of two slots that were told different ones the newer count …
    pub(super) generation: u64,
    /// … where both are wanted. One that is withdrawn is told with each generation what it was told last.
    pub(super) is_wanted: bool,
    pub(super) nginx: Option<pb::Nginx>,
    /// Where its process listens, or the next one will.
    pub(super) ports: Vec<(String, u16)>,
    pub(super) is_ready: bool,
}

/// What is known of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// Not what runs there, since then; and why not, where that is known.
    Unknown {
        since: Time,
        because: Option<String>,
    },
    Told(Standing),
}

/// Every slot of the host.
type Slots = BTreeMap<SlotId, Entry>;

#[derive(Clone, Debug, Default)]
struct Table {
    /// Grows with every change.
    revision: u64,
    slots: Slots,
}

/// For the slots: the way to the task that keeps the files, and back.
pub(super) struct Traffic {
    table: watch::Sender<Table>,
    /// Up to which revision of the table NGINX sends requests as it says.
    in_force: watch::Sender<BTreeMap<AppName, u64>>,
    faults: watch::Sender<BTreeMap<AppName, String>>,
}

impl Traffic {
    pub(super) fn new() -> Self {
        Self {
            table: watch::Sender::default(),
            in_force: watch::Sender::default(),
            faults: watch::Sender::default(),
        }
    }

    /// A slot that is being taken up: until it has told how it stands, or that takes too long, its application's file is left
    /// as it is.
    pub(super) fn expect(&self, id: &SlotId) {
        self.table.send_if_modified(|table| match table.slots.contains_key(id) {
            true => false,
            false => {
                let unknown = Entry::Unknown { since: clock::now(), because: None };
                table.slots.insert(id.clone(), unknown);
                table.revision += 1;
                true
            }
        });
    }

    /// Why it is not known what runs in a slot that was not told of yet.
    pub(super) fn unknown(&self, id: &SlotId, why: &str) {
        self.table.send_if_modified(|table| match table.slots.get_mut(id) {
            Some(Entry::Unknown { because, .. }) if because.as_deref() != Some(why) => {
                *because = Some(why.to_owned());
                table.revision += 1;
                true
            }
            _ => false,
        });
    }

    /// Returns the revision that holds it, for [`Traffic::is_in_force`].
    pub(super) fn tell(&self, id: &SlotId, standing: Standing) -> u64 {
        let standing = Entry::Told(standing);
        self.table.send_if_modified(|table| match table.slots.get(id) == Some(&standing) {
            true => false,
            false => {
                table.slots.insert(id.clone(), standing);
                table.revision += 1;
                true
            }
        });
        self.table.borrow().revision
    }

    /// Until NGINX sends the application's requests as that revision says, or whoever keeps the files is gone.
    pub(super) async fn is_in_force(&self, app: &AppName, revision: u64) {
        let mut in_force = self.in_force.subscribe();
        let _ = in_force.wait_for(|it| it.get(app).is_some_and(|it| *it >= revision)).await;
    }

    /// What is wrong with each application's file.
    pub(super) fn faults(&self) -> watch::Receiver<BTreeMap<AppName, String>> {
        self.faults.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_was_told_is_waited_for_until_it_is_in_force() {
        let traffic = Traffic::new();
        let id = SlotId { app: "shop".parse().unwrap(), slot: proto::ids::Slot::new(1).unwrap() };
        let standing =
            |is_ready| Standing { generation: 1, is_wanted: true, nginx: None, ports: Vec::new(), is_ready };
        traffic.expect(&id);
        let ready = traffic.tell(&id, standing(true));
        traffic.expect(&id);
        assert_eq!(traffic.tell(&id, standing(true)), ready, "what is no news changes nothing");
        let gone = traffic.tell(&id, standing(false));
        let short = Duration::from_millis(10);
        assert!(timeout(short, traffic.is_in_force(&id.app, ready)).await.is_err());
        traffic.in_force.send_replace([(id.app.clone(), ready)].into());
        traffic.is_in_force(&id.app, ready).await;
        assert!(timeout(short, traffic.is_in_force(&id.app, gone)).await.is_err());
        traffic.in_force.send_replace([(id.app.clone(), gone)].into());
        traffic.is_in_force(&id.app, gone).await;
    }
}
