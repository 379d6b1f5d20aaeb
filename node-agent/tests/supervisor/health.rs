//! What a replica's server would be: answers as the test says, and counts who asked for what.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// Gone when dropped.
pub(crate) struct Server {
    pub(crate) port: u16,
    known: Arc<Mutex<Known>>,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Known {
    /// By path, as long as nothing else is said: 200.
    answers: BTreeMap<String, (u16, &'static str)>,
    /// So many of the next questions are answered with 500.
    slips: usize,
    asked: BTreeMap<String, usize>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::serving(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    #[expect(clippy::disallowed_methods, reason = "the handle ends it")]
    fn serving(listener: TcpListener) -> Self {
        let port = listener.local_addr().unwrap().port();
        let known = Arc::<Mutex<Known>>::default();
        let serving = tokio::spawn(serve(listener, Arc::clone(&known)));
        Self { port, known, _serving: AbortOnDropHandle::new(serving) }
    }

    /// From now on, to this path.
    pub(crate) fn answer(&self, path: &str, status: u16, body: &'static str) {
        self.known.lock().unwrap().answers.insert(path.to_owned(), (status, body));
    }

    /// The next question gets a bad answer, the one after that a good one again.
    pub(crate) fn slip_once(&self) {
        self.known.lock().unwrap().slips += 1;
    }

    pub(crate) fn asked(&self, path: &str) -> usize {
        self.known.lock().unwrap().asked.get(path).copied().unwrap_or_default()
    }
}

impl Known {
    fn answer(&mut self, path: &str) -> (u16, &'static str) {
        *self.asked.entry(path.to_owned()).or_default() += 1;
        if self.slips > 0 {
            self.slips -= 1;
            return (500, "a slip");
        }
        self.answers.get(path).copied().unwrap_or((200, "ok"))
    }
}

async fn serve(listener: TcpListener, known: Arc<Mutex<Known>>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                // Who only wanted to know whether somebody listens.
                Err(_) => break,
            }
        }
        let head = String::from_utf8_lossy(&head);
        let Some(path) = head.split(' ').nth(1) else { continue };
        let (status, body) = known.lock().unwrap().answer(path);
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}
