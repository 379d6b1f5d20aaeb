//! From the name of a node to a stream on which hands were shaken: where it listens, the connection, the handshake.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::epmd::{self, EpmdError};
use super::handshake::{HandshakeError, Lengths, Local, Peer, shake_hands};
use super::term::Atom;

/// Which node is dialled, and how.
#[derive(Clone, Debug)]
pub struct Node {
    /// With the `@` and the host.
    pub name: Atom,
    /// The name server that knows it. The node listens at the same address: it is on the same host.
    pub epmd: SocketAddr,
    pub cookie: SecretString,
}

#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error(transparent)]
    Epmd(#[from] EpmdError),
    #[error("the node does not take a connection at {address}")]
    Refused { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("the node did not answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
}

/// # Errors
/// Where one of the steps fails, or all together take longer than `patience`.
pub async fn dial(node: &Node, local: &Local, patience: Duration) -> Result<(TcpStream, Peer), DialError> {
    let dialled = async {
        // Where there is no `@`, the name server knows no such node.
        let name = node.name.as_str();
        let port = epmd::port_of(node.epmd, name.split_once('@').map_or(name, |(name, _)| name)).await?;
        let address = SocketAddr::new(node.epmd.ip(), port);
        let refused = |source| DialError::Refused { address, source };
        let mut stream = TcpStream::connect(address).await.map_err(refused)?;
        // A question is not to wait for the next one.
        stream.set_nodelay(true).map_err(refused)?;
        let peer = shake_hands(&mut stream, Lengths::Short, local, &node.name, &node.cookie).await?;
        Ok((stream, peer))
    };
    timeout(patience, dialled).await.unwrap_or(Err(DialError::TimedOut(patience)))
}
