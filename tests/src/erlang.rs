//! An Erlang node that a test asks something, over a connection of its own beside the agent's.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use node_agent::dist::connection::{Connection, Settings};
use node_agent::dist::dial::{DialError, Node, dial};
use node_agent::dist::handshake::Local;
use node_agent::dist::started::{Started, look};
use node_agent::dist::term::{Atom, Term};
use rustls::ClientConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Enough for an answer of a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

pub struct Asked(Connection);

impl Asked {
    /// The node that this process is, by how it was started. `tls`: what is shown to it and trusted of it.
    pub async fn node_of(pid: u32, tls: Option<Arc<ClientConfig>>) -> Self {
        Self::try_node_of(pid, tls).await.expect("the node lets us in")
    }

    /// # Errors
    /// Where it does not let us in.
    pub async fn try_node_of(pid: u32, tls: Option<Arc<ClientConfig>>) -> Result<Self, DialError> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let Ok(Started::Node(node)) = look(pid, &host) else { panic!("process {pid} is no Erlang node") };
        assert_eq!(node.tls, tls.is_some(), "{} talks TLS", node.name);
        let (_, host) = node.name.split_once('@').expect("a node has a host");
        let atom = |name: &str| Atom::new(name).expect("a name of usual length");
        // The one before may not have been seen to go.
        let ours = atom(&format!("test-{:x}@{host}", rand::random::<u32>()));
        let local = Local { name: ours, creation: rand::random::<u32>() | 4 };
        let epmd = SocketAddr::from((Ipv4Addr::LOCALHOST, node.epmd_port));
        let cookie = node.cookie.expect("a node has a cookie");
        let node = Node { name: atom(&node.name), epmd, cookie, tls };
        let (stream, peer) = dial(&node, &local, PATIENCE).await?;
        let (connection, work) =
            Connection::new(stream, &local, peer, Settings::default(), CancellationToken::new());
        TaskTracker::new().spawn(work);
        Ok(Self(connection))
    }

    /// Which nodes it sees, hidden ones not among them.
    pub async fn sees(&self) -> Vec<String> {
        let answer = self.0.call("erlang", "nodes", Vec::new(), PATIENCE).await.expect("the node answers");
        let names = answer.as_list().expect("a list").iter().filter_map(|it| it.as_atom());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Parts it from another node, as a network does that splits.
    pub async fn parts_from(&self, other: &str) {
        let other = Term::Atom(Atom::new(other).expect("a name of usual length"));
        let parted = self.0.call("erlang", "disconnect_node", vec![other], PATIENCE).await;
        // Where Erlang has parted them already, because of another that was parted, that is no less.
        parted.expect("the node answers");
    }

    /// Has it connect to another node anew, as applications do, and says whether it could.
    pub async fn connects_to(&self, other: &str) -> bool {
        let other = Term::Atom(Atom::new(other).expect("a name of usual length"));
        // One that is gone may not have been missed yet.
        let parted = self.0.call("erlang", "disconnect_node", vec![other.clone()], PATIENCE).await;
        parted.expect("the node answers");
        let answer = self.0.call("net_kernel", "connect_node", vec![other], PATIENCE).await;
        answer.expect("the node answers").as_atom() == Some("true")
    }
}
