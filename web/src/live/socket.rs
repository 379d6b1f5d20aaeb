//! The WebSocket itself: opens, listens, closes, as the link's state machine says. Decides nothing.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use gloo_events::EventListener;
use gloo_timers::callback::Interval;
use proto::live::{Ask, Message, Topic};
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::spawn_local;
use web_sys::{CloseEvent, MessageEvent, WebSocket};
use yew::Callback;

use super::link::{Act, Happening, Link};
use crate::client::Client;
use crate::clock::monotonic;

/// How often the state machine is told that time has passed.
const TICK: u32 = 250;
/// Closed by the browser without a reason.
const ABNORMAL: u16 = 1006;

#[derive(Clone)]
pub(super) struct Socket(Rc<Inner>);

struct Inner {
    told: Callback<Message>,
    linked: Callback<Link>,
    client: Client,
    state: RefCell<State>,
}

struct State {
    link: Link,
    topics: BTreeSet<Topic>,
    open: Option<Open>,
}

/// A socket with its listeners; dropping it closes it, and nothing of it is heard any more.
struct Open {
    socket: WebSocket,
    _listeners: [EventListener; 3],
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.socket.close();
    }
}

impl Socket {
    pub(super) fn new(told: Callback<Message>, linked: Callback<Link>, client: Client) -> Self {
        let state = State { link: Link::start(monotonic()), topics: BTreeSet::new(), open: None };
        Self(Rc::new(Inner { told, linked, client, state: RefCell::new(state) }))
    }

    /// Connects, and stays connected until what it returns is dropped.
    pub(super) fn run(&self) -> Running {
        self.connect();
        let ticking = self.clone();
        let mut listeners = Vec::new();
        if let Some(window) = web_sys::window() {
            let nudged = self.clone();
            listeners.push(EventListener::new(&window, "online", move |_| nudged.happened(Happening::Nudge)));
            if let Some(document) = window.document() {
                let nudged = self.clone();
                listeners.push(EventListener::new(&document, "visibilitychange", move |_| {
                    nudged.happened(Happening::Nudge);
                }));
            }
        }
        Running {
            _ticks: Interval::new(TICK, move || ticking.happened(Happening::Tick)),
            _listeners: listeners,
            socket: self.clone(),
        }
    }

    /// These topics and no others from now on.
    pub(super) fn ask(&self, topics: BTreeSet<Topic>) {
        self.0.state.borrow_mut().topics = topics;
        self.subscribe();
    }

    fn subscribe(&self) {
        let state = self.0.state.borrow();
        let Some(open) = state.open.as_ref().filter(|it| it.socket.ready_state() == WebSocket::OPEN) else {
            return;
        };
        let ask = Ask::Subscribe { topics: state.topics.iter().cloned().collect() };
        if let Ok(text) = serde_json::to_string(&ask) {
            let _ = open.socket.send_with_str(&text);
        }
    }

    fn happened(&self, happening: Happening) {
        let (before, after, act) = {
            let mut state = self.0.state.borrow_mut();
            let before = state.link;
            let (after, act) = before.step(happening, monotonic(), js_sys::Math::random());
            state.link = after;
            (before, after, act)
        };
        if before.word() != after.word() {
            self.0.linked.emit(after);
        }
        match act {
            None => {}
            Some(Act::Connect) => self.connect(),
            Some(Act::Drop) => drop(self.0.state.borrow_mut().open.take()),
            Some(Act::CheckSession) => {
                let client = self.0.client.clone();
                // A session that has ended is found out by the client itself; other failures are the link's to wait out.
                spawn_local(async move { drop(client.get::<proto::users::Me>("/me").await) });
            }
        }
    }

    fn connect(&self) {
        let opened = address().and_then(|address| WebSocket::new(&address).ok());
        let Some(socket) = opened else {
            self.happened(Happening::Closed(ABNORMAL));
            return;
        };
        let (on_open, on_message, on_close) = (self.clone(), self.clone(), self.clone());
        let listeners = [
            EventListener::new(&socket, "open", move |_| on_open.subscribe()),
            EventListener::new(&socket, "message", move |event| {
                let text = event.dyn_ref::<MessageEvent>().and_then(|it| it.data().as_string());
                let message = text.and_then(|text| serde_json::from_str::<Message>(&text).ok());
                on_message.happened(Happening::Heard);
                if let Some(message) = message {
                    on_message.0.told.emit(message);
                }
            }),
            EventListener::new(&socket, "close", move |event| {
                let code = event.dyn_ref::<CloseEvent>().map_or(ABNORMAL, CloseEvent::code);
                on_close.happened(Happening::Closed(code));
            }),
        ];
        self.0.state.borrow_mut().open = Some(Open { socket, _listeners: listeners });
    }
}

/// Keeps the link up; dropping it ends the link.
pub(super) struct Running {
    _ticks: Interval,
    _listeners: Vec<EventListener>,
    socket: Socket,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.socket.0.state.borrow_mut().open = None;
    }
}

fn address() -> Option<String> {
    let location = web_sys::window()?.location();
    let scheme = if location.protocol().ok()? == "https:" { "wss" } else { "ws" };
    Some(format!("{scheme}://{}/api/v1/live", location.host().ok()?))
}
