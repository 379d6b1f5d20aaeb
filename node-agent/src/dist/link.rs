//! Keeps one connection to one node up: dials, waits for its end, waits a little, dials again. Always says how it stands.
//!
//! ```text
//!   Dialling ──▶ Connected ──▶ Without ── a pause, then dialled ──▶ Connected, or Without for another reason
//! ```

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Lost, Settings};
use super::dial::{DialError, Node, Stream, dial};
use super::handshake::{HandshakeError, Local, Peer};
use crate::clock;

/// For all steps of dialling: some milliseconds on a host that is well. A node allows seven seconds itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// How it stands with a node.
#[derive(Clone, Debug, Default)]
pub enum Standing {
    /// For the first time.
    #[default]
    Dialling,
    Connected {
        connection: Connection,
        since_unix_ms: u64,
    },
    Without(Reason),
}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Reason {
    #[error(transparent)]
    NotReached(Arc<DialError>),
    /// There was one.
    #[error(transparent)]
    Lost(Lost),
}

/// A reason in a word, for those who count or show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// There is no name server, or it does not know the node.
    Epmd,
    /// Nothing listens where the node should.
    Refused,
    Tls,
    Cookie,
    /// Another is connected to the node under our name.
    NameClash,
    /// The node says nothing.
    Silent,
    /// Whoever answers is no node that can be talked to, or another one.
    Protocol,
    /// The node, or we, closed the connection.
    Closed,
}

impl Kind {
    /// For programs, and for those who search a log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Epmd => "epmd",
            Self::Refused => "refused",
            Self::Tls => "tls",
            Self::Cookie => "cookie",
            Self::NameClash => "name-clash",
            Self::Silent => "silent",
            Self::Protocol => "protocol",
            Self::Closed => "closed",
        }
    }
}

impl Reason {
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotReached(error) => match &**error {
                DialError::Epmd(_) => Kind::Epmd,
                DialError::Refused { .. } => Kind::Refused,
                DialError::Tls(_) => Kind::Tls,
                DialError::TimedOut(_) => Kind::Silent,
                DialError::Handshake(error) => match error {
                    HandshakeError::CookieRefused | HandshakeError::CookieUnknown => Kind::Cookie,
                    HandshakeError::NameTaken(_) => Kind::NameClash,
                    HandshakeError::Io(..) | HandshakeError::Closed(_) => Kind::Closed,
                    HandshakeError::NotAllowed(..)
                    | HandshakeError::OtherNode { .. }
                    | HandshakeError::TooOld(_)
                    | HandshakeError::Malformed(_) => Kind::Protocol,
                },
            },
            Self::Lost(Lost::Silent(_)) => Kind::Silent,
            Self::Lost(Lost::Nonsense(_)) => Kind::Protocol,
            Self::Lost(Lost::ClosedByPeer | Lost::Failed(_) | Lost::ClosedHere) => Kind::Closed,
        }
    }
}

/// What is shown to a node and trusted of it, where it speaks TLS. Asked before each dial: certificates are renewed.
pub trait Credentials: Send + Sync {
    /// # Errors
    /// Where there is nothing to be shown at present.
    fn now(&self) -> io::Result<Arc<ClientConfig>>;
}

/// Which node is kept up with, as whom.
pub struct Link {
    pub node: Node,
    pub local: Local,
    pub settings: Settings,
    /// In the place of `node.tls`.
    pub credentials: Option<Arc<dyn Credentials>>,
}

impl Link {
    /// Until cancelled. The connection is then closed.
    pub async fn run(self, standing: watch::Sender<Standing>, cancel: CancellationToken) {
        let mut pauses = Pauses::default();
        loop {
            let dialled = tokio::select! {
                biased; // stopping comes before all
                () = cancel.cancelled() => return,
                dialled = self.dial() => dialled,
            };
            let (reason, lasted) = match dialled {
                Err(error) => (Reason::NotReached(Arc::new(error)), Duration::ZERO),
                Ok((stream, peer)) => {
                    let began = Instant::now();
                    let (connection, work) =
                        Connection::new(stream, &self.local, peer, self.settings, cancel.child_token());
                    let since_unix_ms = clock::unix_ms();
                    standing
                        .send_replace(Standing::Connected { connection: connection.clone(), since_unix_ms });
                    work.await;
                    (Reason::Lost(connection.lost().await), began.elapsed())
                }
            };
            standing.send_replace(Standing::Without(reason));
            tokio::select! {
                biased; // as above
                () = cancel.cancelled() => return,
                () = sleep(pauses.next(lasted, rand::random())) => {}
            }
        }
    }
}

impl Link {
    async fn dial(&self) -> Result<(Stream, Peer), DialError> {
        let tls = match &self.credentials {
            Some(credentials) => Some(credentials.now().map_err(DialError::Tls)?),
            None => self.node.tls.clone(),
        };
        dial(&Node { tls, ..self.node.clone() }, &self.local, PATIENCE).await
    }
}

const FIRST: Duration = Duration::from_millis(100);

/// A node of the same host costs little to dial, and whoever looks at it wants to see it soon.
const LONGEST: Duration = Duration::from_secs(5);

/// A connection that lasted as long was a good one.
const SETTLED: Duration = Duration::from_secs(10);

/// How long to wait before dialling again. Pure: chance comes in as a number.
#[derive(Debug, Default)]
struct Pauses {
    /// One after the other, up to now.
    failures: u32,
}

impl Pauses {
    /// Doubles with each failure; half of it is up to chance, so that the nodes of a host are not all dialled at once.
    /// `lasted`: how long the last connection did; none, where there was none. `chance`: 0 to 1.
    fn next(&mut self, lasted: Duration, chance: f64) -> Duration {
        if lasted >= SETTLED {
            self.failures = 0;
        }
        let whole = FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        whole / 2 + (whole / 2).mul_f64(chance.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_a_good_connection_begins_anew() {
        let mut pauses = Pauses::default();
        for expected in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            // One that ends at once is no better than none.
            assert_eq!(pauses.next(Duration::from_secs(1), 1.0), Duration::from_millis(expected));
        }
        assert_eq!(pauses.next(SETTLED, 1.0), FIRST);
        for _ in 0..100 {
            pauses.next(Duration::ZERO, 1.0);
        }
        assert_eq!(pauses.next(Duration::ZERO, 1.0), LONGEST);
    }

    #[test]
    fn chance_decides_half_of_a_pause() {
        assert_eq!(Pauses::default().next(Duration::ZERO, 0.0), FIRST / 2);
        assert_eq!(Pauses::default().next(Duration::ZERO, 0.5), FIRST * 3 / 4);
    }
}
