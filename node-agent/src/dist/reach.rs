//! Whether a node can be reached from this host, tried step by step as a node of this host would: its host's name, the name
//! server there, its port, TLS and cookie. For who wants to know why two nodes do not connect.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use secrecy::SecretString;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::dial::{DialError, Node, dial};
use super::handshake::Local;
use super::link::Reason;
use super::term::Atom;

/// For a name to become an address: a resolver that does not answer at all takes longer by itself.
const LOOK_UP: Duration = Duration::from_secs(3);
/// For all that comes after. A host that drops what comes to it says nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who is tried, as whom, and with what the node that wants to connect has itself.
#[derive(Clone)]
pub struct Target {
    pub name: Atom,
    /// Erlang takes the same on every host.
    pub epmd_port: u16,
    pub cookie: SecretString,
    pub tls: Option<Arc<ClientConfig>>,
    /// It is on another host, so its host's name is none of this one's own addresses.
    pub is_elsewhere: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Unreached {
    #[error("this host cannot resolve {host:?}, the host in its name: {why}")]
    Unresolved { host: String, why: String },
    #[error("{host:?}, the host in its name, is {address} on this host, which is this host itself")]
    Loopback { host: String, address: IpAddr },
    #[error(transparent)]
    NotReached(Arc<DialError>),
}

impl Unreached {
    /// In a word, for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unresolved { .. } => "unresolved",
            Self::Loopback { .. } => "loopback",
            Self::NotReached(error) => Reason::NotReached(Arc::clone(error)).kind().word(),
        }
    }
}

/// Hangs up once hands were shaken.
///
/// # Errors
/// Where one of the steps fails, or takes too long.
pub async fn reach(target: &Target, local: &Local) -> Result<(), Unreached> {
    let name = target.name.as_str();
    let host = name.split_once('@').map_or("", |(_, host)| host);
    let address = resolve(host, target.epmd_port).await?;
    if target.is_elsewhere && address.ip().is_loopback() {
        return Err(Unreached::Loopback { host: host.to_owned(), address: address.ip() });
    }
    let Target { cookie, tls, .. } = target.clone();
    let node = Node { name: target.name.clone(), epmd: address, cookie, tls };
    match dial(&node, local, PATIENCE).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Unreached::NotReached(Arc::new(error))),
    }
}

/// Erlang takes an IPv4 address unless it was told otherwise.
async fn resolve(host: &str, port: u16) -> Result<SocketAddr, Unreached> {
    let unresolved = |why: String| Unreached::Unresolved { host: host.to_owned(), why };
    let found = match timeout(LOOK_UP, lookup_host((host, port))).await {
        Err(_) => return Err(unresolved(format!("no answer within {} s", LOOK_UP.as_secs()))),
        Ok(Err(error)) => return Err(unresolved(error.to_string())),
        Ok(Ok(found)) => found.collect::<Vec<_>>(),
    };
    let of_four = found.iter().find(|it| it.is_ipv4()).or(found.first()).copied();
    of_four.ok_or_else(|| unresolved("it has no address".to_owned()))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn tried(name: &str, epmd_port: u16, is_elsewhere: bool) -> Unreached {
        let name = Atom::new(name).unwrap();
        let target = Target { name, epmd_port, cookie: "oats".into(), tls: None, is_elsewhere };
        let local = Local { name: Atom::of("test@127.0.0.1"), creation: 5 };
        reach(&target, &local).await.unwrap_err()
    }

    #[tokio::test]
    async fn each_step_that_fails_is_told_apart() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let unresolved = tried("shop-1@no-such-host.invalid", free, true).await;
        assert_eq!(unresolved.word(), "unresolved");
        assert!(unresolved.to_string().contains("\"no-such-host.invalid\""), "{unresolved}");
        let itself = tried("shop-1@localhost", free, true).await;
        assert_eq!(itself.word(), "loopback");
        assert!(itself.to_string().contains("127.0.0.1"), "{itself}");
        assert_eq!(tried("shop-1@localhost", free, false).await.word(), "epmd", "nothing listens there");
    }
}
