//! A TCP connection that can be cut: between an agent and its control plane, or a browser and its server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Bytes pass.
    Open,
    /// Every connection is closed, and new ones are at once.
    Cut,
    /// Nothing passes and nothing is closed, as when a cable is pulled: only time-outs notice.
    Silent,
}

/// Listens on a port of its own and passes everything on, as long as it is open.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    _tasks: JoinSet<()>,
}

impl Link {
    /// A link to this address.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let mode = Arc::new(watch::Sender::new(Mode::Open));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, Arc::clone(&mode)));
        Self { address, mode, _tasks: tasks }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections and refuses new ones until [`Link::mend`].
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Lets nothing pass any more, without telling either end.
    pub fn silence(&self) {
        self.mode.send_replace(Mode::Silent);
    }

    pub fn mend(&self) {
        self.mode.send_replace(Mode::Open);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, mode: Arc<watch::Sender<Mode>>) {
    let mut connections = JoinSet::new();
    while let Ok((from, _)) = listener.accept().await {
        connections.spawn(pass(from, target, mode.subscribe()));
        while connections.try_join_next().is_some() {}
    }
}

async fn pass(mut from: TcpStream, target: SocketAddr, mut mode: watch::Receiver<Mode>) {
    // A connection made in silence waits like one that was there before.
    if mode.wait_for(|mode| *mode != Mode::Silent).await.is_ok_and(|mode| *mode == Mode::Cut) {
        return;
    }
    let Ok(mut to) = TcpStream::connect(target).await else { return };
    loop {
        tokio::select! {
            biased; // A change of mode comes before the bytes that are ready.
            changed = mode.wait_for(|mode| *mode != Mode::Open) => match changed.map(|mode| *mode) {
                Ok(Mode::Silent) => {}
                Ok(Mode::Open | Mode::Cut) | Err(_) => return,
            },
            _ = copy_bidirectional(&mut from, &mut to) => return,
        }
        // Silent: both ends stay open and unread until the mode changes.
        if mode.wait_for(|mode| *mode != Mode::Silent).await.is_ok_and(|mode| *mode == Mode::Cut) {
            return;
        }
    }
}

/// How long a test waits before it believes that nothing came through a silent link.
pub const NOTHING_CAME: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    /// A link to a server that sends back what it gets.
    async fn echo() -> (Link, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = Link::to(listener.local_addr().unwrap()).await;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                open.spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        (link, tasks)
    }

    #[tokio::test]
    async fn bytes_pass_until_the_link_is_cut_and_again_after_it_was_mended() {
        let (link, _server) = echo().await;
        let mut stream = TcpStream::connect(link.address()).await.unwrap();
        stream.write_all(b"one").await.unwrap();
        let mut answer = [0; 3];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"one");

        link.cut();
        assert!(matches!(stream.read(&mut answer).await, Ok(0) | Err(_)));
        link.mend();
        let mut stream = TcpStream::connect(link.address()).await.unwrap();
        stream.write_all(b"two").await.unwrap();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"two");
    }

    #[tokio::test]
    async fn a_silent_link_holds_bytes_back_and_closes_nothing() {
        let (link, _server) = echo().await;
        let mut stream = TcpStream::connect(link.address()).await.unwrap();
        let mut answer = [0; 3];
        stream.write_all(b"one").await.unwrap();
        stream.read_exact(&mut answer).await.unwrap();
        link.silence();
        stream.write_all(b"two").await.unwrap();
        assert!(timeout(NOTHING_CAME, stream.read(&mut answer)).await.is_err(), "something came through");
        link.mend();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"two");
    }
}
