//! Rounds of the task that keeps the files, one by one. NGINX's program is a script that writes down what it was asked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use async_trait::async_trait;
use proto::ids::{ReleaseKey, Slot};
use proto::pb;
use tempfile::TempDir;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::super::accounts::Accounts;
use super::super::super::epmd::Epmd;
use super::super::super::process::{Keepers, Standby};
use super::super::super::{Paths, SlotId};
use super::super::{Entry, Standing};
use super::*;
use crate::cgroup::home::Home;
use crate::link::{Certify, LinkError, Observed};
use crate::releases::{Chunks, Fetch, FetchError, Store};

struct Nothing;

#[async_trait]
impl Fetch for Nothing {
    async fn open(&self, _: &AppName, _: &ReleaseKey, _: u64) -> Result<Chunks, FetchError> {
        Err(FetchError::Gone)
    }
}

#[async_trait]
impl Certify for Nothing {
    async fn certify(&self, _: pb::CertifyPeerRequest) -> Result<pb::CertifyPeerResponse, LinkError> {
        Err(LinkError::Silent)
    }
}

/// What the supervisor shares, in this folder.
async fn shared(folder: &Path) -> Arc<Shared> {
    let paths = Paths::new(folder.join("var"), folder.join("log"));
    let home = Home::none("this test has none");
    Arc::new(Shared {
        siblings: watch::Sender::default(),
        vm_samples: Arc::default(),
        telemetry: Arc::default(),
        nodes: crate::supervisor::evaluate::Nodes::default(),
        epmd: Epmd::new(1, paths.epmd()),
        accounts: Accounts::default(),
        store: Store::open(paths.agent().join("releases")).await.unwrap(),
        paths,
        standby: Standby::new(Keepers::new("no-keeper", home)),
        traffic: Traffic::new(),
        timezone: None,
        otp_tls: None,
        boot_id: String::new(),
        standing: watch::channel(crate::link::Standing::Connected).1,
        flushing: Mutex::default(),
        fetch: Arc::new(Nothing),
        certify: Arc::new(Nothing),
        observed: watch::Sender::new(Observed::default()),
        notes: mpsc::channel(64).0,
        tracker: TaskTracker::new(),
        cancel: CancellationToken::new(),
    })
}

struct Host {
    folder: TempDir,
    keeper: Keeper,
}

impl Host {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        // While `refuses` or `broken` lies there, a check or a reload fails.
        let script = format!(
            "#!/bin/sh\necho \"$@\" >> {at}/asked\n\
             case \"$1\" in\n-t) test ! -e {at}/refuses;;\n*) test ! -e {at}/broken;;\nesac\n"
        );
        fs::write(folder.path().join("nginx"), script).unwrap();
        fs::set_permissions(folder.path().join("nginx"), fs::Permissions::from_mode(0o755)).unwrap();
        let shared = shared(folder.path()).await;
        Self { folder, keeper: Keeper::new(shared) }
    }

    /// Another agent in its place.
    async fn begins_anew(self) -> Self {
        let shared = shared(self.folder.path()).await;
        Self { folder: self.folder, keeper: Keeper::new(shared) }
    }

    /// `port`: the key of it.
    fn tell_with(&self, slot: u32, is_ready: bool, port: &str) -> u64 {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let nginx = pb::Nginx {
            upstream_file: path("shop.conf"),
            upstream: "shop".to_owned(),
            port: port.to_owned(),
            reload: format!("{} -s reload", path("nginx")),
        };
        let ports = vec![("PORT".to_owned(), u16::try_from(3999 + slot).unwrap())];
        let standing = Standing { generation: 1, is_wanted: true, nginx: Some(nginx), ports, is_ready };
        self.keeper.shared.traffic.tell(&id(slot), standing)
    }

    fn tell(&self, slot: u32, is_ready: bool) -> u64 {
        self.tell_with(slot, is_ready, "PORT")
    }

    async fn round(&mut self) -> Option<Time> {
        let table = self.keeper.shared.traffic.table.borrow().clone();
        self.keeper.round(&table).await
    }

    fn in_force(&self) -> Option<u64> {
        self.keeper.shared.traffic.in_force.borrow().get(&app()).copied()
    }

    fn fault(&self) -> String {
        self.keeper.shared.traffic.faults.borrow().get(&app()).cloned().unwrap_or_default()
    }

    fn text(&self) -> String {
        fs::read_to_string(self.folder.path().join("shop.conf")).unwrap_or_default()
    }

    /// The slots that the file sends requests to.
    fn listed(&self) -> Vec<u32> {
        let text = self.text();
        let ports =
            text.lines().filter_map(|it| it.trim().strip_prefix("server 127.0.0.1:")?.strip_suffix(';'));
        ports.filter_map(|it| Some(it.parse::<u32>().ok()? - 3999)).collect()
    }

    fn reloads(&self) -> usize {
        let asked = fs::read_to_string(self.folder.path().join("asked")).unwrap_or_default();
        asked.lines().filter(|it| *it == "-s reload").count()
    }

    fn let_fail(&self, what: &str, fails: bool) {
        let flag = self.folder.path().join(what);
        if fails { fs::write(flag, "").unwrap() } else { fs::remove_file(flag).unwrap() }
    }
}

fn app() -> AppName {
    "shop".parse().unwrap()
}

fn id(slot: u32) -> SlotId {
    SlotId { app: app(), slot: Slot::new(slot).unwrap() }
}

#[tokio::test]
async fn what_failed_before_is_not_tried_again_where_there_is_nothing_to_try() {
    let mut host = Host::new().await;
    host.let_fail("refuses", true);
    host.tell(1, true);
    assert!(host.round().await.is_some(), "{}", host.fault());
    // It cannot be said by now what the file should hold: that nobody looks at again before something changes.
    host.tell_with(1, true, "GONE");
    assert_eq!(host.round().await, None);
    assert!(host.fault().contains("without a port GONE"), "{}", host.fault());
}

#[tokio::test]
async fn what_was_put_back_and_never_read_is_in_force_only_once_it_was_read() {
    let mut host = Host::new().await;
    host.tell(1, true);
    host.round().await;
    assert_eq!((host.listed(), host.reloads()), (vec![1], 1));
    // This one passes the check and is not read, and the next one does not pass.
    host.let_fail("broken", true);
    let unread = host.tell(2, true);
    host.round().await;
    assert!(host.fault().contains("NGINX is not reloaded"), "{}", host.fault());
    host.let_fail("refuses", true);
    host.tell(3, true);
    host.round().await;
    assert!(host.fault().contains("NGINX refuses"), "{}", host.fault());
    assert_eq!(host.listed(), [1, 2], "the last one that passed");
    // Wanted again, it is what lies there, and NGINX goes by the first one still.
    let again = host.tell(3, false);
    host.round().await;
    assert!(host.in_force() < Some(unread), "{:?}", host.in_force());
    host.let_fail("refuses", false);
    host.let_fail("broken", false);
    let before = host.reloads();
    host.keeper.rest(&app());
    host.round().await;
    assert_eq!((host.listed(), host.reloads(), host.in_force()), (vec![1, 2], before + 1, Some(again)));
    assert_eq!(host.fault(), "");
}

#[tokio::test]
async fn a_refused_file_gives_way_to_the_last_good_one_which_is_not_read_again() {
    let mut host = Host::new().await;
    host.tell(1, true);
    host.round().await;
    let good = host.text();
    host.let_fail("refuses", true);
    host.tell(2, true);
    host.round().await;
    assert_eq!(host.text(), good);
    let again = host.tell(2, false);
    host.round().await;
    assert_eq!((host.in_force(), host.reloads(), host.fault().as_str()), (Some(again), 1, ""));
}

#[tokio::test]
async fn what_an_agent_put_back_without_knowing_what_was_read_is_read_once_more() {
    let mut host = Host::new().await;
    host.tell(1, true);
    host.round().await;
    host.let_fail("broken", true);
    host.tell(2, true);
    host.round().await;
    let mut host = host.begins_anew().await;
    host.let_fail("refuses", true);
    host.tell(1, true);
    host.tell(2, true);
    host.tell(3, true);
    host.round().await;
    assert_eq!(host.listed(), [1], "what NGINX is known to have taken");
    host.let_fail("refuses", false);
    host.let_fail("broken", false);
    let before = host.reloads();
    host.tell(2, false);
    let again = host.tell(3, false);
    host.round().await;
    assert_eq!((host.listed(), host.reloads(), host.in_force()), (vec![1], before + 1, Some(again)));
}

#[tokio::test]
async fn a_slot_that_cannot_be_taken_up_does_not_hold_up_the_others() {
    let mut host = Host::new().await;
    host.tell(1, true);
    host.tell(2, true);
    host.round().await;
    let mut host = host.begins_anew().await;
    let traffic = &host.keeper.shared.traffic;
    traffic.expect(&id(1));
    traffic.expect(&id(2));
    traffic.unknown(&id(2), "its ledger cannot be read");
    let now = clock::now();
    let gone = host.tell(1, false);
    assert!(host.round().await.is_some_and(|it| it > now), "it is looked at again");
    assert_eq!((host.listed(), host.in_force()), (vec![1, 2], None));
    // As after that time.
    host.keeper.shared.traffic.table.send_modify(|table| {
        table.slots.insert(id(2), Entry::Unknown { since: Time(0), because: Some("its ledger".to_owned()) });
    });
    host.round().await;
    assert_eq!((host.listed(), host.in_force()), (vec![2], Some(gone)));
    assert!(host.fault().contains("slot 2 is not known"), "{}", host.fault());
    // What becomes known counts.
    let known = host.tell(2, false);
    host.round().await;
    assert_eq!((host.listed(), host.in_force(), host.fault().as_str()), (vec![], Some(known), ""));
}

#[tokio::test]
async fn a_check_that_flaps_does_not_make_nginx_read_with_every_flap() {
    let mut host = Host::new().await;
    host.tell(1, true);
    for flap in 0..20 {
        host.tell(2, flap % 2 == 0);
        host.round().await;
        assert!(flap % 2 == 0 || host.listed() == [1], "who is not ready is out at once");
    }
    // Once in and once out, unless this machine stood still for seconds in between.
    assert!((2..=8).contains(&host.reloads()), "{}", host.reloads());
    host.tell(2, true);
    assert!(host.round().await.is_some(), "who is kept out is looked at again");
}
