//! One connection to the control plane: TCP, TLS with this host's certificate, HTTP/2. And why it could not be had, in
//! words that say what to do.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_PORT: u16 = 5002;

/// Bytes on their way in one call that nobody has read yet.
const WINDOW: u32 = 1 << 20;

/// Where the control plane listens for agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the address of a control plane: https://HOST:5002 is needed")]
pub struct BadAddress(String);

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress(text.chars().take(200).collect());
        let authority = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
        let authority: tonic::codegen::http::uri::Authority = authority.parse().map_err(|_| bad())?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if authority.as_str().contains('@') || ServerName::try_from(host).is_err() {
            return Err(bad());
        }
        Ok(Self { host: host.to_owned(), port: authority.port_u16().unwrap_or(DEFAULT_PORT) })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "https://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "https://{}:{}", self.host, self.port)
        }
    }
}

/// Why there is no connection, or no more.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("{address} cannot be reached")]
    Unreachable {
        address: Address,
        #[source]
        source: io::Error,
    },
    #[error("{address} did not answer in time")]
    TimedOut { address: Address },
    #[error(
        "{address} is not the control plane that this host knows: its certificate is of another authority; if the control \
         plane was set up anew, enrol this host anew"
    )]
    Foreign { address: Address },
    #[error(
        "the control plane's certificate does not carry the name {}: dial a name that it has, or set `agents.public` on it",
        address.host
    )]
    Name { address: Address },
    #[error("the control plane's certificate is not valid now: compare the clocks of both hosts")]
    Clock,
    #[error(
        "{address} does not speak TLS: agents have a port of their own on the control plane, 5002 unless `agents.port` says \
         otherwise, and the console's is another"
    )]
    NoTls { address: Address },
    #[error("no secure connection to {address}")]
    Tls {
        address: Address,
        #[source]
        source: io::Error,
    },
    #[error(
        "the control plane rejected this host's certificate ({0}): if it does not pass, enrol this host anew"
    )]
    Rejected(String),
    #[error("the control plane refused: {0}")]
    Refused(String),
    #[error("the connection to the control plane broke")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
    #[error("the control plane ended the session: {0}")]
    Ended(String),
    #[error("the control plane fell silent")]
    Silent,
    #[error("the control plane does not speak the protocol: {0}")]
    Protocol(&'static str),
}

impl LinkError {
    /// Trying again soon will not help: a person has to do something first.
    pub fn needs_a_person(&self) -> bool {
        matches!(self, Self::Foreign { .. } | Self::Name { .. } | Self::Rejected(_) | Self::Refused(_))
    }

    pub(super) fn of_status(status: Status) -> Self {
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition => {
                Self::Refused(status.message().to_owned())
            }
            Code::Aborted => Self::Ended(status.message().to_owned()),
            Code::Unavailable if status.source().is_none() => Self::Ended(status.message().to_owned()),
            _ => Self::Broken(Box::new(status)),
        }
    }

    fn of_handshake(address: &Address, error: io::Error) -> Self {
        let address = address.clone();
        match tls_error(&error) {
            Some(rustls::Error::InvalidCertificate(why)) => match why {
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    Self::Name { address }
                }
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::Clock,
                _ => Self::Foreign { address },
            },
            Some(rustls::Error::AlertReceived(alert)) => {
                words(*alert).map_or(Self::Tls { address, source: error }, |it| Self::Rejected(it.to_owned()))
            }
            Some(rustls::Error::InvalidMessage(_)) => Self::NoTls { address },
            _ => Self::Tls { address, source: error },
        }
    }
}

/// A channel over one connection: when it breaks, calls fail and somebody has to dial again.
#[derive(Clone)]
pub(super) struct Wire {
    pub(super) channel: Channel,
    rejection: Rejection,
}

impl Wire {
    /// Why a call over this connection failed.
    pub(super) fn explain(&self, status: Status) -> LinkError {
        self.rejection.told().unwrap_or_else(|| LinkError::of_status(status))
    }
}

/// Where a connection notes that the other end rejected our certificate. TLS 1.3 reports it after the handshake, to
/// whoever reads next, and HTTP/2 would keep no more of it than a text.
#[derive(Clone, Default)]
struct Rejection(Arc<OnceLock<&'static str>>);

impl Rejection {
    fn told(&self) -> Option<LinkError> {
        self.0.get().map(|why| LinkError::Rejected((*why).to_owned()))
    }

    fn note(&self, error: &io::Error) {
        if let Some(rustls::Error::AlertReceived(alert)) = tls_error(error)
            && let Some(why) = words(*alert)
        {
            // The first says it; there is no second.
            let _ = self.0.set(why);
        }
    }
}

pub(super) async fn dial(address: &Address, config: Arc<ClientConfig>) -> Result<Wire, LinkError> {
    let late = |_| LinkError::TimedOut { address: address.clone() };
    let unreachable = |source| LinkError::Unreachable { address: address.clone(), source };
    let tcp = timeout(CONNECT_TIMEOUT, TcpStream::connect((address.host.as_str(), address.port)))
        .await
        .map_err(late)?
        .map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    let name =
        ServerName::try_from(address.host.clone()).map_err(|error| unreachable(io::Error::other(error)))?;
    let tls = timeout(CONNECT_TIMEOUT, TlsConnector::from(config).connect(name, tcp))
        .await
        .map_err(late)?
        .map_err(|error| LinkError::of_handshake(address, error))?;

    let rejection = Rejection::default();
    let broken = |error: tonic::transport::Error| {
        rejection.told().unwrap_or_else(|| LinkError::Broken(Box::new(error)))
    };
    let mut connection = Some(TokioIo::new(Noting { tls, rejection: rejection.clone() }));
    let connector = tower::service_fn(move |_| {
        let connection = connection.take();
        async move { connection.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    // TLS is done already: tonic is to add none, which it would to "https".
    let channel = Endpoint::from_shared(address.to_string().replacen("https", "http", 1))
        .map_err(broken)?
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .buffer_size(16)
        .connect_with_connector(connector)
        .await
        .map_err(broken)?;
    Ok(Wire { channel, rejection })
}

/// The connection as it is, but for noting a rejection.
struct Noting {
    tls: TlsStream<TcpStream>,
    rejection: Rejection,
}

impl AsyncRead for Noting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.tls).poll_read(cx, buffer);
        if let Poll::Ready(Err(error)) = &read {
            self.rejection.note(error);
        }
        read
    }
}

impl AsyncWrite for Noting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

/// An `io::Error` hides the error that it carries from `source`.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn words(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::CertificateExpired => "it expired too long ago to be renewed",
        AlertDescription::CertificateRevoked => "it was revoked",
        AlertDescription::UnknownCA => "it is of an authority that the control plane does not know",
        AlertDescription::CertificateRequired => "none was shown",
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => "it is not one of a node",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[test]
    fn an_address_reads_with_and_without_scheme_and_port() {
        for (text, shown) in [
            ("https://deployex.example.com:5002", "https://deployex.example.com:5002"),
            ("https://deployex.example.com/", "https://deployex.example.com:5002"),
            ("10.0.0.1:7", "https://10.0.0.1:7"),
            ("https://[::1]:5002", "https://[::1]:5002"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for bad in ["", "http://host:5002", "https://", "https://user@host:1", "https://host:1/path", "ho st"]
        {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn the_consoles_port_is_told_from_the_agents() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: Address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let console = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            stream
        };
        let config = super::super::identity::client_config()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let (dialled, _open) = tokio::join!(dial(&address, Arc::new(config)), console);
        let error = dialled.map(drop).unwrap_err();
        assert!(error.to_string().contains("does not speak TLS"), "{error:?}");
    }

    #[test]
    fn a_refusal_is_told_in_the_control_planes_words() {
        let error = LinkError::of_status(Status::permission_denied("this node was removed from the fleet"));
        assert!(error.needs_a_person());
        assert!(error.to_string().ends_with("this node was removed from the fleet"));
        assert!(!LinkError::of_status(Status::unavailable("stopping")).needs_a_person());
    }
}
