//! Takes connections from agents: TCP, TLS, and who is at the other end, before any byte reaches gRPC.
//!
//! What costs memory or time is capped here: handshakes at once and how long each may take, connections of known nodes, and
//! fewer and shorter ones of strangers, who can only want to enrol.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected;

use super::pki::Identity;
use super::roster::Roster;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// More at once would only make each slower: a handshake is a millisecond of one core.
const HANDSHAKES: usize = 512;

/// Five thousand agents with two connections each, twice.
const CONNECTIONS: usize = 20_000;

/// Enrolments at once. They share nothing with known nodes, so that a crowd of strangers locks no node out.
const STRANGERS: usize = 256;

/// An enrolment is one call.
const STRANGER_LIFE: Duration = Duration::from_secs(30);

/// Who is at the other end of a connection. Found in each request's extensions.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// `None`: showed no certificate.
    pub(super) identity: Option<Identity>,
}

/// One connection, ready for gRPC.
pub(super) struct Connection {
    tls: TlsStream<TcpStream>,
    peer: Peer,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    end: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

/// Accepts until told to stop. `ready` takes the connections whose handshake is done.
pub(super) struct Listener {
    acceptor: TlsAcceptor,
    roster: Arc<Roster>,
    known: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

impl Listener {
    pub(super) fn new(config: ServerConfig, roster: Arc<Roster>) -> Self {
        Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            roster,
            known: Arc::new(Semaphore::new(CONNECTIONS)),
            strangers: Arc::new(Semaphore::new(STRANGERS)),
        }
    }

    pub(super) async fn run(
        self,
        listener: TcpListener,
        ready: mpsc::Sender<io::Result<Connection>>,
        cancel: CancellationToken,
    ) {
        let this = Arc::new(self);
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        let tasks = TaskTracker::new();
        loop {
            let Ok(turn) = Arc::clone(&handshakes).acquire_owned().await else { break };
            let accepted = tokio::select! {
                biased; // stopping comes before new work
                () = cancel.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let (tcp, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Most often no file descriptors are left: trying again at once would only burn the core.
                    tracing::warn!(%error, "cannot take a connection from an agent");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (this, ready, cancel) = (Arc::clone(&this), ready.clone(), cancel.clone());
            tasks.spawn(async move {
                let admitted = tokio::select! {
                    biased; // stopping comes before new work
                    () = cancel.cancelled() => return,
                    admitted = timeout(HANDSHAKE_TIMEOUT, this.admit(tcp, address)) => admitted,
                };
                drop(turn);
                match admitted {
                    Ok(Ok(connection)) => drop(ready.send(Ok(connection)).await),
                    Ok(Err(error)) => tracing::debug!(%address, %error, "refused a connection"),
                    Err(_) => tracing::debug!(%address, "a connection did not finish its handshake in time"),
                }
            });
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn admit(&self, tcp: TcpStream, address: SocketAddr) -> io::Result<Connection> {
        tcp.set_nodelay(true)?;
        let tls = self.acceptor.accept(tcp).await?;
        let identity = match tls.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            Some(certificate) => Some(Identity::read(certificate).map_err(io::Error::other)?),
            None => None,
        };
        let places = if identity.is_some() { &self.known } else { &self.strangers };
        let place = Arc::clone(places)
            .try_acquire_owned()
            .map_err(|_| io::Error::other("no more connections are taken"))?;
        let cut = identity.as_ref().map_or_else(CancellationToken::new, |it| self.roster.connected(it.node));
        let end = identity.is_none().then(|| Box::pin(sleep(STRANGER_LIFE)));
        let peer = Peer { address, identity };
        Ok(Connection { tls, peer, cut: Box::pin(cut.cancelled_owned()), end, _place: place })
    }
}

impl Connection {
    /// An error once the node was cut off or a stranger's time is over.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let cut = self.cut.as_mut().poll(cx).is_ready();
        let late = self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready());
        if cut || late { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_over(cx)?;
        Pin::new(&mut self.tls).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_over(cx)?;
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
