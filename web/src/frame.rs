//! What is around every page: the top line, the rail, the keyboard, the palette. Links are followed here, all of them.

mod help;
mod palette;
mod rail;
mod top;

use gloo_events::EventListener;
use proto::live::Topic;
use wasm_bindgen::JsCast;
use web_sys::{Element, KeyboardEvent, MouseEvent};
use yew::{
    Callback, Html, Properties, TargetCast, component, html, use_callback, use_effect_with, use_mut_ref,
    use_state_eq,
};

use crate::browser;
use crate::keys::{Command, Keys, Place, Press};
use crate::live::{use_link, use_store, use_topic};
use crate::route::Route;
use crate::router::{self, use_go, use_scrolling};
use help::Help;
use palette::Palette;
use rail::Rail;
use top::Top;

#[derive(Clone, Copy, PartialEq)]
enum Over {
    Nothing,
    Palette,
    Help,
}

#[derive(Properties, PartialEq)]
pub struct Props {
    pub children: Html,
}

#[component]
pub fn Frame(props: &Props) -> Html {
    use_topic(Topic::Fleet);
    use_scrolling();
    let go = use_go();
    let over = use_state_eq(|| Over::Nothing);

    let command = {
        let (over, go) = (over.setter(), go.clone());
        use_callback((), move |command: Command, ()| match command {
            Command::Palette => over.set(Over::Palette),
            Command::Help => over.set(Over::Help),
            Command::Go(place) => go.emit(route_of(place).path()),
            Command::Filter => browser::focus("main [data-filter]"),
            Command::NextRow => browser::focus_row(true),
            Command::PreviousRow => browser::focus_row(false),
        })
    };
    let keys = use_mut_ref(Keys::default);
    {
        let command = command.clone();
        use_effect_with((), move |()| {
            let listener = browser::document().map(|document| {
                EventListener::new_with_options(
                    &document,
                    "keydown",
                    gloo_events::EventListenerOptions::enable_prevent_default(),
                    move |event| {
                        let Some(event) = event.dyn_ref::<KeyboardEvent>() else { return };
                        let press = Press {
                            key: &event.key(),
                            control: event.ctrl_key() || event.meta_key(),
                            alt: event.alt_key(),
                            in_text: browser::typing(),
                            in_dialog: browser::dialog_is_open(),
                        };
                        let (next, wanted) = keys.borrow().press(press);
                        *keys.borrow_mut() = next;
                        if let Some(wanted) = wanted {
                            event.prevent_default();
                            command.emit(wanted);
                        }
                    },
                )
            });
            move || drop(listener)
        });
    }
    let store = use_store();
    let fleet = store.fleet.value();
    let link = use_link();
    let stale = !link.link.is_live() && link.heard.is_some();
    let close = {
        let over = over.clone();
        Callback::from(move |()| over.set(Over::Nothing))
    };
    html! {
        <div class="frame" data-stale={stale.to_string()} onclick={follow_links(go.clone())}>
            <a class="skip" href="#content">{ "Skip to the page" }</a>
            <Top environment={fleet.map(|it| it.headline.environment.clone())} {command} />
            <Rail attention={fleet.map_or(0, |it| it.applications.iter().filter(|it| it.needs_attention).count())} />
            <main id="content" tabindex="-1">{ props.children.clone() }</main>
            { match *over {
                Over::Nothing => html! {},
                Over::Palette => html! { <Palette {go} onclose={close} /> },
                Over::Help => html! { <Help onclose={close} /> },
            } }
        </div>
    }
}

fn route_of(place: Place) -> Route {
    match place {
        Place::Overview => Route::Overview,
        Place::Applications => Route::Applications,
        Place::Nodes => Route::Nodes,
        Place::Rollouts => Route::Rollouts,
        Place::Events => Route::Events,
        Place::Configuration => Route::Configuration,
    }
}

/// A click on a link of ours, or on a row that leads somewhere, changes the page without loading it anew. One handler for
/// all of them: a component for each would be felt at fifteen thousand.
fn follow_links(go: Callback<String>) -> Callback<MouseEvent> {
    Callback::from(move |event: MouseEvent| {
        let Some(target) = event.target_dyn_into::<Element>() else { return };
        close_menus(&target);
        let plain = event.button() == 0
            && !(event.ctrl_key() || event.meta_key() || event.shift_key() || event.alt_key());
        if !plain || event.default_prevented() {
            return;
        }
        let control = browser::closest(&target, "a, button, input, label, summary");
        let path = match &control {
            // A link that asks for another window, or for a file, is the browser's.
            Some(control) if control.has_attribute("target") || control.has_attribute("download") => None,
            Some(control) => control.get_attribute("href"),
            None => browser::closest(&target, "[data-href]").and_then(|it| it.get_attribute("data-href")),
        };
        let Some(path) = path else { return };
        if path.starts_with('#') {
            // To a place on this page: the browser would note an entry in its history that the router knows nothing of.
            event.prevent_default();
            browser::focus(&path);
        } else if router::stays(&path) {
            event.prevent_default();
            go.emit(path);
        }
    })
}

/// An open menu closes with a click anywhere else, and on what was chosen in it.
fn close_menus(target: &Element) {
    let Some(open) = browser::document().and_then(|it| it.query_selector("details.menu[open]").ok()?) else {
        return;
    };
    let on_summary = browser::closest(target, "summary").is_some_and(|it| open.contains(Some(&it)));
    let stays = browser::closest(target, "[data-stays]").is_some();
    if !on_summary && !stays {
        let _ = open.remove_attribute("open");
    }
}
