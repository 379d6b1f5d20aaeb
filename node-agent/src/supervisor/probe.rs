//! Asks a replica whether it is ready, and later whether it still answers, as its application's settings say.
//!
//! Only asks, and counts what was answered; what that means for the replica is the machine's business.

mod exec;
mod http;
mod streak;
mod telling;
mod told;
mod watch;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use proto::pb;
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(super) use self::exec::Order;
pub(super) use self::told::{is_asked_live, live, ready};
pub(super) use self::watch::{Watch, watch};
use super::Shared;
use super::acts::{self, SlotContext};
use super::hindrance::is_ours;
use crate::keeper::procfs::Stat;

/// Until the first success a start is watched closely: a virtual machine is up in half a second.
const STARTING_INTERVAL: Duration = Duration::from_millis(50);
/// The same for one that answers and is not ready yet: each question is work for it.
const ANSWERING_INTERVAL: Duration = Duration::from_millis(250);
/// And for one that is asked by a program of its own.
const EXEC_INTERVAL: Duration = Duration::from_millis(500);
/// After so many questions without success nothing is gained by asking so often.
const STARTING_PATIENCE: u32 = 1_200;

/// Of what was answered or printed, in bytes: this much is read …
const READ_MAX: usize = 4 << 10;
/// … and this much is told.
const BODY_MAX: usize = 1 << 10;

/// One question, and how it is put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) ask: Ask,
    /// Between an answer and the next question.
    pub(super) interval: Duration,
    /// Over the whole of a question.
    pub(super) timeout: Duration,
    /// So many answers of one kind in a row count.
    pub(super) after: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// That its process lives.
    Process,
    Tcp {
        port: u16,
    },
    Http {
        port: u16,
        path: String,
        expect: u16,
    },
    Exec {
        line: String,
    },
    /// It names none of the ports that the replica was given.
    NoSuchPort {
        key: String,
    },
}

/// Why a question was not answered as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// As in `answered 503`.
    pub(super) outcome: String,
    /// The first part of what was answered, or the last of what was printed; at most [`BODY_MAX`] bytes.
    pub(super) body: String,
    /// Nobody was disturbed by the question.
    pub(super) nobody_there: bool,
    /// It could not be put: this agent or its host lacks something. That says nothing of the replica.
    pub(super) unasked: bool,
}

impl Failure {
    fn of(outcome: impl Into<String>) -> Self {
        Self { outcome: outcome.into(), body: String::new(), nobody_there: false, unasked: false }
    }

    fn late(within: Duration) -> Self {
        Self::of(format!("had no answer within {} ms", within.as_millis()))
    }

    fn connecting(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::ConnectionRefused => {
                Self { nobody_there: true, ..Self::of("found nobody listening") }
            }
            _ => Self { unasked: is_ours(error), ..Self::of(format!("could not connect: {error}")) },
        }
    }
}

impl Probe {
    /// The port whose answer counts.
    pub(super) fn port(&self) -> Option<u16> {
        match self.ask {
            Ask::Tcp { port } | Ask::Http { port, .. } => Some(port),
            Ask::Process | Ask::Exec { .. } | Ask::NoSuchPort { .. } => None,
        }
    }

    /// As in `GET /health on port 4000`.
    fn asked(&self) -> String {
        match &self.ask {
            Ask::Process => "its process".to_owned(),
            Ask::Tcp { port } => format!("TCP on port {port}"),
            Ask::Http { port, path, .. } => format!("GET {path} on port {port}"),
            Ask::Exec { line } => format!("`{line}`"),
            Ask::NoSuchPort { key } => format!("port {key}"),
        }
    }

    /// How long to wait with the next question. `closely`: it has not succeeded yet.
    fn pause(&self, closely: bool, failure: Option<&Failure>) -> Duration {
        let pause = match (&self.ask, failure) {
            _ if !closely => self.interval,
            (Ask::Exec { .. }, _) => EXEC_INTERVAL,
            (_, Some(Failure { nobody_there: false, .. })) => ANSWERING_INTERVAL,
            _ => STARTING_INTERVAL,
        };
        pause.min(self.interval)
    }
}

/// Whom the questions of one slot are put by.
pub(super) struct Asker {
    pub(super) shared: Arc<Shared>,
    pub(super) context: Arc<SlotContext>,
    /// Of the replica.
    pub(super) pid: u32,
    /// The settings with which the replica was launched.
    pub(super) app: pb::Application,
}

impl Asker {
    /// `order`: what an `exec` probe runs, once that is known.
    async fn ask(&self, probe: &Probe, order: &mut Option<Order>) -> Result<(), Failure> {
        // The kernel goes on taking connections for it, as many as its queue holds.
        if Stat::of(self.pid).is_some_and(|it| it.stopped) {
            return Err(Failure::of("found its process standing still: a signal (SIGSTOP) has stopped it"));
        }
        match &probe.ask {
            Ask::Process => Ok(()),
            Ask::Tcp { port } => match timeout(probe.timeout, connect(*port)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(Failure::connecting(&error)),
                Err(_) => Err(Failure::late(probe.timeout)),
            },
            Ask::Http { port, path, expect } => http::get(*port, path, *expect, probe.timeout).await,
            Ask::Exec { line } => {
                if order.is_none() {
                    let made = acts::probe_order(&self.shared, &self.context, &self.app, line);
                    *order = Some(made.map_err(|error| Failure::of(format!("cannot be run: {error:#}")))?);
                }
                match order {
                    Some(order) => exec::run(order, probe.timeout).await,
                    None => Ok(()),
                }
            }
            Ask::NoSuchPort { .. } => Err(Failure::of("is none of those that this replica was given")),
        }
    }
}

/// On either loopback address: applications listen on one or the other.
async fn connect(port: u16) -> std::io::Result<TcpStream> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    match TcpStream::connect(v4).await {
        Ok(stream) => Ok(stream),
        Err(error) => {
            TcpStream::connect(v6).await.map_err(|other| if is_ours(&other) { other } else { error })
        }
    }
}

/// The first part of what somebody else said, as text.
fn first_part(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text[..text.floor_char_boundary(BODY_MAX)].replace('\0', " ")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    #[tokio::test]
    async fn what_we_were_not_able_to_ask_is_no_answer() {
        let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listening.local_addr().unwrap().port();
        assert!(connect(port).await.is_ok());
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(3), maximum: before.maximum }).unwrap();
        let without_files = connect(port).await;
        setrlimit(Resource::Nofile, before).unwrap();
        assert!(Failure::connecting(&without_files.unwrap_err()).unasked);
        drop(listening);
        let nobody = Failure::connecting(&connect(port).await.unwrap_err());
        assert!(nobody.nobody_there && !nobody.unasked);
    }

    #[test]
    fn a_start_is_watched_closely_and_who_has_to_work_for_its_answer_less_so() {
        let probe =
            |ask| Probe { ask, interval: Duration::from_secs(1), timeout: Duration::from_secs(2), after: 1 };
        let http = probe(Ask::Http { port: 1, path: "/".to_owned(), expect: 200 });
        let exec = probe(Ask::Exec { line: "true".to_owned() });
        let (answers, absent) =
            (Failure::of("answered 503"), Failure { nobody_there: true, ..Failure::of("") });
        assert_eq!(http.pause(true, Some(&absent)), STARTING_INTERVAL);
        assert_eq!(http.pause(true, Some(&answers)), ANSWERING_INTERVAL);
        assert_eq!(http.pause(true, None), STARTING_INTERVAL);
        assert_eq!(exec.pause(true, Some(&answers)), EXEC_INTERVAL);
        for failure in [None, Some(&answers), Some(&absent)] {
            assert_eq!(http.pause(false, failure), Duration::from_secs(1));
        }
        let often = Probe { interval: Duration::from_millis(100), ..exec };
        assert_eq!(often.pause(true, None), Duration::from_millis(100));
    }
}
