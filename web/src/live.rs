//! The live link of this page: one WebSocket, what it told, and how it stands.
//!
//! Components say which topics they show with [`use_topic`]; what is heard of them is in the [`Store`]. When the link is
//! lost the store keeps what was heard last, and [`LinkNow`] says of when that is.

pub mod link;
mod socket;
pub mod store;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use proto::live::{Message, Topic};
use yew::{
    Callback, ContextProvider, Html, Properties, Reducible, component, hook, html, use_context,
    use_effect_with, use_memo, use_reducer,
};

use crate::clock::{Heard, monotonic};
use crate::session::use_account;
use link::Link;
use socket::Socket;
use store::Store;

/// How the link stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkNow {
    pub link: Link,
    /// The control plane's clock at its last word; absent: nothing was heard yet.
    pub heard: Option<Heard>,
}

impl Default for LinkNow {
    fn default() -> Self {
        Self { link: Link::start(0), heard: None }
    }
}

#[derive(Clone, PartialEq, Default)]
struct Live {
    link: LinkNow,
    store: Rc<Store>,
}

enum Change {
    Link(Link),
    Told(Box<Message>),
    Topics(BTreeSet<Topic>),
}

impl Reducible for Live {
    type Action = Change;

    fn reduce(self: Rc<Self>, change: Change) -> Rc<Self> {
        let mut next = (*self).clone();
        match change {
            Change::Link(link) => next.link.link = link,
            Change::Told(message) => {
                next.link.heard = Some(Heard { at: message.at, here: monotonic() });
                next.store = Rc::new((*next.store).clone().absorb(message.news));
            }
            Change::Topics(topics) => next.store = Rc::new((*next.store).clone().only(&topics)),
        }
        Rc::new(next)
    }
}

/// Which topics are shown, and by how many components.
#[derive(Clone)]
struct Topics {
    shown: Rc<RefCell<BTreeMap<Topic, usize>>>,
    changed: Callback<BTreeSet<Topic>>,
}

impl PartialEq for Topics {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.shown, &other.shown)
    }
}

impl Topics {
    fn show(&self, topic: Topic) {
        *self.shown.borrow_mut().entry(topic).or_default() += 1;
        self.tell();
    }

    fn hide(&self, topic: &Topic) {
        {
            let mut shown = self.shown.borrow_mut();
            match shown.get_mut(topic) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(shown.remove(topic)),
            }
        }
        self.tell();
    }

    fn tell(&self) {
        let topics = self.shown.borrow().keys().cloned().collect();
        self.changed.emit(topics);
    }
}

#[derive(Properties, PartialEq)]
pub struct Props {
    pub children: Html,
}

#[component]
pub fn LiveProvider(props: &Props) -> Html {
    let live = use_reducer(Live::default);
    let client = use_account().client;
    let socket = {
        let dispatcher = live.dispatcher();
        use_memo((), move |()| {
            let (told, linked) = (dispatcher.clone(), dispatcher);
            Socket::new(
                Callback::from(move |message| told.dispatch(Change::Told(Box::new(message)))),
                Callback::from(move |link| linked.dispatch(Change::Link(link))),
                client,
            )
        })
    };
    let topics = {
        let (socket, dispatcher) = (socket.clone(), live.dispatcher());
        use_memo((), move |()| Topics {
            shown: Rc::default(),
            changed: Callback::from(move |topics: BTreeSet<Topic>| {
                dispatcher.dispatch(Change::Topics(topics.clone()));
                socket.ask(topics);
            }),
        })
    };
    use_effect_with((), move |()| {
        let running = socket.run();
        move || drop(running)
    });
    html! {
        <ContextProvider<Topics> context={(*topics).clone()}>
            <ContextProvider<LinkNow> context={live.link}>
                <ContextProvider<Rc<Store>> context={live.store.clone()}>
                    { props.children.clone() }
                </ContextProvider<Rc<Store>>>
            </ContextProvider<LinkNow>>
        </ContextProvider<Topics>>
    }
}

/// How the link stands; drawn again at every word of the control plane.
#[hook]
pub fn use_link() -> LinkNow {
    use_context::<LinkNow>().unwrap_or_default()
}

/// All that was heard.
#[hook]
pub fn use_store() -> Rc<Store> {
    use_context::<Rc<Store>>().unwrap_or_default()
}

/// Asks for a topic as long as the component is there.
#[hook]
pub fn use_topic(topic: Topic) {
    let topics = use_context::<Topics>();
    use_effect_with(topic, move |topic| {
        if let Some(topics) = &topics {
            topics.show(topic.clone());
        }
        let topic = topic.clone();
        move || {
            if let Some(topics) = topics {
                topics.hide(&topic);
            }
        }
    });
}
