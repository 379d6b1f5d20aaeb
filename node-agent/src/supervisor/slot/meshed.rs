//! Keeps the node of a slot's process connected to its siblings: looks whom it sees, has it connect to those that `mesh` decides,
//! and tries from this host to reach the ones that it cannot connect to, so that somebody can be told why.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use proto::pb;
use secrecy::SecretString;
use tokio::sync::watch;
use tracing::debug;

use super::node::Said;
use super::turns::Turns;
use crate::beam::nodes;
use crate::clock;
use crate::dist::connection::Connection;
use crate::dist::handshake::Local;
use crate::dist::link::{Credentials, Standing};
use crate::dist::reach::{Target, reach};
use crate::dist::term::Atom;
use crate::mesh::{Mesh, Why};
use crate::supervisor::acts::chain;
use crate::supervisor::{Shared, SlotId};

/// One call of some microseconds.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// As whom others are tried: not as the agent, whom their own agent may be called like.
const OUR_NAME: &str = "deployex-reach";

/// Whose node it is, and what it has to be let in elsewhere.
pub(super) struct Meshed {
    pub(super) id: SlotId,
    pub(super) shared: Arc<Shared>,
    /// With the `@` and the host.
    pub(super) name: String,
    pub(super) cluster: watch::Receiver<pb::Cluster>,
    pub(super) epmd_port: u16,
    pub(super) cookie: Option<SecretString>,
    pub(super) credentials: Option<Arc<dyn Credentials>>,
}

/// The siblings of a node, by where they are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Siblings {
    here: BTreeSet<String>,
    elsewhere: BTreeSet<String>,
}

impl Meshed {
    /// While there is a connection. Ends with whoever tells how it stands.
    pub(super) async fn run(mut self, mut standing: watch::Receiver<Standing>, said: watch::Sender<Said>) {
        loop {
            let connection = match &*standing.borrow_and_update() {
                Standing::Connected { connection, .. } => Some(connection.for_another()),
                Standing::Dialling | Standing::Without(_) => None,
            };
            let meshing = async {
                match connection {
                    Some(connection) => self.over(&connection, &said).await,
                    None => {
                        tell(&said, None);
                        std::future::pending::<()>().await;
                    }
                }
            };
            tokio::select! {
                biased; // a connection that is gone comes before asking over it
                changed = standing.changed() => if changed.is_err() { return },
                () = meshing => {}
            }
        }
    }

    async fn over(&mut self, connection: &Connection, said: &watch::Sender<Said>) {
        let mut turns = Turns::every(LOOK_EVERY);
        let mut mesh = Mesh::default();
        loop {
            turns.next().await;
            let cluster = *self.cluster.borrow_and_update();
            if cluster == pb::Cluster::Off {
                mesh = Mesh::default();
                tell(said, None);
                continue;
            }
            let siblings = self.siblings(cluster);
            let wanted: BTreeSet<String> = siblings.here.union(&siblings.elsewhere).cloned().collect();
            let seen = match nodes::connected(connection).await {
                Ok(seen) => seen,
                Err(error) => {
                    // The same is said of its figures.
                    debug!(error = chain(&error), "a node does not say whom it is connected to");
                    continue;
                }
            };
            mesh.elsewhere.clone_from(&siblings.elsewhere);
            let step = mesh.look(&self.name, &wanted, &seen, (clock::now(), clock::unix_ms()));
            tell(said, Some(mesh.told(&self.name)));
            let asked = join_all(step.ask.iter().map(|name| nodes::connect(connection, name))).await;
            for (name, answer) in step.ask.iter().zip(asked) {
                debug!(node = self.name, to = name, ?answer, "it was asked to connect");
                mesh.asked(name, clock::now(), rand::random());
            }
            if let Some(name) = step.look_into {
                let why = self.why_not(&name, siblings.elsewhere.contains(&name)).await;
                mesh.looked_into(&name, why, clock::now());
            }
            tell(said, Some(mesh.told(&self.name)));
        }
    }

    /// Never of another application.
    fn siblings(&self, cluster: pb::Cluster) -> Siblings {
        let observed = self.shared.observed.borrow();
        let others = observed
            .slots
            .iter()
            .filter(|((app, slot), report)| *app == self.id.app && *slot != self.id.slot && report.pid > 0);
        let here = others.filter_map(|(_, report)| report.erlang.as_ref()).map(|it| it.name.clone());
        let mut siblings = Siblings { here: here.collect(), elsewhere: BTreeSet::new() };
        if cluster == pb::Cluster::Fleet {
            let told = self.shared.siblings.borrow();
            let of_app = told.applications.iter().filter(|it| it.app == self.id.app.as_str());
            siblings.elsewhere = of_app.flat_map(|it| it.nodes.iter().cloned()).collect();
        }
        siblings
    }

    /// Why this host cannot dial it with what its node has; `None`: it can.
    async fn why_not(&self, name: &str, is_elsewhere: bool) -> Option<Why> {
        let why = |kind, because: String| Some(Why { kind, because });
        let Some(cookie) = self.cookie.clone() else {
            return why("cookie", "it is not known with which cookie the replica talks to others".to_owned());
        };
        let host = self.name.split_once('@').map_or("", |(_, host)| host);
        // Another slot may try the same one at the same time.
        let ours = format!("{OUR_NAME}-{}@{host}", self.id.slot);
        let (Ok(name), Ok(ours)) = (Atom::new(name), Atom::new(&ours)) else {
            return why("protocol", "its name is longer than a name can be".to_owned());
        };
        let tls = match self.credentials.as_ref().map(|it| it.now()).transpose() {
            Ok(tls) => tls,
            Err(error) => return why("tls", chain(&error)),
        };
        let target = Target { name, epmd_port: self.epmd_port, cookie, tls, is_elsewhere };
        let local = Local { name: ours, creation: rand::random::<u32>() | 4 };
        let unreached = reach(&target, &local).await.err()?;
        why(unreached.word(), chain(&unreached))
    }
}

/// Once, however often it is looked at.
fn tell(said: &watch::Sender<Said>, mesh: Option<pb::Mesh>) {
    said.send_if_modified(|said| {
        let is_new = said.mesh != mesh;
        said.mesh = mesh;
        is_new
    });
}
