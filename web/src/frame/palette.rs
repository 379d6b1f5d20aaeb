//! The palette: go anywhere, do anything, by a few letters.

use std::rc::Rc;

use web_sys::{HtmlInputElement, InputEvent, KeyboardEvent};
use yew::{Callback, Html, Properties, TargetCast, component, html, use_memo, use_state_eq};

use crate::components::dialog::Dialog;
use crate::live::store::Store;
use crate::live::use_store;
use crate::matching;
use crate::route::{Route, Tab};
use crate::session::{Account, use_account};
use crate::theme::Theme;

const MOST: usize = 12;

#[derive(Clone, PartialEq)]
enum Does {
    Go(String),
    Theme(Theme),
    SignOut,
}

#[derive(Clone, PartialEq)]
struct Entry {
    title: String,
    kind: &'static str,
    does: Does,
}

/// Pages first: with nothing typed they are what is wanted most.
fn entries(store: &Store, account: &Account) -> Vec<Entry> {
    let go = |kind, title: String, path: String| Entry { title, kind, does: Does::Go(path) };
    let mut all = vec![
        go("page", "Overview".into(), Route::Overview.path()),
        go("page", "Applications".into(), Route::Applications.path()),
        go("page", "Nodes".into(), Route::Nodes.path()),
        go("page", "Rollouts".into(), Route::Rollouts.path()),
        go("page", "Events".into(), Route::Events.path()),
        go("page", "Configuration".into(), Route::Configuration.path()),
    ];
    if let Some(fleet) = store.fleet.value() {
        for application in &fleet.applications {
            all.push(go(
                "application",
                application.name.to_string(),
                Route::application(&application.name).path(),
            ));
        }
        for node in &fleet.nodes {
            all.push(go("node", node.name.to_string(), Route::node(&node.name).path()));
        }
        for rollout in &fleet.rollouts {
            let title = format!("{} {}", rollout.application, rollout.release.version);
            all.push(go("rollout", title, Route::rollout(rollout.id).path()));
        }
        for application in &fleet.applications {
            let name = &application.name;
            all.push(go("command", format!("Logs of {name}"), Route::tab(name, Tab::Logs).path()));
            if account.may_operate() {
                let path = format!("{}?deploy", Route::application(name).path());
                all.push(go("command", format!("Deploy {name}"), path));
            }
        }
    }
    if account.may_administer() {
        all.push(go("command", "Add a node".into(), format!("{}?add", Route::Nodes.path())));
    }
    for theme in Theme::ALL {
        all.push(Entry {
            title: format!("Theme: {}", theme.word()),
            kind: "command",
            does: Does::Theme(*theme),
        });
    }
    all.push(Entry { title: "Sign out".into(), kind: "command", does: Does::SignOut });
    all
}

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    pub(super) go: Callback<String>,
    pub(super) onclose: Callback<()>,
}

#[component]
pub(super) fn Palette(props: &Props) -> Html {
    let account = use_account();
    let store = use_store();
    let wanted = use_state_eq(String::new);
    let at = use_state_eq(|| 0_usize);
    let found: Rc<Vec<Entry>> =
        use_memo((store, account.clone(), (*wanted).clone()), |(store, account, wanted)| {
            matching::best(wanted, entries(store, account), |it| it.title.as_str(), MOST)
        });

    let run = {
        let (go, onclose) = (props.go.clone(), props.onclose.clone());
        move |entry: &Entry| {
            onclose.emit(());
            match &entry.does {
                Does::Go(path) => go.emit(path.clone()),
                Does::Theme(theme) => theme.choose(),
                Does::SignOut => account.sign_out.emit(()),
            }
        }
    };
    let oninput = {
        let (wanted, at) = (wanted.clone(), at.clone());
        Callback::from(move |event: InputEvent| {
            wanted.set(event.target_unchecked_into::<HtmlInputElement>().value());
            at.set(0);
        })
    };
    let onkeydown = {
        let (found, at, run) = (found.clone(), at.clone(), run.clone());
        Callback::from(move |event: KeyboardEvent| {
            let last = found.len().saturating_sub(1);
            match event.key().as_str() {
                "ArrowDown" => at.set((*at + 1).min(last)),
                "ArrowUp" => at.set(at.saturating_sub(1)),
                "Enter" => {
                    if let Some(entry) = found.get(*at) {
                        run(entry);
                    }
                }
                _ => return,
            }
            event.prevent_default();
        })
    };
    let option = |(place, entry): (usize, &Entry)| {
        let (chosen, run) = (entry.clone(), run.clone());
        html! {
            <li role="option" id={format!("option-{place}")} aria-selected={(place == *at).to_string()} onclick={move |_| run(&chosen)}>
                <span>{ &entry.title }</span><span class="dim">{ entry.kind }</span>
            </li>
        }
    };
    html! {
        <Dialog id="palette" class="palette" title="Search or command" onclose={props.onclose.clone()}>
            <input type="text" role="combobox" placeholder="Search or command" aria-label="Search or command" autocomplete="off"
                aria-expanded="true" aria-controls="options" aria-activedescendant={format!("option-{}", *at)} autofocus=true
                value={(*wanted).clone()} {oninput} {onkeydown} />
            <ul id="options" role="listbox" aria-label="Found">{ for found.iter().enumerate().map(option) }</ul>
            if found.is_empty() { <p class="dim none">{ "Nothing has these letters." }</p> }
        </Dialog>
    }
}
