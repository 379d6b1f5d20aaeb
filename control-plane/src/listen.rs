//! Sockets of the console and the API: accepts, speaks TLS where configured, gives each request its [`Peer`], stops gracefully.
//!
//! Our own loop rather than axum's, which has no time-out for a client that never finishes its headers or its handshake.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::auth::client::Peer;
use crate::config::TlsFiles;
use crate::error::chain;

/// Connections at one time on one listener. A browser holds a few; agents have a listener of their own.
const MAX_CONNECTIONS: usize = 2_048;
/// For the TLS handshake, and for all headers of a request.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// An idle HTTP/2 connection is asked whether anybody is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long requests under way may take once the program stops.
const GRACE: Duration = Duration::from_secs(5);
/// Before it is tried again where the system has no descriptor left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
const HTTP2_STREAMS: u32 = 128;

/// A bound listener that nobody has connected to yet.
pub enum Listener {
    Tcp { listener: TcpListener, tls: Option<TlsAcceptor> },
    Socket { listener: UnixListener, path: PathBuf },
}

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {address}; is another program using it?")]
    Bind {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen on the local socket {path}", path = path.display())]
    Socket {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot use {path} for TLS: it must be PEM, readable by this user", path = path.display())]
    Pem {
        path: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("{path} holds no certificate for TLS", path = path.display())]
    NoCertificate { path: PathBuf },
    #[error(
        "the certificate {certificate} and the key {key} for TLS do not go together",
        certificate = files.certificate.display(),
        key = files.key.display()
    )]
    Tls {
        files: TlsFiles,
        #[source]
        source: rustls::Error,
    },
}

impl Listener {
    pub async fn tcp(address: SocketAddr, tls: Option<&TlsFiles>) -> Result<Self, ListenError> {
        let tls = tls.map(acceptor).transpose()?;
        let bound = TcpListener::bind(address).await;
        let listener = bound.map_err(|source| ListenError::Bind { address, source })?;
        Ok(Self::Tcp { listener, tls })
    }

    /// A socket that is left over from a program that was killed is replaced; one that answers is not.
    pub async fn socket(path: &Path) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Socket { path: path.to_owned(), source };
        if tokio::net::UnixStream::connect(path).await.is_ok() {
            return Err(failed(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another control plane answers on it",
            )));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        // Everybody may knock: who it is, the kernel says, and that decides.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(path, everybody).map_err(failed)?;
        Ok(Self::Socket { listener, path: path.to_owned() })
    }

    /// The address that was bound, of a TCP listener.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp { listener, .. } => listener.local_addr().ok(),
            Self::Socket { .. } => None,
        }
    }

    /// Serves until cancelled; then takes no more, lets requests finish for a while and ends what is left.
    pub async fn serve(self, router: Router, cancel: CancellationToken) {
        let (tracker, room) = (TaskTracker::new(), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
        let end = CancellationToken::new();
        loop {
            let accepted = tokio::select! {
                biased; // why: a listener under load must still stop
                () = cancel.cancelled() => break,
                accepted = self.accept(&room) => accepted,
            };
            let Ok((stream, peer, permit)) = accepted else {
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            };
            let (router, cancel, end) = (router.clone(), cancel.clone(), end.clone());
            tracker.spawn(async move {
                tokio::select! {
                    biased; // why: the grace is over for everybody at once
                    () = end.cancelled() => {}
                    () = converse(stream, peer, router, cancel) => {}
                }
                drop(permit);
            });
        }
        tracker.close();
        if tokio::time::timeout(GRACE, tracker.wait()).await.is_err() {
            end.cancel();
            tracker.wait().await;
        }
        if let Self::Socket { path, .. } = &self {
            let _ = std::fs::remove_file(path);
        }
    }

    async fn accept(
        &self,
        room: &Arc<Semaphore>,
    ) -> io::Result<(Stream, Peer, tokio::sync::OwnedSemaphorePermit)> {
        let permit = room.clone().acquire_owned().await.map_err(io::Error::other)?;
        match self {
            Self::Tcp { listener, tls } => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let peer = Peer::Tcp { address: address.ip(), tls: tls.is_some() };
                Ok((Stream::Tcp(stream, tls.clone()), peer, permit))
            }
            Self::Socket { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                Ok((Stream::Socket(stream), Peer::Socket { uid }, permit))
            }
        }
    }
}

enum Stream {
    Tcp(tokio::net::TcpStream, Option<TlsAcceptor>),
    Socket(tokio::net::UnixStream),
}

async fn converse(stream: Stream, peer: Peer, router: Router, cancel: CancellationToken) {
    match stream {
        Stream::Socket(stream) => speak_http(stream, peer, router, cancel).await,
        Stream::Tcp(stream, None) => speak_http(stream, peer, router, cancel).await,
        Stream::Tcp(stream, Some(tls)) => {
            match tokio::time::timeout(HEADERS_WITHIN, tls.accept(stream)).await {
                Ok(Ok(stream)) => speak_http(stream, peer, router, cancel).await,
                Ok(Err(error)) => tracing::debug!(?peer, error = chain(&error), "a TLS handshake failed"),
                Err(_) => tracing::debug!(?peer, "a TLS handshake took too long"),
            }
        }
    }
}

async fn speak_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    router: Router,
    cancel: CancellationToken,
) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        router.clone().oneshot(request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .max_concurrent_streams(HTTP2_STREAMS);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let graceful = GracefulShutdown::new();
    let connection = graceful.watch(connection.into_owned());
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased; // why: a request that is under way when the program stops is finished below
        ended = &mut connection => ended,
        () = cancel.cancelled() => {
            let (ended, ()) = tokio::join!(connection, graceful.shutdown());
            ended
        }
    };
    if let Err(error) = ended {
        tracing::debug!(?peer, error = error.to_string(), "a connection ended early");
    }
}

/// Whether connections could be served with these.
pub fn check(files: &TlsFiles) -> Result<(), ListenError> {
    acceptor(files).map(drop)
}

fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, ListenError> {
    let bad = |path: &Path| {
        let path = path.to_owned();
        move |source| ListenError::Pem { path, source }
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(bad(&files.certificate))?;
    if chain.is_empty() {
        return Err(ListenError::NoCertificate { path: files.certificate.clone() });
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(bad(&files.key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.and_then(|it| it.with_no_client_auth().with_single_cert(chain, key));
    let mut config = config.map_err(|source| ListenError::Tls { files: files.clone(), source })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests;
