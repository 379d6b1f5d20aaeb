//! Where a table is on the screen, followed while the page scrolls.

use gloo_events::EventListener;
use web_sys::{Element, HtmlElement};
use yew::{NodeRef, hook, use_effect_with, use_state_eq};

use super::ROW;
use crate::browser;
use crate::window::{Sight, Taller, Window, window};

/// Before the first look: as a table at the top of a usual screen.
const AT_FIRST: Sight = Sight { above: 0.0, height: 900.0 };

/// Which rows to draw. `long`: not all of them.
#[hook]
pub(super) fn use_window(body: &NodeRef, rows: usize, taller: Option<Taller>, long: bool) -> Window {
    let sight = use_state_eq(|| AT_FIRST);
    {
        let (sight, body) = (sight.setter(), body.clone());
        use_effect_with(long, move |long| {
            let listeners = long.then(|| {
                follow(move || {
                    if let Some(seen) = look(&body) {
                        sight.set(seen);
                    }
                })
            });
            move || drop(listeners)
        });
    }
    match long {
        true => window(rows, ROW, taller, *sight),
        false => Window { first: 0, end: rows, before: 0.0, after: 0.0 },
    }
}

fn follow(look: impl Fn() + Clone + 'static) -> Vec<EventListener> {
    look();
    let mut listeners = Vec::new();
    if let Some(window) = web_sys::window() {
        let resized = look.clone();
        listeners.push(EventListener::new(&window, "resize", move |_| resized()));
    }
    if let Some(content) = content() {
        listeners.push(EventListener::new(&content, "scroll", move |_| look()));
    }
    listeners
}

/// What scrolls.
fn content() -> Option<Element> {
    browser::document()?.get_element_by_id("content")
}

fn look(body: &NodeRef) -> Option<Sight> {
    let (content, body) = (content()?, body.cast::<HtmlElement>()?);
    let (frame, rows) = (content.get_bounding_client_rect(), body.get_bounding_client_rect());
    // In steps of some rows, so that not every pixel draws again.
    let step = ROW * 8.0;
    let above = ((frame.top() - rows.top()) / step).floor() * step;
    Some(Sight { above, height: frame.height() + step })
}
