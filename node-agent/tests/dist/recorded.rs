//! What a real node sends: the fixtures that fuzzing starts from are made here, and are still what a node sends.
//!
//! `RECORD=1` writes them anew, of whatever OTP is installed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is test code")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::{fs, io};

use bytes::{Bytes, BytesMut};
use node_agent::dist::connection::{Connection, Settings};
use node_agent::dist::control::{self, Reason, Target, Told};
use node_agent::dist::epmd::port_of;
use node_agent::dist::frame::{Frame, Frames};
use node_agent::dist::handshake::{HandshakeError, Lengths, shake_hands};
use node_agent::dist::term::{Atom, Limits, Term, encode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::codec::Decoder as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::world::{COOKIE, PATIENCE, US, World, us, value};

/// Of each kind of term one.
const TERMS: &str = "X = 3, [1, -1, 256, 1 bsl 31, -(1 bsl 62), 1 bsl 64, -(1 bsl 4000), 1.5, 'a b', 'ä', \"text\", [1, 2|c], [],
    [256|\"abc\"], <<>>, <<1, 2>>, <<5:3>>, {}, {a, {b}}, list_to_tuple(lists:seq(1, 300)), #{a => #{b => []}}, self(),
    make_ref(), hd(erlang:ports()), fun lists:map/2, fun(Y) -> X + Y end, alias(), erlang:memory(),
    erlang:system_info(allocator), process_info(self()), application:which_applications()].";

/// No longer piece is of use to a fuzzer, in bytes.
const LONGEST: usize = 4_000;

#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<Vec<u8>>>);

impl Recorded {
    fn taken(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A stream of which what is read is kept.
struct Recording {
    stream: TcpStream,
    recorded: Recorded,
}

impl AsyncRead for Recording {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        self.recorded.0.lock().unwrap().extend_from_slice(&into.filled()[before..]);
        read
    }
}

impl AsyncWrite for Recording {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// By folder and name.
type Pieces = BTreeMap<String, Vec<u8>>;

async fn epmd(world: &World, name: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(world.epmd.address).await.unwrap();
    let length = u16::try_from(name.len() + 1).unwrap();
    stream.write_all(&[&length.to_be_bytes()[..], b"z", name.as_bytes()].concat()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

async fn greeted(
    world: &World,
    name: &'static str,
    cookie: &str,
) -> (Recorded, Result<Connection, HandshakeError>) {
    let port = port_of(world.epmd.address, "shop").await.unwrap();
    let recorded = Recorded::default();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut stream = Recording { stream, recorded: recorded.clone() };
    let wanted = Atom::of("shop@127.0.0.1");
    let local = us(name);
    let shaken = shake_hands(&mut stream, Lengths::Short, &local, &wanted, &cookie.into()).await;
    let connected = shaken.map(|peer| {
        let cancel = CancellationToken::new();
        let (connection, work) = Connection::new(stream, &local, peer, Settings::default(), cancel);
        TaskTracker::new().spawn(work);
        connection
    });
    (recorded, connected)
}

async fn record(world: &World) -> Pieces {
    let mut pieces = Pieces::new();
    pieces.insert("epmd/known".into(), epmd(world, "shop").await);
    pieces.insert("epmd/unknown".into(), epmd(world, "nobody").await);
    let (recorded, refused) = greeted(world, US, "wrong").await;
    assert!(refused.is_err());
    pieces.insert("handshake/wrong-cookie".into(), recorded.taken());
    let (recorded, connection) = greeted(world, US, COOKIE).await;
    let connection = connection.unwrap();
    pieces.insert("handshake/let-in".into(), recorded.taken());
    let (second, refused) = greeted(world, US, COOKIE).await;
    assert!(refused.is_err());
    pieces.insert("handshake/name-taken".into(), second.taken());

    let terms = value(&connection, TERMS).await;
    recorded.taken();
    // A message to us, ends of what is watched, errors, and what cannot be started.
    let _ = connection.call("io", "format", vec![Term::List(vec![Term::Integer(120)])], PATIENCE).await;
    let _ = connection.watch(Target::Name(Atom::of("nobody"))).await;
    let _ = connection.call("erlang", "error", vec![Term::atom("because")], PATIENCE).await;
    let _ = connection.call("nowhere", "nothing", Vec::new(), PATIENCE).await;
    assert!(connection.call("erlang", "memory", Vec::new(), PATIENCE).await.is_ok());
    let large = connection.call("lists", "seq", vec![Term::Integer(1), Term::Integer(900)], PATIENCE).await;
    assert!(large.is_ok());
    let frames = recorded.taken();
    for (at, message) in messages(&frames).into_iter().enumerate() {
        if message.len() <= LONGEST {
            pieces.insert(format!("messages/{at:02}"), message.to_vec());
        }
        if let Ok(Told::Down { reason: Reason::Payload(payload), .. }) = control::read(message) {
            let term = payload.read(Limits::default()).unwrap();
            pieces.insert(format!("terms/reason-{at:02}"), written(&term));
        }
    }
    // In pieces as they may come in one go.
    for (at, piece) in frames.chunks(LONGEST).enumerate() {
        pieces.insert(format!("frames/{at:02}"), piece.to_vec());
    }
    for at in 1..=terms.as_list().unwrap().len() {
        let one = vec![Term::Integer(i64::try_from(at).unwrap()), terms.clone()];
        let term = connection.call("lists", "nth", one, PATIENCE).await.unwrap();
        // As the node itself writes it.
        let bytes = connection.call("erlang", "term_to_binary", vec![term], PATIENCE).await.unwrap();
        let Term::Binary(bytes) = bytes else { panic!("{bytes}") };
        if bytes.len() <= LONGEST {
            pieces.insert(format!("terms/{at:02}"), bytes.to_vec());
        }
    }
    pieces
}

fn messages(frames: &[u8]) -> Vec<Bytes> {
    let mut cut = Frames::new(usize::MAX);
    let mut buffer = BytesMut::from(frames);
    let mut messages = Vec::new();
    while let Some(frame) = cut.decode(&mut buffer).unwrap() {
        if let Frame::Message(message) = frame {
            messages.push(message);
        }
    }
    messages
}

fn written(term: &Term) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    encode(term, &mut bytes).unwrap();
    bytes.to_vec()
}

#[tokio::test]
async fn what_a_real_node_sends_is_what_was_recorded_of_one() {
    let world = World::new().await;
    let now = record(&world).await;
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dist/recorded");
    if std::env::var_os("RECORD").is_some() {
        let _ = fs::remove_dir_all(&folder);
        for (name, bytes) in &now {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
    // Numbers, processes and challenges are others each time; kinds are not.
    let of = |name: &str| fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    for name in
        ["epmd/known", "epmd/unknown", "handshake/let-in", "handshake/wrong-cookie", "handshake/name-taken"]
    {
        // Behind the word comes a port; before the status its length.
        let told = if name.starts_with("epmd/") { 0..2 } else { 0..3 };
        assert_eq!(of(name).get(told.clone()), now[name].get(told), "{name}");
    }
    let kinds = |pieces: Vec<Vec<u8>>| -> Vec<String> {
        let kind = |message: Vec<u8>| {
            format!("{:?}", std::mem::discriminant(&control::read(message.into()).unwrap()))
        };
        let mut kinds: Vec<String> = pieces.into_iter().map(kind).collect();
        // A process may end before its start is told.
        kinds.sort();
        kinds
    };
    let names: Vec<&String> = now.keys().filter(|it| it.starts_with("messages/")).collect();
    let recorded = names.iter().map(|name| of(name)).collect();
    assert_eq!(kinds(recorded), kinds(names.iter().map(|name| now[*name].clone()).collect()));
    assert!(names.len() > 10, "{names:?}");
}
