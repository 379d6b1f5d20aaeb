//! Requests at a steady rate, whatever becomes of them (an open loop): what clients of a proxy see while something happens
//! behind it.
//!
//! Each request has a connection of its own and is never repeated, so that none is hidden that a browser would have sent
//! twice. It takes as long as it took since it was due, also where the sender was late.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

/// A client that gets no answer for so long has lost its request.
const PATIENCE: Duration = Duration::from_secs(10);
/// More at once than a proxy in trouble leaves unanswered; one more is a lost one.
const OUTSTANDING_MAX: usize = 4_000;
/// An answer of a sample is a few hundred bytes.
const ANSWER_MAX: u64 = 64 << 10;

/// What became of one request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// When it was due.
    pub due: Instant,
    pub took: Duration,
    /// The body of a 200, or why there is none.
    pub result: Result<String, String>,
}

/// Goes on until it is stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    sender: Option<JoinHandle<Vec<Answer>>>,
}

impl Load {
    /// So many requests a second for this path.
    pub fn start(address: SocketAddr, path: &str, rate: u32) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let (until, count) = (Arc::clone(&stop), Arc::clone(&answered));
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        let sender =
            std::thread::spawn(move || runtime.block_on(send(address, request.into(), rate, &until, &count)));
        Ok(Self { stop, answered, sender: Some(sender) })
    }

    /// How many have been answered or lost so far.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Sends no more, and waits for those that are under way.
    pub fn stop(mut self) -> Vec<Answer> {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.take().and_then(|it| it.join().ok()).unwrap_or_default()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn send(
    address: SocketAddr,
    request: Arc<str>,
    rate: u32,
    stop: &AtomicBool,
    answered: &AtomicUsize,
) -> Vec<Answer> {
    let mut under_way = JoinSet::new();
    let mut answers = Vec::new();
    let keep = |answers: &mut Vec<Answer>, answer: Answer| {
        answers.push(answer);
        answered.fetch_add(1, Ordering::Relaxed);
    };
    let mut due = now();
    while !stop.load(Ordering::Relaxed) {
        sleep_until(due.into()).await;
        if under_way.len() < OUTSTANDING_MAX {
            under_way.spawn(ask(address, Arc::clone(&request), due));
        } else {
            let result = Err(format!("{OUTSTANDING_MAX} requests are unanswered already"));
            keep(&mut answers, Answer { due, took: Duration::ZERO, result });
        }
        while let Some(answer) = under_way.try_join_next() {
            if let Ok(answer) = answer {
                keep(&mut answers, answer);
            }
        }
        due += Duration::from_secs(1) / rate.max(1);
    }
    while let Some(answer) = under_way.join_next().await {
        if let Ok(answer) = answer {
            keep(&mut answers, answer);
        }
    }
    answers
}

async fn ask(address: SocketAddr, request: Arc<str>, due: Instant) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.take(ANSWER_MAX).read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    let result = match timeout(PATIENCE, exchange).await {
        Ok(Ok(text)) => body(&text),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    Answer { due, took: now().saturating_duration_since(due), result }
}

/// Whole, and of a success.
fn body(answer: &str) -> Result<String, String> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer ends within its head")?;
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200 ") {
        return Err(status.to_owned());
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match length {
        Some(length) if length != body.len() => Err(format!("{} of {length} bytes", body.len())),
        _ => Ok(body.to_owned()),
    }
}

#[expect(clippy::disallowed_methods, reason = "a client's time is real")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_whole_success() {
        let of =
            |status: &str, text: &str| body(&format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{text}"));
        assert_eq!(of("200 OK", "ok"), Ok("ok".to_owned()));
        assert_eq!(of("200 OK", "o"), Err("1 of 2 bytes".to_owned()));
        assert_eq!(of("502 Bad Gateway", "no"), Err("HTTP/1.1 502 Bad Gateway".to_owned()));
        assert!(body("").is_err());
    }

    #[test]
    fn who_is_not_there_answers_nobody_and_every_request_is_counted() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let load = Load::start(closed, "/", 1_000).unwrap();
        while load.answered() < 5 {
            std::thread::yield_now();
        }
        let answers = load.stop();
        assert!(answers.len() >= 5 && answers.iter().all(|it| it.result.is_err()), "{answers:?}");
    }
}
