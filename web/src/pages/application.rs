//! One application: its line, what moves, what is in the way, and tabs for the rest.

mod configuration;
mod deploy;
mod ghosts;
mod logs;
mod pin;
mod releases;
mod rollouts;

use proto::ids::AppName;
use proto::live::Topic;
use proto::state::{FaultKind, RolloutPhase, Tone};
use yew::{Callback, Html, Properties, component, html, use_effect_with, use_state_eq};

use super::View;
use super::confirm::ConfirmDialog;
use super::replica_table::{Of, ReplicaTable};
use super::restart::RestartDialog;
use crate::components::dialog::use_dialog;
use crate::components::notice::{Banner, Empty, shown};
use crate::components::state::shape;
use crate::components::stepper::Stepper;
use crate::components::time::TimeOfDay;
use crate::live::store::ApplicationNow;
use crate::live::{use_store, use_topic};
use crate::route::{Route, Tab};
use crate::router::use_query;
use crate::session::use_account;
use crate::shared::Shared;
use crate::words;
use configuration::Configuration;
use deploy::DeployDialog;
use ghosts::Ghosts;
use logs::Logs;
use pin::Pinned;
use releases::Releases;
use rollouts::History;

#[derive(Properties, PartialEq)]
pub struct Props {
    pub name: AppName,
    pub tab: Tab,
}

#[component]
pub fn ApplicationPage(props: &Props) -> Html {
    let Props { name, tab } = props;
    use_topic(Topic::Application { name: name.clone() });
    let account = use_account();
    let store = use_store();
    let deploying = use_state_eq(|| false);
    let restart = use_dialog();
    let rollback = use_dialog();
    let query = use_query();
    {
        let deploying = deploying.setter();
        let asked = query == "?deploy" && account.may_operate();
        use_effect_with((name.clone(), asked), move |(_, asked)| deploying.set(*asked));
    }
    let (open, close) = (deploying.clone(), deploying.clone());
    let open = Callback::from(move |_| open.set(true));
    let close = Callback::from(move |()| close.set(false));
    shown(&store.application(name), &format!("application {name}"), |it| {
        let actions = match account.may_operate() {
            true => html! {
                <>
                    if it.slots.iter().any(|slot| slot.assigned.is_some()) {
                        <button id="restart" onclick={restart.open.clone()}>{ "Restart…" }</button>
                    }
                    if it.application.rolls_back_to.is_some() {
                        <button id="rollback" onclick={rollback.open.clone()}>{ "Roll back…" }</button>
                    }
                    <button id="deploy" class="primary" onclick={open}>{ "Deploy…" }</button>
                </>
            },
            false => html! {},
        };
        let crumbs = html! { <><a href={Route::Applications.path()}>{ "Applications" }</a><span class="slash">{ "/" }</span></> };
        html! {
            <View id="application" title={name.to_string()} {crumbs} {actions}>
                { header(it) }
                // Above what comes and goes, so that they stay beneath the pointer.
                { tabs(name, *tab) }
                { banners(it) }
                { content(*tab, it, &query) }
                if *deploying { <DeployDialog application={it.clone()} onclose={close} /> }
                if let (true, Some(to)) = (rollback.is_open, &it.application.rolls_back_to) {
                    <ConfirmDialog id="rollback" title={format!("Roll {name} back to {}", to.version)} verb="Roll back"
                        path={format!("/applications/{name}/rollback?to={}", to.version)} onclose={rollback.close.clone()}
                        consequence={words::rollback_sentence(&it.application, to)} />
                }
                if restart.is_open {
                    <RestartDialog what={name.to_string()} path={format!("/applications/{name}/restart")} onclose={restart.close.clone()}
                        consequence={words::restart_sentence(it.application.summary.replicas_wanted, it.application.settings.strategy)} />
                }
            </View>
        }
    })
}

/// The application in one line, and what it is doing in another.
fn header(it: &ApplicationNow) -> Html {
    let summary = &it.application.summary;
    let in_force = match (&summary.in_force, summary.in_force_since) {
        (Some(key), Some(at)) => {
            html! { <><code>{ key.version.to_string() }</code>{ " since " }<TimeOfDay {at} /></> }
        }
        (Some(key), None) => html! { <code>{ key.version.to_string() }</code> },
        (None, _) => html! { "nothing in force" },
    };
    html! {
        <div class="about-app" data-tone={summary.tone.word()}>
            <p class="line">
                if it.slots.iter().any(|slot| slot.vm.as_ref().is_some_and(|vm| vm.logo)) {
                    <img class="logo" alt="" src={format!("/api/v1/applications/{}/logo", summary.name)} />
                }
                <span>{ words::language(summary.language) }</span><span>{ in_force }</span><span>{ words::ready(summary) }</span>
            </p>
            <p class="doing">{ shape(summary.tone) }<span>{ words::sentence(&summary.sentence) }</span></p>
        </div>
    }
}

fn banners(it: &Shared<ApplicationNow>) -> Html {
    let application = &it.application;
    let fault = application.release_fault.as_ref().map(|fault| {
        let kept = match &application.summary.in_force {
            Some(key) => format!("{} stays in force. ", key.version),
            None => String::new(),
        };
        let (tone, said) = match fault.kind {
            FaultKind::Waiting => (Tone::Waiting, "The bucket is not ready yet: "),
            FaultKind::Broken => (Tone::Bad, "The bucket offers what cannot be deployed: "),
        };
        let text = format!("{said}{} {kept}It is looked at again by itself.", words::full_stop(&fault.text));
        html! { <Banner {tone} kind="release-fault" {text} /> }
    });
    let rollout = application.current_rollout.as_ref().map(|rollout| match rollout.summary.phase {
        RolloutPhase::Watching => html! {},
        _ => html! { <Stepper rollout={Shared::new(rollout.clone())} linked=true /> },
    });
    html! {
        <>
            { rollout }
            { fault }
            if let Some(pin) = &application.pinned {
                <Pinned application={application.summary.name.clone()} pin={pin.clone()} />
            }
            if !application.ghosts.is_empty() {
                <Ghosts application={application.summary.name.clone()} in_force={application.summary.in_force.clone()} ghosts={application.ghosts.clone()} />
            }
        </>
    }
}

fn tabs(name: &AppName, current: Tab) -> Html {
    html! {
        <nav class="tabs" aria-label="Parts of the application">
            { for Tab::ALL.iter().map(|tab| html! {
                <a href={Route::tab(name, *tab).path()} data-tab={tab.word()} aria-current={(*tab == current).then_some("page")}>{ tab.title() }</a>
            }) }
        </nav>
    }
}

fn content(tab: Tab, it: &Shared<ApplicationNow>, query: &str) -> Html {
    let name = it.application.summary.name.clone();
    let replica = query.strip_prefix("?replica=");
    match tab {
        Tab::Replicas if it.slots.is_empty() => html! {
            <Empty title="Each slot appears here once something runs in it.">
                <p>{ words::sentence(&it.application.summary.sentence) }</p>
            </Empty>
        },
        Tab::Replicas => {
            // `node/slot` in an address, `node/application/slot` as a row's name.
            let open = replica
                .and_then(|it| it.rsplit_once('/'))
                .map(|(node, slot)| format!("{node}/{name}/{slot}"));
            html! { <ReplicaTable key={open.clone().unwrap_or_default()} open={open.clone()} of={Of::Application} slots={it.slots.clone()} /> }
        }
        Tab::Rollouts => html! { <History {name} rollout={it.application.summary.rollout} /> },
        Tab::Releases => html! { <Releases application={it.clone()} /> },
        Tab::Logs => html! { <Logs {name} slots={it.slots.clone()} chosen={replica.map(str::to_owned)} /> },
        Tab::Configuration => html! { <Configuration settings={it.application.settings.clone()} /> },
    }
}
