//! The console's WebSocket over a real connection.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::Method;
use futures_util::{SinkExt as _, StreamExt as _};
use proto::live::{Ask, MAX_TOPICS, Message, News, Topic};
use proto::state::{Role, Severity};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message as Frame};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::task::TaskTracker;

use super::fleet::configured;
use super::history::heard;
use super::{Bench, Call};
use crate::api::show_live;
use crate::db::NewEvent;
use crate::listen::Listener;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A bench that listens.
struct Wire {
    bench: Bench,
    address: SocketAddr,
    tasks: TaskTracker,
}

impl Wire {
    async fn up() -> Self {
        let bench = Bench::new().await;
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let (address, cancel, tasks) =
            (listener.address().unwrap(), bench.api.cancel.clone(), TaskTracker::new());
        tasks.spawn(listener.serve(bench.router.clone(), cancel.clone()));
        tasks.spawn(show_live(bench.api.clone(), cancel));
        tasks.close();
        Self { bench, address, tasks }
    }

    async fn open(&self, headers: &[(&'static str, &str)]) -> Result<Socket, Error> {
        let mut request = format!("ws://{}/api/v1/live", self.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        connect_async(request).await.map(|(socket, _)| socket)
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// As the console opens it, once it is signed in.
    async fn console(&self) -> (Socket, (String, String)) {
        let session = self.bench.sign_in().await;
        let socket = self.open(&[("cookie", &session.0), ("origin", &self.origin())]).await.unwrap();
        (socket, session)
    }

    async fn refusal(&self, headers: &[(&'static str, &str)]) -> u16 {
        match self.open(headers).await {
            Err(Error::Http(response)) => response.status().as_u16(),
            other => panic!("it should have been refused: {other:?}"),
        }
    }
}

async fn subscribe(socket: &mut Socket, topics: Vec<Topic>) {
    let ask = serde_json::to_string(&Ask::Subscribe { topics }).unwrap();
    socket.send(Frame::text(ask)).await.unwrap();
}

async fn next(socket: &mut Socket) -> Frame {
    let frame = tokio::time::timeout(PATIENCE, socket.next()).await;
    frame.expect("nothing came").expect("it ended without a word").unwrap()
}

/// What is told next, however often the link is said to live.
async fn news(socket: &mut Socket) -> News {
    loop {
        if let Frame::Text(text) = next(socket).await {
            match serde_json::from_str::<Message>(&text).unwrap().news {
                News::Idle => {}
                news => return news,
            }
        }
    }
}

/// How it is closed, whatever is told before.
async fn closing(socket: &mut Socket) -> (CloseCode, String) {
    loop {
        if let Frame::Close(frame) = next(socket).await {
            let frame = frame.expect("a reason");
            return (frame.code, frame.reason.to_string());
        }
    }
}

#[tokio::test]
async fn it_opens_to_a_page_of_ours_that_is_signed_in_and_to_nobody_else() {
    let wire = Wire::up().await;
    let (cookie, _) = wire.bench.sign_in().await;
    let ours = wire.origin();
    assert_eq!(wire.refusal(&[("origin", &ours)]).await, 401);
    assert_eq!(wire.refusal(&[("origin", &ours), ("cookie", "deployex=made-up")]).await, 401);
    assert_eq!(wire.refusal(&[("origin", "https://evil.test"), ("cookie", &cookie)]).await, 403);
    assert_eq!(wire.refusal(&[("cookie", &cookie)]).await, 403);
    let token = format!("Bearer {}", wire.bench.token(Role::Viewer).await);
    assert_eq!(wire.refusal(&[("authorization", &token), ("origin", "https://evil.test")]).await, 403);
    assert!(wire.open(&[("authorization", &token)]).await.is_ok());
    assert!(wire.open(&[("cookie", &cookie), ("origin", &ours)]).await.is_ok());
}

#[tokio::test]
async fn each_topic_begins_with_all_of_it_and_goes_on_with_what_changes() {
    let wire = Wire::up().await;
    let bench = &wire.bench;
    let (mut socket, _) = wire.console().await;
    subscribe(&mut socket, vec![Topic::Fleet, Topic::Events]).await;
    let (first, second) = (news(&mut socket).await, news(&mut socket).await);
    let (News::Events { restart: true, .. }, News::Fleet(fleet)) = (match (first, second) {
        (fleet @ News::Fleet(_), events) => (events, fleet),
        other => other,
    }) else {
        panic!("one of each");
    };
    assert!(fleet.applications.is_empty());

    configured(bench).await;
    let told = NewEvent::new(bench.api.clock.now(), "test", Severity::Info, "something happened");
    bench.api.db.record_events(&[told]).await.unwrap();
    bench.backend.changes.send_modify(|count| *count += 1);
    let (mut changed, mut happened) = (None, None);
    while changed.is_none() || happened.is_none() {
        match news(&mut socket).await {
            News::FleetChange(change) if !change.applications.is_empty() => changed = Some(change),
            News::FleetChange(_) => {}
            News::Events { restart: false, events } => happened = Some(events),
            other => panic!("{other:?}"),
        }
    }
    let mut fleet = *fleet;
    fleet.apply(*changed.unwrap());
    assert_eq!(fleet.applications[0].name.as_str(), "myapp");
    assert_eq!(happened.unwrap().last().unwrap().text, "something happened");

    // What is no longer asked for is no longer told, and what is asked for again begins anew.
    let gone = Topic::Application { name: "other".parse().unwrap() };
    subscribe(&mut socket, vec![gone.clone()]).await;
    assert_eq!(news(&mut socket).await, News::Gone(gone));
    subscribe(&mut socket, vec![Topic::Fleet]).await;
    assert!(matches!(news(&mut socket).await, News::Fleet(_)));
}

#[tokio::test]
async fn a_hosts_hour_is_told_once_and_then_what_is_added() {
    let wire = Wire::up().await;
    let node = super::fleet::enrolled(&wire.bench, "web-1").await;
    let (mut socket, _) = wire.console().await;
    let topic = |name: &str| Topic::HostHistory { name: name.parse().unwrap() };
    subscribe(&mut socket, vec![topic("web-1")]).await;
    let told = async |socket: &mut Socket| match news(socket).await {
        News::HostHistory(history) => (history.since.is_none(), history.points.len()),
        other => panic!("{other:?}"),
    };
    assert_eq!(told(&mut socket).await, (true, 0), "that there is nothing yet");
    heard(&wire.bench, node, 5_000);
    heard(&wire.bench, node, 10_000);
    assert_eq!(told(&mut socket).await, (true, 2));
    heard(&wire.bench, node, 15_000);
    assert_eq!(told(&mut socket).await, (false, 1));
    // A new link begins with the whole.
    let (mut again, _) = wire.console().await;
    subscribe(&mut again, vec![topic("web-1")]).await;
    assert_eq!(told(&mut again).await, (true, 3));
    subscribe(&mut again, vec![topic("web-2")]).await;
    assert_eq!(news(&mut again).await, News::Gone(topic("web-2")));
}

#[tokio::test]
async fn who_asks_for_what_cannot_be_is_told_why_and_closed() {
    let wire = Wire::up().await;
    let (mut greedy, _) = wire.console().await;
    let topic = |n: usize| Topic::Application { name: format!("app-{n}").parse().unwrap() };
    subscribe(&mut greedy, (0..=MAX_TOPICS).map(topic).collect()).await;
    assert_eq!(closing(&mut greedy).await, (CloseCode::Policy, "these are too many topics".to_owned()));
    let (mut odd, _) = wire.console().await;
    odd.send(Frame::text("subscribe, please")).await.unwrap();
    assert_eq!(closing(&mut odd).await.0, CloseCode::Invalid);
    let (mut binary, _) = wire.console().await;
    binary.send(Frame::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(closing(&mut binary).await.0, CloseCode::Unsupported);
    let (mut loud, _) = wire.console().await;
    loud.send(Frame::text("x".repeat(17 << 10))).await.unwrap();
    let (code, reason) = closing(&mut loud).await;
    assert!(code == CloseCode::Protocol && reason.contains("16 KiB"), "{code:?} {reason}");
}

#[tokio::test]
async fn it_is_closed_when_its_session_ends_and_others_stay() {
    let wire = Wire::up().await;
    let (mut mine, (cookie, csrf)) = wire.console().await;
    let (mut other, _) = wire.console().await;
    let out = Call::new(Method::DELETE, "/api/v1/session").header("cookie", &cookie);
    wire.bench.send(out.header("x-deployex-csrf", &csrf)).await;
    assert_eq!(closing(&mut mine).await, (CloseCode::Policy, "the session has ended".to_owned()));
    subscribe(&mut other, vec![Topic::Fleet]).await;
    assert!(matches!(news(&mut other).await, News::Fleet(_)));
}

#[tokio::test]
async fn a_stop_of_the_control_plane_closes_it_in_words() {
    let wire = Wire::up().await;
    let (mut socket, _) = wire.console().await;
    subscribe(&mut socket, vec![Topic::Fleet]).await;
    news(&mut socket).await;
    wire.bench.api.cancel.cancel();
    assert_eq!(closing(&mut socket).await, (CloseCode::Restart, "the control plane is stopping".to_owned()));
    let stopped = async {
        wire.tasks.wait().await;
        wire.bench.api.tasks.close();
        wire.bench.api.tasks.wait().await;
    };
    tokio::time::timeout(PATIENCE, stopped).await.expect("it stops");
}
