//! From the name of a node to a stream on which hands were shaken: where it listens, the connection, TLS where it is spoken, the
//! handshake.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::epmd::{self, EpmdError};
use super::handshake::{HandshakeError, Lengths, Local, Peer, Step, shake_hands};
use super::term::Atom;
use super::tls;

/// Which node is dialled, and how.
#[derive(Clone, Debug)]
pub struct Node {
    /// With the `@` and the host.
    pub name: Atom,
    /// The name server that knows it. The node listens at the same address: it is on the same host.
    pub epmd: SocketAddr,
    pub cookie: SecretString,
    /// Where it speaks TLS, which a node does with all others or with none.
    pub tls: Option<Arc<ClientConfig>>,
}

/// Over TCP, or over TLS.
pub type Stream = Box<dyn Duplex>;

pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error(transparent)]
    Epmd(#[from] EpmdError),
    #[error("the node does not take a connection at {address}")]
    Refused { address: SocketAddr, source: io::Error },
    /// It does not speak TLS, one of the two does not accept the other's certificate, or there is no version that both speak.
    #[error("TLS with the node failed")]
    Tls(#[source] io::Error),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("the node did not answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
}

/// # Errors
/// Where one of the steps fails, or all together take longer than `patience`.
pub async fn dial(node: &Node, local: &Local, patience: Duration) -> Result<(Stream, Peer), DialError> {
    timeout(patience, step_by_step(node, local)).await.unwrap_or(Err(DialError::TimedOut(patience)))
}

async fn step_by_step(node: &Node, local: &Local) -> Result<(Stream, Peer), DialError> {
    // Where there is no `@`, the name server knows no such node.
    let name = node.name.as_str();
    let port = epmd::port_of(node.epmd, name.split_once('@').map_or(name, |(name, _)| name)).await?;
    let address = SocketAddr::new(node.epmd.ip(), port);
    let refused = |source| DialError::Refused { address, source };
    let mut tcp = TcpStream::connect(address).await.map_err(refused)?;
    // A question is not to wait for the next one.
    tcp.set_nodelay(true).map_err(refused)?;
    let Some(config) = &node.tls else {
        let peer = shake_hands(&mut tcp, Lengths::Short, local, &node.name, &node.cookie).await?;
        return Ok((Box::new(tcp), peer));
    };
    let host = tls::host_of(&node.name).ok_or_else(|| {
        DialError::Tls(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the node's name has no host to be verified",
        ))
    })?;
    let mut tls = TlsConnector::from(config.clone()).connect(host, tcp).await.map_err(DialError::Tls)?;
    let shaken = shake_hands(&mut tls, Lengths::Long, local, &node.name, &node.cookie).await;
    Ok((Box::new(tls), shaken.map_err(of_tls)?))
}

/// With TLS 1.3 a node looks at our certificate when we think that all is well, and what comes then instead of its first word
/// is its refusal, or just the end.
fn of_tls(error: HandshakeError) -> DialError {
    match error {
        HandshakeError::Io(error, _) if is_of_tls(&error) => DialError::Tls(error),
        HandshakeError::Closed(Step::Status) => DialError::Tls(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the node closed the connection; its log says whether it was our certificate",
        )),
        error => DialError::Handshake(error),
    }
}

fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>()).is_some()
}
