//! Where in the console one is: the browser's address and its history. Which page is at an address is [`Route`]'s.

use std::cell::Cell;
use std::rc::Rc;

use gloo_events::{EventListener, EventListenerOptions};
use gloo_timers::future::TimeoutFuture;
use wasm_bindgen_futures::spawn_local;
use web_sys::{Element, History};
use yew::{
    Callback, ContextProvider, Html, Properties, component, hook, html, use_callback, use_context,
    use_effect_with, use_mut_ref, use_state_eq,
};

use crate::browser;
use crate::route::Route;

/// An address, and where its page was left.
#[derive(Clone, Debug, Default, PartialEq)]
struct Location {
    path: String,
    /// With its question mark; empty: there is none.
    query: String,
    scrolled: i32,
}

impl Location {
    /// What the browser shows in its address bar.
    fn now(scrolled: i32) -> Self {
        let location = web_sys::window().map(|it| it.location());
        let part = |of: fn(&web_sys::Location) -> Result<String, wasm_bindgen::JsValue>| {
            location.as_ref().and_then(|it| of(it).ok()).unwrap_or_default()
        };
        Self { path: part(web_sys::Location::pathname), query: part(web_sys::Location::search), scrolled }
    }

    fn is(&self, address: &str) -> bool {
        address.strip_prefix(self.path.as_str()) == Some(self.query.as_str())
    }
}

#[derive(Clone, PartialEq)]
struct Router {
    location: Location,
    go: Callback<String>,
}

/// The page that the browser is at.
#[hook]
pub fn use_route() -> Route {
    Route::at(&use_context::<Router>().map(|it| it.location.path).unwrap_or_default())
}

/// What the address asks of its page: `?replica=web-1/2`; empty: nothing.
#[hook]
pub fn use_query() -> String {
    use_context::<Router>().map(|it| it.location.query).unwrap_or_default()
}

/// Goes to a path, with a query or without.
#[hook]
pub fn use_go() -> Callback<String> {
    use_context::<Router>().map_or_else(Callback::noop, |it| it.go)
}

/// Another page begins at its top; one that is returned to, where it was left.
#[hook]
pub fn use_scrolling() {
    let location = use_context::<Router>().map(|it| it.location).unwrap_or_default();
    use_effect_with(location.path, move |_| {
        let coming = browser::content().and_then(|content| {
            content.set_scroll_top(location.scrolled);
            (location.scrolled > 0).then(|| come_back(content, location.scrolled))
        });
        move || drop(coming)
    });
}

/// A page whose content is still on its way is too short to be scrolled to where it was left, so this is tried this often.
const TRIES: u32 = 40;
const TRIED_EVERY_MS: u32 = 50;

/// What a user scrolls with.
const BY_HAND: [&str; 4] = ["wheel", "touchstart", "pointerdown", "keydown"];

/// Scrolls there as soon as the page is long enough: until a while is over, the user scrolls or the returned is dropped.
fn come_back(content: Element, to: i32) -> impl Sized {
    let going = Rc::new(Cell::new(true));
    let left = Ends(Rc::clone(&going));
    let listeners = web_sys::window().map(|window| {
        BY_HAND.map(|name| {
            let going = Rc::clone(&going);
            let options = EventListenerOptions::run_in_capture_phase();
            EventListener::new_with_options(&window, name, options, move |_| going.set(false))
        })
    });
    spawn_local(async move {
        for _ in 0..TRIES {
            TimeoutFuture::new(TRIED_EVERY_MS).await;
            if !going.get() {
                return;
            }
            if content.scroll_top() < to {
                content.set_scroll_top(to);
            }
        }
    });
    (left, listeners)
}

/// Ends something that goes on when it is dropped.
struct Ends(Rc<Cell<bool>>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// A link that stays in the console: not another site's, and nothing that the API answers.
pub fn stays(href: &str) -> bool {
    href.starts_with('/') && !href.starts_with("//") && !href.starts_with("/api/")
}

#[derive(Properties, PartialEq)]
pub struct Props {
    pub children: Html,
}

#[component]
pub fn RouterProvider(props: &Props) -> Html {
    let location = use_state_eq(|| Location::now(0));
    let left = use_mut_ref(|| Left::at(entry()));
    let go = {
        let (location, left) = (location.setter(), left.clone());
        use_callback((), move |address: String, ()| {
            let Some(history) = history() else { return };
            // Refused where it is another site's: then one stays where one is.
            let _ = if Location::now(0).is(&address) {
                // As browsers do with a link to the page that they are at.
                history.replace_state_with_url(&left.borrow().at.into(), "", Some(&address))
            } else {
                let number = left.borrow_mut().push(scrolled());
                history.push_state_with_url(&number.into(), "", Some(&address))
            };
            location.set(Location::now(0));
        })
    };
    {
        let location = location.setter();
        use_effect_with((), move |()| {
            let listener = web_sys::window().map(|window| {
                EventListener::new(&window, "popstate", move |_| {
                    // The page that is left is still the one that is drawn.
                    location.set(Location::now(left.borrow_mut().turn(scrolled(), entry())));
                })
            });
            move || drop(listener)
        });
    }
    let context = Router { location: (*location).clone(), go };
    html! { <ContextProvider<Router> {context}>{ props.children.clone() }</ContextProvider<Router>> }
}

fn history() -> Option<History> {
    web_sys::window()?.history().ok()
}

/// The number that the history's present entry was given; the one that the console was opened with has none.
fn entry() -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of ours")]
    let number = history().and_then(|it| it.state().ok()?.as_f64()).unwrap_or(0.0) as u32;
    number
}

fn scrolled() -> i32 {
    browser::content().map_or(0, |it| it.scroll_top())
}

/// Pages that can be returned to; browsers keep about as many entries.
const MOST_LEFT: usize = 50;

/// How far the pages of the history were scrolled when they were left.
struct Left {
    /// The entry that one is at.
    at: u32,
    scrolled: Vec<(u32, i32)>,
}

impl Left {
    fn at(at: u32) -> Self {
        Self { at, scrolled: Vec::new() }
    }

    /// To a new page. Returns its entry's number.
    fn push(&mut self, scrolled: i32) -> u32 {
        let next = self.at.saturating_add(1);
        self.leave(scrolled);
        // What one had gone back from is forgotten by the browser too.
        self.scrolled.retain(|it| it.0 < next);
        self.at = next;
        next
    }

    /// Back or forward to an entry. Returns where it was left.
    fn turn(&mut self, scrolled: i32, to: u32) -> i32 {
        self.leave(scrolled);
        self.at = to;
        self.scrolled.iter().find(|it| it.0 == to).map_or(0, |it| it.1)
    }

    fn leave(&mut self, scrolled: i32) {
        let at = self.at;
        self.scrolled.retain(|it| it.0 != at);
        if self.scrolled.len() == MOST_LEFT {
            self.scrolled.remove(0);
        }
        self.scrolled.push((at, scrolled));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_returned_to_where_it_was_left() {
        let mut left = Left::at(0);
        assert_eq!((left.push(100), left.push(200)), (1, 2));
        assert_eq!(left.turn(300, 1), 200);
        assert_eq!(left.turn(250, 0), 100);
        assert_eq!(left.turn(100, 2), 300);
    }

    #[test]
    fn the_address_that_one_is_at_is_known_by_all_of_it() {
        let at = |query: &str| Location { path: "/nodes".to_owned(), query: query.to_owned(), scrolled: 0 };
        for (query, address, is) in [
            ("", "/nodes", true),
            ("?add", "/nodes?add", true),
            ("", "/nodes?add", false),
            ("?add", "/nodes", false),
            ("", "/nodes/web-1", false),
            ("", "/", false),
        ] {
            assert_eq!(at(query).is(address), is, "{query} {address}");
        }
    }

    #[test]
    fn what_was_gone_back_from_is_forgotten_once_one_goes_elsewhere() {
        let mut left = Left::at(0);
        left.push(100);
        left.push(200);
        left.turn(300, 0);
        assert_eq!(left.push(100), 1);
        assert_eq!((left.push(0), left.scrolled.len()), (2, 2));
        assert_eq!(left.turn(0, 7), 0, "an entry of before the page was loaded anew");
    }

    #[test]
    fn only_links_to_pages_are_followed_here() {
        for (href, follows) in [
            ("/", true),
            ("/nodes/web-1", true),
            ("/applications/api?replica=web-1/2", true),
            ("#content", false),
            ("//elsewhere.example/nodes", false),
            ("https://elsewhere.example/", false),
            ("/api/v1/nodes", false),
        ] {
            assert_eq!(stays(href), follows, "{href}");
        }
    }

    #[test]
    fn only_so_many_pages_are_remembered() {
        let mut left = Left::at(0);
        for scrolled in 0..1_000 {
            left.push(scrolled);
        }
        assert_eq!(left.scrolled.len(), MOST_LEFT);
        assert_eq!(left.turn(0, 999), 999);
    }
}
