//! Erlang's name server: at which port a node listens.
//!
//! It is asked and nothing is told to it: a node that others are not to dial need not be known. See "Protocol between EPMD and
//! Distributed Erlang Nodes" in the ERTS User's Guide.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

const PORT_PLEASE2: u8 = 122;
const PORT2_RESPONSE: u8 = 119;

#[derive(Debug, thiserror::Error)]
pub enum EpmdError {
    #[error("the Erlang name server at {address} cannot be reached")]
    Unreachable { address: SocketAddr, source: io::Error },
    #[error("the Erlang name server at {address} knows no node {name:?}")]
    Unknown { address: SocketAddr, name: String },
    #[error("what listens at {address} does not answer as an Erlang name server does")]
    Foreign { address: SocketAddr },
}

/// The port of the node whose name before the `@` is `name`.
///
/// # Errors
/// Where there is no name server, it knows no such node, or something else listens there. Bounded by the caller's time.
pub async fn port_of(address: SocketAddr, name: &str) -> Result<u16, EpmdError> {
    let unreachable = |source| EpmdError::Unreachable { address, source };
    let mut stream = TcpStream::connect(address).await.map_err(unreachable)?;
    ask(&mut stream, address, name).await
}

/// On a connection that was made to the name server at `address`.
pub(super) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    address: SocketAddr,
    name: &str,
) -> Result<u16, EpmdError> {
    let unreachable = |source| EpmdError::Unreachable { address, source };
    let foreign = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => EpmdError::Foreign { address },
        _ => EpmdError::Unreachable { address, source: error },
    };
    let unknown = || EpmdError::Unknown { address, name: name.to_owned() };
    let length = u16::try_from(name.len() + 1).map_err(|_| unknown())?;
    let mut request = length.to_be_bytes().to_vec();
    request.push(PORT_PLEASE2);
    request.extend_from_slice(name.as_bytes());
    stream.write_all(&request).await.map_err(unreachable)?;
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.map_err(foreign)?;
    match head {
        // Type, versions and name of the node follow, which are of no use: the handshake tells them.
        [PORT2_RESPONSE, 0] => stream.read_u16().await.map_err(foreign),
        [PORT2_RESPONSE, _] => Err(unknown()),
        _ => Err(EpmdError::Foreign { address }),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_util::task::TaskTracker;

    use super::*;

    /// Says this to whoever asks, and returns what was asked.
    async fn answering(answer: &'static [u8]) -> (SocketAddr, tokio::task::JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = TaskTracker::new().spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).await.unwrap();
            let mut asked = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut asked).await.unwrap();
            stream.write_all(answer).await.unwrap();
            asked
        });
        (address, asked)
    }

    #[tokio::test]
    async fn a_node_that_is_known_has_a_port() {
        let (address, asked) = answering(&[119, 0, 0x1f, 0x90, 77, 0, 0, 6, 0, 5]).await;
        assert_eq!(port_of(address, "shop-1").await.unwrap(), 8080);
        assert_eq!(asked.await.unwrap(), b"zshop-1");
    }

    #[tokio::test]
    async fn what_is_wrong_is_told_apart() {
        let (address, _asked) = answering(&[119, 1]).await;
        let error = port_of(address, "shop-1").await.unwrap_err().to_string();
        assert_eq!(error, format!("the Erlang name server at {address} knows no node \"shop-1\""));
        for answer in [&b"HT"[..], b"w"] {
            let (address, _asked) = answering(answer).await;
            assert!(matches!(port_of(address, "a").await, Err(EpmdError::Foreign { .. })));
        }
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(matches!(port_of(free, "a").await, Err(EpmdError::Unreachable { .. })));
    }
}
