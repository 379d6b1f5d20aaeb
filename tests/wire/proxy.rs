//! A wire that can be cut, or can swallow everything without a word.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    cut: Arc<Notify>,
    swallow: Arc<AtomicBool>,
    _task: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, swallow) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let (cutting, swallowing) = (Arc::clone(&cut), Arc::clone(&swallow));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut wires = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let Ok(far) = TcpStream::connect(target).await else { continue };
                let (cut, swallow) = (Arc::clone(&cutting), Arc::clone(&swallowing));
                wires.spawn(async move {
                    let (near_in, near_out) = near.into_split();
                    let (far_in, far_out) = far.into_split();
                    tokio::select! {
                        () = cut.notified() => {}
                        () = pass(near_in, far_out, &swallow) => {}
                        () = pass(far_in, near_out, &swallow) => {}
                    }
                });
            }
        });
        Self { address, cut, swallow, _task: task }
    }

    /// Ends every connection that there is.
    pub(crate) fn cut(&self) {
        self.cut.notify_waiters();
    }

    /// From here on nothing arrives, and nobody is told.
    pub(crate) fn swallow(&self, swallow: bool) {
        self.swallow.store(swallow, Ordering::SeqCst);
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    swallow: &AtomicBool,
) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        while swallow.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}
