//! Who listens on a replica's ports. A check that connects cannot tell the replica from a stranger who was there before it;
//! this can, where the system lets us look.
//!
//! `/proc/net/tcp` and `tcp6` say which socket listens on a port, the links in `/proc/PID/fd` who has it open. Looked at when a
//! process begins and when its check's answer turns to yes, not with every check; again each second while a stranger is there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::SlotId;
use super::slot::Answer;
use crate::keeper::procfs::{Stat, all, descendants};
use crate::replica::Ticket;

/// Between two looks while a stranger is there: when it goes, the replica may have the port.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// `0A` in the kernel's tables.
const LISTENING: &str = "0A";

/// Who listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Listener {
    Nobody,
    /// The replica, or somebody whom it started.
    Replica,
    /// In words.
    Stranger(String),
    /// The system does not let us look, or what was there is changing.
    Untold,
}

/// A replica's process and the ports that are to be its own.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    pub(super) id: SlotId,
    pub(super) pid: u32,
    pub(super) numbers: Vec<u16>,
    /// Those whose answers make it ready.
    pub(super) checked: Vec<u16>,
    /// Below which every process of ours has its outputs: `{folder}/{app}/{slot}/stdout.fifo`.
    pub(super) slots: PathBuf,
}

/// What is said of a check's answers, beside the answers.
#[derive(Debug, Default)]
struct Said {
    /// The check connects, to whomever.
    connects: bool,
    /// A stranger has what the check connects to.
    withheld: bool,
    /// Who has one of the ports.
    held: Option<String>,
    /// That was said; before, something else may stand of an earlier process.
    told: bool,
}

/// Passes on what the checks say, a yes only where it was not a stranger that answered; and says of each stranger on one of
/// the ports. Until cancelled.
pub(super) async fn vouch(
    ports: Ports,
    ticket: Ticket,
    mut checks: mpsc::Receiver<Answer>,
    answers: mpsc::Sender<Answer>,
    cancel: CancellationToken,
) {
    let mut said = Said::default();
    // Before anything is checked: who is there already is why a start fails.
    let mut news = Some(None);
    while let Some(connects) = news {
        for answer in said.take_in(connects, &ports, ticket).await {
            if answers.send(answer).await.is_err() {
                return;
            }
        }
        let waits = said.withheld || said.held.is_some();
        news = tokio::select! {
            biased; // what is new comes before another look at what is known
            () = cancel.cancelled() => None,
            Some(check) = checks.recv() => match check {
                Answer::Probed { passed, .. } => Some(Some(passed)),
                other => answers.send(other).await.is_ok().then_some(None),
            },
            () = sleep(LOOK_AGAIN), if waits => Some(None),
        };
    }
}

impl Said {
    /// `connects`: what the check says now; `None`: nothing new.
    async fn take_in(&mut self, connects: Option<bool>, ports: &Ports, ticket: Ticket) -> Vec<Answer> {
        self.connects = connects.unwrap_or(self.connects);
        if connects == Some(false) {
            // That needs no look: where a stranger was, there is one every second.
            self.withheld = false;
            return vec![Answer::Probed { ticket, passed: false }];
        }
        let mut answers = Vec::new();
        let (stranger, held) = look(ports).await;
        let was_withheld = std::mem::replace(&mut self.withheld, self.connects && stranger);
        if !std::mem::replace(&mut self.told, true) || self.held != held {
            self.held.clone_from(&held);
            answers.push(Answer::PortHeld { ticket, held });
        }
        if connects.is_some() || was_withheld && !self.withheld {
            answers.push(Answer::Probed { ticket, passed: self.connects && !self.withheld });
        }
        answers
    }
}

/// Whether a stranger has a port that is checked, and in words who has the first of the ports that a stranger has.
async fn look(ports: &Ports) -> (bool, Option<String>) {
    let ports = ports.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let mut held = None;
        let mut stranger = false;
        let others = ports.numbers.iter().filter(|it| !ports.checked.contains(it));
        for port in ports.checked.iter().chain(others).copied() {
            if let Listener::Stranger(who) = listener(port, &ports) {
                stranger |= ports.checked.contains(&port);
                held.get_or_insert_with(|| format!("port {port} is held by {who}"));
            }
        }
        (stranger, held)
    });
    looked.await.unwrap_or_default()
}

fn listener(port: u16, ports: &Ports) -> Listener {
    let Ok(sockets) = sockets(port) else { return Listener::Untold };
    if sockets.inodes.is_empty() {
        return Listener::Nobody;
    }
    // In most cases it is the process itself, and nobody else is looked at.
    let mut untold = false;
    let family = std::iter::once(ports.pid).chain(descendants(ports.pid).into_iter().map(|(pid, _)| pid));
    for pid in family {
        match open_files(pid, &sockets.inodes, &ports.slots) {
            Ok(files) if files.listens => return Listener::Replica,
            Ok(_) => {}
            // One that has ended holds nothing.
            Err(error) => untold |= error.kind() != io::ErrorKind::NotFound,
        }
    }
    let owner = all().find_map(|pid| {
        let files = open_files(pid, &sockets.inodes, &ports.slots).ok().filter(|it| it.listens)?;
        Some((pid, files.slot))
    });
    match owner {
        Some((pid, Some(slot))) if slot == ports.id => match (Stat::of(pid), Stat::of(ports.pid)) {
            // Whom it started and who has left its family since.
            (Some(owner), Some(replica)) if owner.start_ticks >= replica.start_ticks => Listener::Replica,
            _ => Listener::Stranger(format!(
                "{} (pid {pid}), which an earlier process of this slot left behind",
                command(pid)
            )),
        },
        Some((pid, Some(slot))) => {
            Listener::Stranger(format!("slot {} of {} ({}, pid {pid})", slot.slot, slot.app, command(pid)))
        }
        Some((pid, None)) => Listener::Stranger(format!(
            "{} (pid {pid}), which is not this replica; end it, or give the application another port",
            command(pid)
        )),
        None if untold || self::sockets(port).is_ok_and(|now| now.inodes != sockets.inodes) => {
            Listener::Untold
        }
        None => Listener::Stranger(format!(
            "a process of the user {} that this agent may not look at, which is not this replica; `ss -ltnp`, typed as root, \
             names it",
            sockets.user
        )),
    }
}

/// The sockets that listen on a port.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sockets {
    inodes: BTreeSet<u64>,
    /// Whose the last of them is.
    user: u32,
}

fn sockets(port: u16) -> io::Result<Sockets> {
    let mut found = Sockets::default();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        match File::open(table) {
            Ok(file) => found.add(BufReader::new(file), port)?,
            // A host without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

impl Sockets {
    /// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`, after a line of titles.
    fn add(&mut self, mut table: impl io::BufRead, port: u16) -> io::Result<()> {
        let ending = format!(":{port:04X}");
        let mut line = String::new();
        while table.read_line(&mut line)? > 0 {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let here = fields.next().is_some_and(|local| local.ends_with(&ending));
            if here
                && fields.nth(1) == Some(LISTENING)
                && let (Some(user), Some(inode)) = (fields.nth(3), fields.nth(1))
                && let (Ok(user), Ok(inode)) = (user.parse(), inode.parse())
            {
                self.inodes.insert(inode);
                self.user = user;
            }
            line.clear();
        }
        Ok(())
    }
}

/// What a process's open files say of it.
struct OpenFiles {
    /// It has one of the sockets.
    listens: bool,
    /// It is a replica's, by where its output goes.
    slot: Option<SlotId>,
}

fn open_files(pid: u32, sockets: &BTreeSet<u64>, slots: &Path) -> io::Result<OpenFiles> {
    let mut found = OpenFiles { listens: false, slot: None };
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One that was closed meanwhile is none.
        let Ok(link) = fs::read_link(entry?.path()) else { continue };
        let inode = link.to_str().and_then(|it| it.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        found.listens |= inode.is_some_and(|it| sockets.contains(&it));
        found.slot = found.slot.or_else(|| slot_of(&link, slots));
    }
    Ok(found)
}

fn slot_of(file: &Path, slots: &Path) -> Option<SlotId> {
    let mut below = file.strip_prefix(slots).ok()?.iter().map(|it| it.to_str());
    let (app, slot) = (below.next()??.parse().ok()?, below.next()??.parse().ok()?);
    Some(SlotId { app, slot })
}

/// Its name alone: arguments may hold secrets.
fn command(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let plain: String = name.trim().chars().filter(|it| !it.is_control()).collect();
    if plain.is_empty() { "a process".to_owned() } else { plain }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::{Child, Command, Stdio};

    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0FA0 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 4242 1 0 100 0 0 10 0
   1: 0100007F:0FA0 0100007F:9C40 01 00000000:00000000 00:00000000 00000000    33        0 4243 1 0 20 4 30 10 -1
   2: 00000000:0FA1 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4244 1 0 100 0 0 10 0
   3: 00000000000000000000000001000000:0FA0 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 33 0 4245 1
   4: a line that was cut
";

    #[test]
    fn only_those_who_listen_on_the_very_port_are_found() {
        let mut found = Sockets::default();
        found.add(TABLE.as_bytes(), 4000).unwrap();
        assert_eq!(found, Sockets { inodes: [4242, 4245].into(), user: 33 });
        let mut nobody = Sockets::default();
        nobody.add(TABLE.as_bytes(), 40_000).unwrap();
        assert_eq!(nobody, Sockets::default());
    }

    fn id(slot: u32) -> SlotId {
        SlotId { app: "shop".parse().unwrap(), slot: proto::ids::Slot::new(slot).unwrap() }
    }

    fn ports(port: u16, pid: u32, slots: &Path) -> Ports {
        Ports { id: id(1), pid, numbers: vec![port], checked: vec![port], slots: slots.to_owned() }
    }

    /// A process that has the listener, and an open file of that slot. It ends when its input does.
    fn heir(listener: &TcpListener, folder: &Path) -> Child {
        fs::create_dir_all(folder).unwrap();
        let output = File::create(folder.join("stdout.fifo")).unwrap();
        let socket = std::os::fd::OwnedFd::from(listener.try_clone().unwrap());
        let heir = Command::new("cat").stdin(Stdio::piped()).stdout(output).stderr(socket).spawn();
        heir.unwrap()
    }

    fn end(mut heir: Child) {
        drop(heir.stdin.take());
        heir.wait().unwrap();
    }

    /// In a later tick of the kernel's clock.
    fn begun_after(earlier: &Child) -> Child {
        let start = |pid| Stat::of(pid).unwrap().start_ticks;
        loop {
            let later = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            if start(later.id()) > start(earlier.id()) {
                return later;
            }
            end(later);
        }
    }

    #[test]
    fn the_replica_its_children_and_strangers_are_told_apart() {
        let slots = tempfile::tempdir().unwrap();
        let listening = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listening.local_addr().unwrap().port();
        let of = |pid: u32| listener(port, &ports(port, pid, slots.path()));
        assert_eq!(of(std::process::id()), Listener::Replica);

        let replica = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let Listener::Stranger(who) = of(replica.id()) else { panic!("it does not listen") };
        assert!(who.contains(&format!("(pid {}), which is not this replica", std::process::id())), "{who}");

        // What it started and what left its family since is its own; what was there before it is not.
        let own = heir(&listening, &slots.path().join("shop/1"));
        drop(listening);
        assert_eq!(of(replica.id()), Listener::Replica);
        let later = begun_after(&own);
        let Listener::Stranger(who) = of(later.id()) else { panic!("it is of an earlier one") };
        assert_eq!(who, format!("cat (pid {}), which an earlier process of this slot left behind", own.id()));
        end(own);
        assert_eq!(of(replica.id()), Listener::Nobody);
        end(replica);
        end(later);
    }

    #[test]
    fn another_slot_is_named() {
        let slots = tempfile::tempdir().unwrap();
        let listening = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listening.local_addr().unwrap().port();
        let other = heir(&listening, &slots.path().join("mail/2"));
        drop(listening);
        let replica = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let found = listener(port, &ports(port, replica.id(), slots.path()));
        let who = format!("slot 2 of mail (cat, pid {})", other.id());
        assert_eq!(found, Listener::Stranger(who));
        end(other);
        end(replica);
    }

    #[tokio::test]
    async fn a_yes_that_a_stranger_gave_is_a_no_until_the_stranger_goes() {
        let slots = tempfile::tempdir().unwrap();
        let listening = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listening.local_addr().unwrap().port();
        let replica = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut said = Said::default();
        let of = ports(port, replica.id(), slots.path());
        let words = |answers: Vec<Answer>| -> Vec<String> {
            let word = |answer: Answer| match answer {
                Answer::PortHeld { held, .. } => format!("held {}", held.is_some()),
                Answer::Probed { passed, .. } => format!("passed {passed}"),
                other => panic!("{other:?}"),
            };
            answers.into_iter().map(word).collect()
        };
        assert_eq!(words(said.take_in(None, &of, Ticket(1)).await), ["held true"]);
        assert_eq!(words(said.take_in(Some(true), &of, Ticket(1)).await), ["passed false"]);
        assert!(said.take_in(None, &of, Ticket(1)).await.is_empty(), "nothing new is not said again");
        // It makes way for the replica, whose check goes on to connect.
        let own = heir(&listening, &slots.path().join("shop/1"));
        drop(listening);
        assert_eq!(words(said.take_in(None, &of, Ticket(1)).await), ["held false", "passed true"]);
        assert_eq!(words(said.take_in(Some(false), &of, Ticket(1)).await), ["passed false"]);
        end(own);
        end(replica);
    }
}
