//! The top line: which fleet this is, the way to everything, how the link stands, who one is.

use yew::{Callback, Html, Properties, component, html, use_state_eq};

use crate::clock::use_now;
use crate::components::dialog::use_dialog;
use crate::components::icon::Icon;
use crate::format;
use crate::keys::Command;
use crate::live::use_link;
use crate::pages::restart::RestartDialog;
use crate::session::use_account;
use crate::theme::Theme;

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    pub(super) environment: Option<String>,
    pub(super) command: Callback<Command>,
}

#[component]
pub(super) fn Top(props: &Props) -> Html {
    let account = use_account();
    let search = props.command.reform(|_| Command::Palette);
    html! {
        <header class="top">
            <a class="brand" href="/" aria-label="DeployEx, to the overview">
                { Icon::Mark.view() }<strong>{ "DeployEx" }</strong>
                if let Some(environment) = &props.environment { <span class="dim" data-environment="">{ environment }</span> }
                if account.me.demo { <span class="tag">{ "demo" }</span> }
            </a>
            <button class="search" onclick={search} aria-keyshortcuts="Control+K">
                { Icon::Search.view() }<span>{ "Search or command" }</span><kbd>{ "Ctrl K" }</kbd>
            </button>
            <LinkDot />
            <AccountMenu command={props.command.clone()} />
        </header>
    }
}

/// Live, or since when not: what is on the page is never silently old.
#[component]
fn LinkDot() -> Html {
    let link = use_link();
    let now = use_now();
    let old = link.heard.filter(|_| !link.link.is_live());
    html! {
        <span class="link-dot" data-link={link.link.word()} role="status">
            <i aria-hidden="true" />{ link.link.word() }
            if let Some(heard) = old { <span class="as-of">{ format!("as of {}", format::relative(heard.at, now)) }</span> }
        </span>
    }
}

#[derive(Properties, PartialEq)]
struct MenuProps {
    command: Callback<Command>,
}

#[component]
fn AccountMenu(props: &MenuProps) -> Html {
    let account = use_account();
    let theme = use_state_eq(Theme::remembered);
    let choose = |chosen: Theme| {
        let theme = theme.clone();
        move |_| {
            chosen.choose();
            theme.set(chosen);
        }
    };
    let sign_out = account.sign_out.reform(|_| ());
    let help = props.command.reform(|_| Command::Help);
    let restart = use_dialog();
    html! {
        <>
        <details class="menu" id="account">
            <summary>{ &account.me.name }{ Icon::Down.view() }</summary>
            <div class="menu-sheet">
                <p>{ &account.me.name }<span class="dim">{ account.me.role.word() }</span></p>
                <fieldset data-stays="" aria-label="Theme" class="choice">
                    { for Theme::ALL.iter().map(|it| html! {
                        <button data-theme-choice={it.word()} aria-pressed={(*it == *theme).to_string()} onclick={choose(*it)}>{ it.word() }</button>
                    }) }
                </fieldset>
                <button class="item" onclick={help}>{ "Keyboard" }<kbd>{ "?" }</kbd></button>
                if account.may_administer() {
                    <button class="item" id="restart-control-plane" onclick={restart.open}>{ "Restart control plane…" }</button>
                }
                <button class="item" id="sign-out" onclick={sign_out}>{ "Sign out" }</button>
                <p class="dim">{ format!("DeployEx {}", account.me.version) }</p>
            </div>
        </details>
        if restart.is_open {
            <RestartDialog what="the control plane" path="/control-plane/restart" onclose={restart.close}
                consequence="It is away for a few seconds, and this page with it. Replicas go on running; a rollout goes on afterwards." />
        }
        </>
    }
}
