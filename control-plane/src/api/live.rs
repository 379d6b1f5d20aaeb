//! The console's WebSocket: what it asked to see, whenever that looks different.
//!
//! ```text
//!   agents, planner ──changes──▶ one task loads a picture ──watch──▶ each connection: view, compare, send
//! ```
//!
//! The watch holds the newest picture alone and each connection sends before it looks again, so a slow browser skips what
//! it was too slow for and never makes anything queue up. Nothing is loaded while nobody looks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use proto::events::Event;
use proto::ids::{AppName, NodeName, Slot};
use proto::live::{Ask, MAX_TOPICS, Message, News, Topic};
use proto::overview::Fleet;
use proto::problem::Code;
use proto::users::Via;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::{Api, apps, events, fleet, history, nodes, releases, rollouts};
use crate::auth::client::{Client, Origin, Peer};
use crate::auth::principal::{Principal, foreign_origin, identify};
use crate::clock::Time;
use crate::db::{EventFilter, PageRequest};
use crate::error::{ApiError, ApiResult};
use crate::picture::Picture;

/// Consoles at one time.
const MAX_CONNECTIONS: usize = 500;
/// An [`Ask`] is small.
const MAX_FRAME: usize = 16 << 10;
/// Between two pictures, however much happens.
const NO_OFTENER: Duration = Duration::from_millis(300);
/// A new picture even if nothing was announced: a rollout's waiting times run down.
const AT_LEAST: Duration = Duration::from_secs(1);
/// Says that the link lives; also when the session is looked at again.
const BEAT: Duration = Duration::from_secs(15);
/// A browser that takes longer for one message is gone or hopeless.
const SEND_WITHIN: Duration = Duration::from_secs(20);
/// Silence of the other end after which it is gone: it answers every ping.
const GONE_AFTER: Duration = Duration::from_secs(45);
/// Events that a new connection gets, and the most that one picture carries.
const NEWEST_EVENTS: u32 = 50;

/// What all connections share.
pub struct Live {
    newest: watch::Sender<Option<Arc<Scene>>>,
    somebody_looks: Notify,
    /// Rises whenever somebody may no longer be who they were.
    signed_out: watch::Sender<u64>,
    room: Arc<Semaphore>,
}

impl Default for Live {
    fn default() -> Self {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self {
            newest: watch::Sender::new(None),
            somebody_looks: Notify::new(),
            signed_out: watch::Sender::new(0),
            room,
        }
    }
}

impl Live {
    /// A session or token has ended: each connection looks whether it was its own.
    pub fn somebody_went(&self) {
        self.signed_out.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// A picture with the newest events, newest last.
struct Scene {
    picture: Picture,
    events: Vec<Event>,
}

/// Loads pictures while somebody looks, until cancelled.
pub async fn run(api: Api, cancel: CancellationToken) {
    let mut changes = api.backend.changes();
    loop {
        let looked_at = async {
            while api.live.newest.receiver_count() == 0 {
                api.live.somebody_looks.notified().await;
            }
        };
        tokio::select! {
            biased; // why: stopping comes before looking
            () = cancel.cancelled() => return,
            () = looked_at => {}
        }
        match scene(&api).await {
            Ok(scene) => {
                api.live.newest.send_replace(Some(Arc::new(scene)));
            }
            Err(error) => tracing::warn!(?error, "the consoles could not be told anything new"),
        }
        let next = async {
            tokio::time::sleep(NO_OFTENER).await;
            // Whoever announces changes may have gone at a stop; then it is the clock that goes on.
            let announced = async {
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let _ = timeout(AT_LEAST.saturating_sub(NO_OFTENER), announced).await;
        };
        tokio::select! {
            biased; // why: as above
            () = cancel.cancelled() => return,
            () = next => {}
        }
    }
}

async fn scene(api: &Api) -> ApiResult<Scene> {
    let picture = api.picture().await?;
    let names = picture.nodes.iter().map(|(id, node)| (*id, node.node.name.clone())).collect();
    let page = api.db.events(&EventFilter::default(), PageRequest::newest(NEWEST_EVENTS)).await?;
    let events = page.items.into_iter().rev().map(|event| events::view(event, &names)).collect();
    Ok(Scene { picture, events })
}

#[utoipa::path(get, path = "/api/v1/live", tag = "live",
    responses((status = 101, description = "A WebSocket: the client sends `Ask`, the server `Message`.", body = Message)))]
pub(super) async fn connect(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    client: Client,
    principal: Principal,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> ApiResult<Response> {
    if !may_open(client.origin(&headers), principal.via) {
        return Err(foreign_origin());
    }
    let room = Arc::clone(&api.live.room).try_acquire_owned();
    let room = room.map_err(|_| ApiError::new(Code::TooBusy, "too many consoles are connected"))?;
    let owner = Owner { peer, client, headers };
    let upgrade = upgrade.max_message_size(MAX_FRAME).max_frame_size(MAX_FRAME);
    let token = api.tasks.token();
    Ok(upgrade.on_upgrade(move |socket| async move {
        let gauge = api.metrics.gauge("deployex_live_connections", Vec::new());
        gauge.increment(1.0);
        Connection::new(api, owner, socket).run().await;
        gauge.decrement(1.0);
        drop((room, token));
    }))
}

/// A browser always says where a WebSocket comes from, and asks nobody before it opens one.
fn may_open(origin: Origin, via: Via) -> bool {
    match (origin, via) {
        (Origin::Foreign, _) | (Origin::Absent, Via::Session) => false,
        (Origin::Ours, _) | (Origin::Absent, Via::Token | Via::Socket) => true,
    }
}

/// Whose connection it is, to be asked again: a session may end while its page is open.
struct Owner {
    peer: Peer,
    client: Client,
    headers: HeaderMap,
}

struct Connection {
    api: Api,
    owner: Owner,
    socket: WebSocket,
    scenes: watch::Receiver<Option<Arc<Scene>>>,
    signed_out: watch::Receiver<u64>,
    shown: BTreeMap<Topic, Shown>,
}

/// What this browser has of a topic.
enum Shown {
    Nothing,
    Fleet(Box<Fleet>),
    Whole(Box<News>),
    /// A host's last hour up to a moment by our own clock; `None`: nothing was kept of it yet.
    History(Option<Time>),
    /// The events that it may meet again in the next picture.
    Events(BTreeSet<proto::ids::EventId>),
}

/// Why a connection ends.
enum End {
    Gone,
    Close(u16, &'static str),
}

impl Connection {
    fn new(api: Api, owner: Owner, socket: WebSocket) -> Self {
        let (scenes, signed_out) = (api.live.newest.subscribe(), api.live.signed_out.subscribe());
        api.live.somebody_looks.notify_one();
        Self { api, owner, socket, scenes, signed_out, shown: BTreeMap::new() }
    }

    async fn run(mut self) {
        let end = self.converse().await;
        if let End::Close(code, reason) = end {
            let frame = CloseFrame { code, reason: reason.into() };
            let _ = timeout(SEND_WITHIN, self.socket.send(Frame::Close(Some(frame)))).await;
        }
    }

    async fn converse(&mut self) -> End {
        let cancel = self.api.cancel.clone();
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let done = tokio::select! {
                biased; // why: an end first, then what the browser wants, then news of it
                () = cancel.cancelled() => Err(End::Close(close_code::RESTART, "the control plane is stopping")),
                Ok(()) = self.signed_out.changed() => self.still_welcome().await,
                frame = self.socket.recv() => {
                    heard = Instant::now();
                    self.hear(frame).await
                }
                Ok(()) = self.scenes.changed() => self.show().await,
                _ = beat.tick() => match heard.elapsed() > GONE_AFTER {
                    true => Err(End::Gone),
                    false => self.beat().await,
                }
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    async fn hear(&mut self, frame: Option<Result<Frame, axum::Error>>) -> Result<(), End> {
        let text = match frame {
            Some(Ok(Frame::Text(text))) => text,
            Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => return Ok(()),
            Some(Ok(Frame::Binary(_))) => return Err(End::Close(close_code::UNSUPPORTED, "send text")),
            Some(Ok(Frame::Close(_))) | None => return Err(End::Gone),
            // Too long, or no WebSocket any more; where nobody is left, nobody is told.
            Some(Err(_)) => {
                return Err(End::Close(close_code::PROTOCOL, "a message is text of at most 16 KiB"));
            }
        };
        let Ok(Ask::Subscribe { topics }) = serde_json::from_str::<Ask>(&text) else {
            return Err(End::Close(close_code::INVALID, "this is no subscription"));
        };
        if topics.len() > MAX_TOPICS {
            return Err(End::Close(close_code::POLICY, "these are too many topics"));
        }
        let mut before = std::mem::take(&mut self.shown);
        for topic in topics {
            let shown = before.remove(&topic).unwrap_or(Shown::Nothing);
            self.shown.insert(topic, shown);
        }
        self.show().await
    }

    /// Sends what looks different from what this browser has.
    async fn show(&mut self) -> Result<(), End> {
        let Some(scene) = self.scenes.borrow_and_update().clone() else { return Ok(()) };
        let topics: Vec<Topic> = self.shown.keys().cloned().collect();
        for topic in topics {
            let Some(shown) = self.shown.remove(&topic) else { continue };
            let (news, shown) = news(&self.api, &scene, &topic, shown).await;
            self.shown.insert(topic, shown);
            if let Some(news) = news {
                self.send(news).await?;
            }
        }
        Ok(())
    }

    async fn still_welcome(&mut self) -> Result<(), End> {
        let Owner { peer, client, headers } = &self.owner;
        let asked = (&Method::GET, headers);
        let now = self.api.clock.wall();
        match identify(&self.api.db, &self.api.local, asked, (*peer, client), now).await {
            Ok(Some(_)) => Ok(()),
            // The database's trouble is not the session's end.
            Err(error) if error.code() == Code::Internal => Ok(()),
            Ok(None) | Err(_) => Err(End::Close(close_code::POLICY, "the session has ended")),
        }
    }

    async fn beat(&mut self) -> Result<(), End> {
        self.still_welcome().await?;
        self.send_frame(Frame::Ping(bytes::Bytes::new())).await?;
        self.send(News::Idle).await
    }

    async fn send(&mut self, news: News) -> Result<(), End> {
        let message = Message { at: self.api.clock.wall().into(), news };
        let text = serde_json::to_string(&message).map_err(|_| End::Close(close_code::ERROR, "a fault"))?;
        self.send_frame(Frame::Text(text.into())).await
    }

    async fn send_frame(&mut self, frame: Frame) -> Result<(), End> {
        match timeout(SEND_WITHIN, self.socket.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }
}

/// What to tell of a topic, and what the browser has then.
async fn news(api: &Api, scene: &Scene, topic: &Topic, shown: Shown) -> (Option<News>, Shown) {
    match topic {
        Topic::Fleet => fleet_news(fleet::view(&scene.picture), shown),
        Topic::Events => events_news(&scene.events, shown),
        Topic::HostHistory { name } => history_news(api, &scene.picture, name, shown),
        Topic::VmHistory { application, node, slot } => {
            vm_history_news(api, &scene.picture, (node, application, *slot), shown)
        }
        Topic::Application { .. } | Topic::Node { .. } | Topic::Rollout { .. } => {
            let news = whole(api, &scene.picture, topic).await.unwrap_or_else(|error| News::Failed {
                topic: topic.clone(),
                detail: error.detail().to_owned(),
            });
            match shown {
                Shown::Whole(before) if *before == news => (None, Shown::Whole(before)),
                _ => (Some(news.clone()), Shown::Whole(Box::new(news))),
            }
        }
    }
}

async fn whole(api: &Api, picture: &Picture, topic: &Topic) -> ApiResult<News> {
    let found = match topic {
        Topic::Application { name } => match picture.apps.get(name) {
            Some(app) => {
                let ghosts = api.db.ghosted(Some(name)).await?.into_iter();
                let ghosts = ghosts.map(|it| releases::ghost(picture, it)).collect();
                Some(News::Application(Box::new(apps::whole(api, picture, app, ghosts).await?)))
            }
            None => None,
        },
        Topic::Node { name } => {
            picture.node_by_name(name).map(|node| News::Node(Box::new(nodes::view(picture, node))))
        }
        Topic::Rollout { id } => {
            rollouts::find(api, picture, *id).await?.map(|it| News::Rollout(Box::new(it)))
        }
        Topic::Fleet | Topic::Events | Topic::HostHistory { .. } | Topic::VmHistory { .. } => None,
    };
    Ok(found.unwrap_or_else(|| News::Gone(topic.clone())))
}

fn history_news(api: &Api, picture: &Picture, name: &NodeName, shown: Shown) -> (Option<News>, Shown) {
    let Some(node) = picture.node_by_name(name).map(|it| it.node.id) else {
        return gone_news(Topic::HostHistory { name: name.clone() }, shown);
    };
    if let Shown::History(Some(newest)) = shown {
        return match history::after(api, node, name.clone(), newest) {
            Some((history, newest)) => (Some(News::HostHistory(history)), Shown::History(Some(newest))),
            None => (None, shown),
        };
    }
    let (history, newest) = history::whole(api, node, name.clone());
    // That nothing is kept is said once.
    let is_news = newest.is_some() || !matches!(shown, Shown::History(None));
    (is_news.then_some(News::HostHistory(history)), Shown::History(newest))
}

fn vm_history_news(
    api: &Api,
    picture: &Picture,
    (node, app, slot): (&NodeName, &AppName, Slot),
    shown: Shown,
) -> (Option<News>, Shown) {
    let names = || (node.clone(), app.clone());
    let Some(place) = history::place(picture, (node, app, slot)) else {
        return gone_news(Topic::VmHistory { application: app.clone(), node: node.clone(), slot }, shown);
    };
    if let Shown::History(Some(newest)) = shown {
        return match history::after_vm(api, picture, place, names(), newest) {
            Some((history, newest)) => (Some(News::VmHistory(history)), Shown::History(Some(newest))),
            None => (None, shown),
        };
    }
    let (history, newest) = history::whole_vm(api, picture, place, names());
    let is_news = newest.is_some() || !matches!(shown, Shown::History(None));
    (is_news.then_some(News::VmHistory(history)), Shown::History(newest))
}

/// Said once.
fn gone_news(topic: Topic, shown: Shown) -> (Option<News>, Shown) {
    let gone = News::Gone(topic);
    match shown {
        Shown::Whole(before) if *before == gone => (None, Shown::Whole(before)),
        _ => (Some(gone.clone()), Shown::Whole(Box::new(gone))),
    }
}

fn fleet_news(next: Fleet, shown: Shown) -> (Option<News>, Shown) {
    let news = match &shown {
        Shown::Fleet(before) => before.change_to(&next).map(|change| News::FleetChange(Box::new(change))),
        _ => Some(News::Fleet(Box::new(next.clone()))),
    };
    (news, Shown::Fleet(Box::new(next)))
}

/// Those that are new, and where some were missed between two pictures, all again.
fn events_news(events: &[Event], shown: Shown) -> (Option<News>, Shown) {
    let ids: BTreeSet<_> = events.iter().map(|event| event.id).collect();
    let Shown::Events(before) = shown else {
        let news = News::Events { restart: true, events: events.to_vec() };
        return (Some(news), Shown::Events(ids));
    };
    let new: Vec<Event> = events.iter().filter(|event| !before.contains(&event.id)).cloned().collect();
    let missed = !before.is_empty() && before.is_disjoint(&ids);
    let news = match (new.len(), missed) {
        (0, _) => None,
        (_, true) => Some(News::Events { restart: true, events: new }),
        (_, false) => Some(News::Events { restart: false, events: new }),
    };
    (news, Shown::Events(ids))
}

#[cfg(test)]
mod tests {
    use proto::ids::EventId;
    use proto::state::Severity;
    use proto::timestamp::Timestamp;

    use super::*;

    fn event(id: u128) -> Event {
        Event {
            id: EventId(uuid::Uuid::from_u128(id)),
            at: Timestamp(0),
            severity: Severity::Info,
            kind: "test".to_owned(),
            text: String::new(),
            application: None,
            node: None,
            slot: None,
            rollout: None,
            by: None,
            data: BTreeMap::new(),
        }
    }

    fn told(news: Option<News>) -> Option<(bool, usize)> {
        news.map(|news| match news {
            News::Events { restart, events } => (restart, events.len()),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_page_of_another_site_cannot_open_one() {
        for via in [Via::Session, Via::Token, Via::Socket] {
            assert!(!may_open(Origin::Foreign, via) && may_open(Origin::Ours, via));
        }
        assert!(!may_open(Origin::Absent, Via::Session) && may_open(Origin::Absent, Via::Token));
    }

    #[test]
    fn each_event_is_told_once_and_a_gap_is_owned_up_to() {
        let all: Vec<Event> = (1..=10).map(event).collect();
        let (news, shown) = events_news(&all[..3], Shown::Nothing);
        assert_eq!(told(news), Some((true, 3)));
        let (news, shown) = events_news(&all[1..4], shown);
        assert_eq!(told(news), Some((false, 1)));
        let (news, shown) = events_news(&all[1..4], shown);
        assert_eq!(told(news), None);
        let (news, _) = events_news(&all[7..10], shown);
        assert_eq!(told(news), Some((true, 3)));
    }
}
