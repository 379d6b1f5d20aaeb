//! The Erlang node that the process of a slot is: found, kept up with for as long as the process runs, and how that stands.
//!
//! Nothing is decided by it: a release may have no node, or one that nobody can talk to, and serve all the same. What the node
//! says of itself is asked in `vitals`, and in `counted` what it counts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proto::pb;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::SlotTask;
use super::counted::Counted;
use super::meshed::Meshed;
use super::vitals::Sampled;
use crate::dist::connection::Settings;
use crate::dist::dial::Node;
use crate::dist::handshake::Local;
use crate::dist::link::{Credentials, Kind, Link, Standing};
use crate::dist::started::{self, Started, StartedNode};
use crate::dist::term::Atom;
use crate::dist::tls::Verified;
use crate::replica::Ticket;
use crate::supervisor::acts::chain;
use crate::supervisor::evaluate::Listed;
use crate::supervisor::otp_tls::managed::Kept;
use crate::supervisor::otp_tls::{self, InFolder};
use crate::supervisor::probe::NodeEnd;
use crate::supervisor::{Shared, SlotId};

/// A release's script gives way to its virtual machine within a second or so.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// One that does not is looked at more and more rarely.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The same on every host and for ever: each name that a node has seen stays in its table of atoms.
const OUR_NAME: &str = "deployex-agent";

/// Lower numbers mean a node that does not count its lives.
const FIRST_CREATION: u32 = 4;

/// Whose node is kept up with now, and how that stands.
#[derive(Debug)]
pub(super) struct NodeWatch {
    ticket: Ticket,
    cancel: CancellationToken,
    said: watch::Receiver<Said>,
    standing: watch::Receiver<Standing>,
    _listed: Listed,
}

/// What there is to be reported of a process as a node.
#[derive(Clone, Debug, Default)]
pub(in crate::supervisor) struct Said {
    /// `None`: it is none, or that is not known yet.
    pub(in crate::supervisor) node: Option<pb::ErlangNode>,
    /// `None`: it was not asked yet.
    pub(in crate::supervisor) vm: Option<pb::Vm>,
    /// `None`: it is not to be connected to others, or was not asked yet.
    pub(in crate::supervisor) mesh: Option<pb::Mesh>,
    /// Why its certificate cannot be renewed; `None`: nothing hinders it.
    pub(in crate::supervisor) certificate: Option<String>,
}

impl Drop for NodeWatch {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl SlotTask {
    /// A process that runs is looked for as a node; with it the connection ends.
    pub(super) fn watch_node(&mut self, running: Option<(Ticket, u32)>) {
        if running.map(|(ticket, _)| ticket) == self.node.as_ref().map(|it| it.ticket) {
            return;
        }
        self.node = running.map(|(ticket, pid)| {
            let cancel = self.shared.cancel.child_token();
            let levels = self.levels_of(ticket);
            let (sender, said) = watch::channel(Said { vm: levels.as_vm(), ..Said::default() });
            let (id, shared) = (self.id.clone(), self.shared.clone());
            let (watched, upgrades) = (self.watched.subscribe(), self.context.upgrades.subscribe());
            let sampled = Sampled { id, pid, shared, watched, levels, upgrades };
            let (stands, standing) = watch::channel(Standing::default());
            let (id, shared) = (self.id.clone(), self.shared.clone());
            let counted = Counted { id, shared, wished: self.telemetry.subscribe() };
            let asked = (sampled, counted, self.cluster.subscribe());
            self.shared.tracker.spawn(keep_up(asked, sender, stands, cancel.clone()));
            let end = NodeEnd { standing: standing.clone(), said: said.clone() };
            let listed = self.shared.nodes.list(self.id.clone(), ticket, end);
            NodeWatch { ticket, cancel, said, standing, _listed: listed }
        });
    }

    /// For who asks the node something.
    pub(super) fn node_end(&self) -> Option<NodeEnd> {
        let NodeWatch { said, standing, .. } = self.node.as_ref()?;
        Some(NodeEnd { standing: standing.clone(), said: said.clone() })
    }

    /// As it is to be reported.
    pub(super) fn said_of_node(&self) -> Said {
        self.node.as_ref().map(|it| it.said.borrow().clone()).unwrap_or_default()
    }
}

/// There is something new to be reported; never where there is no node.
pub(super) async fn changed(node: &mut Option<NodeWatch>) {
    if let Some(node) = node
        && node.said.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

async fn keep_up(
    (sampled, counted, cluster): (Sampled, Counted, watch::Receiver<pb::Cluster>),
    said: watch::Sender<Said>,
    stands: watch::Sender<Standing>,
    cancel: CancellationToken,
) {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut pause = LOOK_AGAIN;
    let node = loop {
        match started::look(sampled.pid, &host) {
            Ok(Started::Node(node)) => break node,
            Ok(Started::Nameless) => return,
            // One that has ended is told of elsewhere, and ends this.
            Ok(Started::NotYet) | Err(_) => {}
        }
        tokio::select! {
            biased; // stopping comes before all
            () = cancel.cancelled() => return,
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    };
    let shared = sampled.shared.clone();
    let talks = Talks::of(&node, &sampled.id, &shared);
    let base = pb::ErlangNode { name: node.name.clone(), tls: talks.word().to_owned(), ..Default::default() };
    tell_node(&said, base.clone());
    if let Talks::Managed(kept) = &talks {
        // Without it the first dial fails; why, is said below.
        tokio::select! {
            biased; // stopping comes before all
            () = cancel.cancelled() => return,
            _ = kept.agent.obtain(&*shared.certify) => {}
        }
    }
    let (name, epmd_port, cookie) = (node.name.clone(), node.epmd_port, node.cookie.clone());
    let link = match link(node, &talks) {
        Ok(link) => link,
        Err(Unlinked { kind, because }) => {
            tell_node(&said, pb::ErlangNode { kind: kind.to_owned(), because, ..base });
            return cancel.cancelled().await;
        }
    };
    let standing = stands.subscribe();
    let (id, credentials) = (sampled.id.clone(), link.credentials.clone());
    let meshed = Meshed { id, shared: shared.clone(), name, cluster, epmd_port, cookie, credentials };
    let sampling = sampled.run(standing.clone(), said.clone());
    let meshing = meshed.run(standing.clone(), said.clone());
    let counting = counted.run(standing.clone());
    let renewing = async {
        if let Talks::Managed(kept) = &talks {
            let tell = |fault| said.send_modify(|said| said.certificate = fault);
            kept.keep(&*shared.certify, tell, &cancel).await;
        }
    };
    tokio::join!(
        link.run(stands, cancel.clone()),
        tell(standing, base, said.clone()),
        sampling,
        meshing,
        counting,
        renewing
    );
}

/// Why a node is not even dialled.
struct Unlinked {
    kind: &'static str,
    because: String,
}

/// How a node talks to others.
enum Talks {
    Plainly,
    /// With the certificate of this folder of the host; `None`: with what the agent has no folder of.
    OfHost(Option<PathBuf>),
    Managed(Kept),
}

impl Talks {
    fn of(node: &StartedNode, id: &SlotId, shared: &Shared) -> Self {
        let host = node.name.split_once('@').map_or("", |(_, host)| host);
        let kept = node.tls_options.as_deref().and_then(|it| otp_tls::kept(&shared.paths, id, host, it));
        match kept {
            _ if !node.tls => Self::Plainly,
            Some(kept) => Self::Managed(kept),
            None => Self::OfHost(shared.otp_tls.clone()),
        }
    }

    /// For who wants to know what is verified.
    fn word(&self) -> &'static str {
        match self {
            Self::Plainly | Self::OfHost(None) => "",
            Self::OfHost(Some(_)) => "shared",
            Self::Managed(_) => "managed",
        }
    }

    fn credentials(&self) -> Result<Option<Arc<dyn Credentials>>, Unlinked> {
        let (folder, verified) = match self {
            Self::Plainly => return Ok(None),
            Self::OfHost(Some(folder)) => (folder, Verified::Chain),
            Self::Managed(kept) => (&kept.agent.folder, Verified::ChainAndName),
            Self::OfHost(None) => {
                let because = "it talks TLS to other nodes, for which this agent has no certificate: neither is \
                               distribution.tls `managed`, nor otp_tls_certificates set";
                return Err(Unlinked { kind: Kind::Tls.word(), because: because.to_owned() });
            }
        };
        Ok(Some(Arc::new(InFolder { folder: folder.clone(), verified })))
    }
}

fn link(started: StartedNode, talks: &Talks) -> Result<Link, Unlinked> {
    let StartedNode { name, cookie, epmd_port, tls: _, tls_options: _ } = started;
    let credentials = talks.credentials()?;
    let unnamed =
        |_| Unlinked { kind: "protocol", because: "its name is longer than a name can be".to_owned() };
    let Some(cookie) = cookie else {
        let because =
            "it was started without a cookie, and there is no .erlang.cookie in its HOME".to_owned();
        return Err(Unlinked { kind: "cookie", because });
    };
    let host = name.split_once('@').map_or("", |(_, host)| host);
    let ours = Atom::new(&format!("{OUR_NAME}@{host}")).map_err(unnamed)?;
    let creation = rand::random::<u32>().max(FIRST_CREATION);
    let epmd = SocketAddr::from((Ipv4Addr::LOCALHOST, epmd_port));
    Ok(Link {
        node: Node { name: Atom::new(&name).map_err(unnamed)?, epmd, cookie, tls: None },
        local: Local { name: ours, creation },
        settings: Settings::default(),
        credentials,
    })
}

fn tell_node(said: &watch::Sender<Said>, node: pb::ErlangNode) {
    said.send_modify(|said| said.node = Some(node));
}

/// Each standing once, however often it is tried in vain.
async fn tell(mut standing: watch::Receiver<Standing>, base: pb::ErlangNode, said: watch::Sender<Said>) {
    while standing.changed().await.is_ok() {
        let now = match &*standing.borrow_and_update() {
            Standing::Dialling => base.clone(),
            Standing::Connected { since_unix_ms, .. } => {
                pb::ErlangNode { connected_unix_ms: *since_unix_ms, ..base.clone() }
            }
            Standing::Without(reason) => {
                let (kind, because) = (reason.kind().word().to_owned(), chain(reason));
                pb::ErlangNode { kind, because, ..base.clone() }
            }
        };
        let is_new = said.borrow().node.as_ref() != Some(&now);
        if is_new {
            // The report says it; while a node boots, it is what is to be expected.
            debug!(node = now.name, kind = now.kind, because = now.because, "how it stands with the node");
            tell_node(&said, now);
        }
    }
}
