//! Asks a replica whether it is ready, and later whether it still answers, as its application's settings say.
//!
//! Only asks, and counts what was answered; what that means for the replica is the machine's business.

mod exec;
mod http;
mod otp;
mod prove;
mod streak;
mod telling;
mod told;
mod watch;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use proto::pb;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

pub(super) use self::exec::Order;
pub(super) use self::otp::NodeEnd;
pub(super) use self::prove::prove;
pub(super) use self::told::{is_asked_live, live, ready};
pub(super) use self::watch::{Watch, watch};
use super::Shared;
use super::acts::{self, SlotContext};
use super::hindrance::is_ours;
use crate::clock::Time;
use crate::keeper::procfs::Stat;

/// Until the first success a start is watched closely: a virtual machine is up in half a second.
const STARTING_INTERVAL: Duration = Duration::from_millis(50);
/// The same for one that answers and is not ready yet: each question is work for it.
const ANSWERING_INTERVAL: Duration = Duration::from_millis(250);
/// And for one that is asked by a program of its own.
const EXEC_INTERVAL: Duration = Duration::from_millis(500);
/// After so many questions without success nothing is gained by asking so often.
const STARTING_PATIENCE: u32 = 1_200;

/// Where the settings name no interval, between questions that are answered as they should be …
const CALM_INTERVAL: Duration = Duration::from_secs(5);
/// … and from one that was not.
const DOUBT_INTERVAL: Duration = Duration::from_secs(1);

/// Of what was answered or printed, in bytes: this much is read …
const READ_MAX: usize = 4 << 10;
/// … and this much is told.
const BODY_MAX: usize = 1 << 10;

/// One question, and how it is put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) ask: Ask,
    pub(super) pace: Pace,
    /// Over the whole of a question.
    pub(super) timeout: Duration,
    /// So many answers of one kind in a row count.
    pub(super) after: u32,
}

/// How long it is from an answer to the next question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// As the settings name it.
    Every(Duration),
    /// They name none: rarely while every answer is as it should be, because an agent asks all its replicas for ever, and
    /// soon once one is not.
    Usual,
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
    /// That its Erlang node answers and this OTP application is started.
    Otp {
        application: String,
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
    /// Another process in its place would fare no better: nothing is ended for it.
    pub(super) blameless: bool,
}

impl Failure {
    fn of(outcome: impl Into<String>) -> Self {
        Self {
            outcome: outcome.into(),
            body: String::new(),
            nobody_there: false,
            unasked: false,
            blameless: false,
        }
    }

    fn late(within: Duration) -> Self {
        Self::of(format!("had no answer within {} ms", within.as_millis()))
    }

    fn connecting(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => {
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
            Ask::Process | Ask::Exec { .. } | Ask::Otp { .. } | Ask::NoSuchPort { .. } => None,
        }
    }

    /// As in `GET /health on port 4000`.
    fn asked(&self) -> String {
        match &self.ask {
            Ask::Process => "its process".to_owned(),
            Ask::Tcp { port } => format!("TCP on port {port}"),
            Ask::Http { port, path, .. } => format!("GET {path} on port {port}"),
            Ask::Exec { line } => format!("`{line}`"),
            Ask::Otp { application } => format!("OTP application {application}"),
            Ask::NoSuchPort { key } => format!("port {key}"),
        }
    }

    /// How long to wait with the next question, at this moment.
    fn pause(&self, mood: Mood, failure: Option<&Failure>, now: Time) -> Duration {
        let interval = match (self.pace, mood) {
            (Pace::Every(interval), _) => interval,
            (Pace::Usual, Mood::Calm) => return self.calm(now),
            (Pace::Usual, _) => DOUBT_INTERVAL,
        };
        let pause = match (&self.ask, failure) {
            _ if mood != Mood::Close => interval,
            (Ask::Exec { .. }, _) => EXEC_INTERVAL,
            (_, Some(Failure { nobody_there: false, .. })) => ANSWERING_INTERVAL,
            _ => STARTING_INTERVAL,
        };
        pause.min(interval)
    }

    /// All connections of a host are tried at the same moments: the agent wakes once for them, however many they are. What is
    /// work for a replica is not, or all of them would work at once.
    fn calm(&self, now: Time) -> Duration {
        let every = u64::try_from(CALM_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        match self.ask {
            Ask::Tcp { .. } => Duration::from_millis(every - now.0 % every),
            _ => CALM_INTERVAL,
        }
    }
}

/// How its answers have been up to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// It has not succeeded yet, and may at any moment.
    Close,
    /// The last was not as it should be, or not often enough in a row.
    Doubt,
    Calm,
}

/// Whom the questions of one slot are put by.
pub(super) struct Asker {
    pub(super) shared: Arc<Shared>,
    pub(super) context: Arc<SlotContext>,
    /// Of the replica.
    pub(super) pid: u32,
    /// How it stands with its Erlang node.
    pub(super) node: Option<NodeEnd>,
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
            Ask::Otp { application } => otp::ask(self.node.as_ref(), application, probe.timeout).await,
            Ask::NoSuchPort { .. } => Err(Failure::of("is none of those that this replica was given")),
        }
    }
}

/// On either loopback address: applications listen on one or the other.
async fn connect(port: u16) -> io::Result<TcpStream> {
    let v4 = async { connect_by(TcpSocket::new_v4()?, (Ipv4Addr::LOCALHOST, port).into()).await };
    let v6 = async { connect_by(TcpSocket::new_v6()?, (Ipv6Addr::LOCALHOST, port).into()).await };
    match v4.await {
        Ok(stream) => Ok(stream),
        Err(error) => v6.await.map_err(|other| if is_ours(&other) { other } else { error }),
    }
}

/// Where nobody listens on a port that the system also gives to those who connect, it may give it to us: then TCP connects us
/// to ourselves.
async fn connect_by(socket: TcpSocket, to: SocketAddr) -> io::Result<TcpStream> {
    let stream = socket.connect(to).await?;
    if stream.local_addr()? == to {
        // Else the closed connection would keep the port for a minute from the replica that is to listen there.
        let _ = stream.set_zero_linger();
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
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

    #[tokio::test]
    async fn who_is_connected_to_ourselves_is_nobody_and_the_port_is_left_to_whom_it_is_for() {
        for (socket, here) in [
            (TcpSocket::new_v4(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            (TcpSocket::new_v6(), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))),
        ] {
            let socket = socket.unwrap();
            socket.bind(here).unwrap();
            let itself = socket.local_addr().unwrap();
            let alone = connect_by(socket, itself).await.unwrap_err();
            assert!(Failure::connecting(&alone).nobody_there, "{alone}");
            let replica = if here.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
            replica.unwrap().bind(itself).unwrap();
        }
    }

    #[test]
    fn a_start_is_watched_closely_and_who_has_to_work_for_its_answer_less_so() {
        let probe = |ask, pace| Probe { ask, pace, timeout: Duration::from_secs(2), after: 1 };
        let second = Pace::Every(Duration::from_secs(1));
        let http = probe(Ask::Http { port: 1, path: "/".to_owned(), expect: 200 }, second);
        let exec = probe(Ask::Exec { line: "true".to_owned() }, second);
        let (answers, absent) =
            (Failure::of("answered 503"), Failure { nobody_there: true, ..Failure::of("") });
        let close = |probe: &Probe, failure| probe.pause(Mood::Close, failure, Time(0));
        assert_eq!(close(&http, Some(&absent)), STARTING_INTERVAL);
        assert_eq!(close(&http, Some(&answers)), ANSWERING_INTERVAL);
        assert_eq!(close(&http, None), STARTING_INTERVAL);
        assert_eq!(close(&exec, Some(&answers)), EXEC_INTERVAL);
        assert_eq!(close(&Probe { pace: Pace::Usual, ..http.clone() }, Some(&absent)), STARTING_INTERVAL);
        for failure in [None, Some(&answers), Some(&absent)] {
            for mood in [Mood::Doubt, Mood::Calm] {
                assert_eq!(http.pause(mood, failure, Time(17)), Duration::from_secs(1));
            }
        }
        let often = Probe { pace: Pace::Every(Duration::from_millis(100)), ..exec };
        assert_eq!(close(&often, None), Duration::from_millis(100));
    }

    #[test]
    fn without_an_interval_it_is_asked_rarely_until_it_fails_and_connections_are_tried_together() {
        let usual = |ask| Probe { ask, pace: Pace::Usual, timeout: Duration::from_secs(2), after: 2 };
        let (tcp, exec) = (usual(Ask::Tcp { port: 1 }), usual(Ask::Exec { line: "true".to_owned() }));
        for probe in [&tcp, &exec] {
            assert_eq!(probe.pause(Mood::Doubt, Some(&Failure::of("answered 503")), Time(7)), DOUBT_INTERVAL);
        }
        for now in [0, 1, 1_234, 4_999, 5_000, 98_765] {
            assert_eq!(exec.pause(Mood::Calm, None, Time(now)), CALM_INTERVAL);
            let pause = tcp.pause(Mood::Calm, None, Time(now));
            assert!(!pause.is_zero() && pause <= CALM_INTERVAL, "{pause:?} from {now}");
            assert_eq!((u128::from(now) + pause.as_millis()) % CALM_INTERVAL.as_millis(), 0);
        }
    }
}
