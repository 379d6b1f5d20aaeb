//! A name server and nodes of the test's own, on loopback, which do not outlive it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is test code")]

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use node_agent::dist::connection::{CallError, Connection, Settings};
use node_agent::dist::dial::{DialError, Node, dial};
use node_agent::dist::epmd::{EpmdError, port_of};
use node_agent::dist::handshake::{HandshakeError, Local};
use node_agent::dist::term::{Atom, Term};
use rand::Rng as _;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Enough for a VM to boot on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) const COOKIE: &str = "oats-and-honey";

/// What our node is called where a test does not say otherwise.
pub(crate) const US: &str = "agent@127.0.0.1";

/// One node with its name server.
pub(crate) struct World {
    pub(crate) vm: Program,
    pub(crate) epmd: Epmd,
    home: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// `arguments`: more of `erl`.
    pub(crate) async fn with(arguments: &[&str]) -> Self {
        let epmd = Epmd::start().await;
        let home = tempfile::tempdir().unwrap();
        let vm = boot(&epmd, &home, arguments).await;
        Self { vm, epmd, home }
    }

    /// The node again, in another life.
    pub(crate) async fn boot_again(&mut self) {
        self.vm.kill();
        self.vm = boot(&self.epmd, &self.home, &[]).await;
    }

    pub(crate) fn node(&self) -> Node {
        Node { name: Atom::of("shop@127.0.0.1"), epmd: self.epmd.address, cookie: COOKIE.into(), tls: None }
    }

    pub(crate) async fn connect(&self) -> Connection {
        self.connect_as(US, Settings::default()).await
    }

    /// A node is there before it has loaded all that it is made of, which has names of its own.
    pub(crate) async fn connect_booted(&self) -> Connection {
        let connection = self.connect().await;
        eventually("the end of its start", async || {
            let status = connection.call("init", "get_status", Vec::new(), PATIENCE).await.unwrap();
            (status.as_tuple()?.first()?.as_atom()? == "started").then_some(())
        })
        .await;
        connection
    }

    pub(crate) async fn connect_as(&self, name: &'static str, settings: Settings) -> Connection {
        connect(&self.node(), name, settings).await
    }
}

async fn boot(epmd: &Epmd, home: &TempDir, arguments: &[&str]) -> Program {
    let mut erl = Command::new("erl");
    erl.args(["-noshell", "-name", "shop@127.0.0.1", "-setcookie", COOKIE, "-start_epmd", "false"]);
    erl.args(["-kernel", "inet_dist_use_interface", "{127,0,0,1}"]).args(arguments);
    erl.env("ERL_EPMD_PORT", epmd.address.port().to_string()).env("HOME", home.path());
    let mut vm = Program::start(&mut erl);
    eventually("the node at its name server", async || {
        assert!(!vm.has_ended(), "erl did not start");
        port_of(epmd.address, "shop").await.ok()
    })
    .await;
    vm
}

/// As `name`.
pub(crate) async fn connect(node: &Node, name: &'static str, settings: Settings) -> Connection {
    let local = us(name);
    let (stream, peer) = eventually("a connection", async || {
        match dial(node, &local, PATIENCE).await {
            // The one before it is about to end.
            Err(DialError::Handshake(HandshakeError::NameTaken(_))) => None,
            dialled => Some(dialled.unwrap()),
        }
    })
    .await;
    let (connection, work) = Connection::new(stream, &local, peer, settings, CancellationToken::new());
    TaskTracker::new().spawn(work);
    connection
}

/// In another life each time.
pub(crate) fn us(name: &'static str) -> Local {
    Local { name: Atom::of(name), creation: rand::rng().random_range(4..=u32::MAX) }
}

/// The value of an Erlang expression, which ends with a full stop.
pub(crate) async fn eval(on: &Connection, expression: &str) -> Result<Term, CallError> {
    let text = Term::List(expression.chars().map(|it| Term::Integer(u32::from(it).into())).collect());
    let scanned = on.call("erl_scan", "string", vec![text], PATIENCE).await.unwrap();
    let tokens = scanned.as_tuple().unwrap()[1].clone();
    let parsed = on.call("erl_parse", "parse_exprs", vec![tokens], PATIENCE).await.unwrap();
    let forms = parsed.as_tuple().unwrap()[1].clone();
    let value = on.call("erl_eval", "exprs", vec![forms, Term::List(Vec::new())], PATIENCE).await?;
    // {value, Value, Bindings}
    Ok(value.as_tuple().unwrap()[1].clone())
}

/// As [`eval`], for what does not fail.
pub(crate) async fn value(on: &Connection, expression: &str) -> Term {
    eval(on, expression).await.unwrap_or_else(|error| panic!("{expression} {error}"))
}

/// Why the node does not let us in.
pub(crate) async fn refused(node: &Node) -> DialError {
    match dial(node, &us(US), PATIENCE).await {
        Err(error) => error,
        Ok((_, peer)) => panic!("{peer:?} let us in"),
    }
}

/// A name server of the test's own.
pub(crate) struct Epmd {
    pub(crate) address: SocketAddr,
    pub(crate) program: Program,
}

impl Epmd {
    pub(crate) async fn start() -> Self {
        loop {
            let address = free();
            let mut epmd = Command::new("epmd");
            epmd.args(["-port", &address.port().to_string(), "-address", "127.0.0.1"]);
            let mut program = Program::start(&mut epmd);
            // Where somebody else was faster, it ends.
            let answers = eventually("a name server", async || {
                let answers = matches!(port_of(address, "nobody").await, Err(EpmdError::Unknown { .. }));
                if program.has_ended() { Some(false) } else { answers.then_some(true) }
            })
            .await;
            if answers {
                return Self { address, program };
            }
        }
    }
}

/// A name server that knows every name, at this port.
pub(crate) async fn all_knowing(port: u16) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    TaskTracker::new().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let length = stream.read_u16().await.unwrap();
            stream.read_exact(&mut vec![0; length.into()]).await.unwrap();
            stream.write_all(&[119, 0]).await.unwrap();
            stream.write_u16(port).await.unwrap();
        }
    });
    address
}

/// Where nobody listens. Below the ports that the kernel gives to outgoing connections, one of which would take it otherwise.
pub(crate) fn free() -> SocketAddr {
    let mut random = rand::rng();
    loop {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, random.random_range(20_000..32_000)));
        if std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// A program that ends with its test.
pub(crate) struct Program(Child);

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| {
            panic!(
                "{}: {error}; this test needs Erlang: apt-get install erlang",
                command.get_program().display()
            )
        }))
    }

    /// Of a child that was started otherwise.
    pub(crate) fn of(child: Child) -> Self {
        Self(child)
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {} s for {what}", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Bounds a wait that has no end of its own.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, future).await;
    ended.unwrap_or_else(|_| panic!("waited {} s for {what}", PATIENCE.as_secs()))
}
