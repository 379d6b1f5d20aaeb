//! The configuration: what is in force, what the file would change, what waits, and the versions there were.

mod difference;
mod versions;

use proto::configuration::{Configuration, FileState, Plan, VersionSummary, WatchedFile};
use proto::events::Event;
use proto::live::Topic;
use proto::problem::FieldError;
use proto::state::Tone;
use yew::{Callback, Html, Properties, component, html};

use self::difference::changes;
use self::versions::Versions;
use super::View;
use super::confirm::ConfirmDialog;
use crate::client::use_value;
use crate::components::dialog::use_dialog;
use crate::components::notice::{Banner, Empty, shown_or};
use crate::components::time::Ago;
use crate::format;
use crate::live::{use_store, use_topic};
use crate::session::use_account;
use crate::shared::Shared;
use crate::words;

#[component]
pub fn ConfigurationPage() -> Html {
    use_topic(Topic::Events);
    let store = use_store();
    let events = store.events.value().map(|it| it.as_slice()).unwrap_or_default();
    let version = newest(events);
    let (look, reload) = use_value::<Configuration, _>("/configuration".to_owned(), version);
    html! {
        <View id="configuration" title="Configuration">
            { shown_or(&look, "configuration", Some(reload.clone()), |it| html! {
                <>
                    { in_force(it.in_force.as_ref()) }
                    if let Some(file) = &it.file { <File file={file.clone()} base={it.in_force.as_ref().map_or(0, |it| it.number)} reload={reload.clone()} /> }
                    if !it.awaits_restart.is_empty() { <AwaitsRestart configuration={it.clone()} /> }
                    <section aria-label="Versions">
                        <header class="section-head"><h2>{ "Versions" }</h2></header>
                        <Versions newest={it.in_force.as_ref().map_or(0, |it| it.number)} reload={reload.clone()} />
                    </section>
                </>
            }) }
        </View>
    }
}

/// Of what concerns the configuration.
fn newest(events: &[Shared<Event>]) -> Option<proto::ids::EventId> {
    events.iter().filter(|it| it.kind.starts_with("config")).map(|it| it.id).max()
}

fn in_force(version: Option<&VersionSummary>) -> Html {
    match version {
        None => {
            html! { <Empty title="None is in force yet."><p>{ "It appears here once one was applied: " }<code>{ "deployex apply -f deployex.yaml" }</code></p></Empty> }
        }
        Some(it) => html! {
            <p class="lead" data-version={it.number.to_string()}>
                { format!("Version {} is in force, applied ", it.number) }<Ago at={it.at} />{ format!(" by {} ({}).", it.by, it.origin) }
            </p>
        },
    }
}

#[derive(Properties, PartialEq)]
struct FileProps {
    file: WatchedFile,
    base: u64,
    reload: Callback<()>,
}

/// What the file says that the control plane looks at.
#[component]
fn File(props: &FileProps) -> Html {
    let FileProps { file: WatchedFile { path, since, state }, base, reload } = props;
    let account = use_account();
    let dialog = use_dialog();
    let (tone, kind, text) = match state {
        FileState::InForce => {
            return html! { <p class="dim" data-file="in-force">{ "It is what " }<code>{ path }</code>{ " holds. A change of that file appears here." }</p> };
        }
        FileState::Pending { plan } => (
            Tone::Waiting,
            "pending",
            format!("{path} has changed and is not applied: {}.", plan.difference.counted()),
        ),
        FileState::Faulty { faults } => {
            let count = format::count(faults.len() as u64, "fault", "faults");
            (
                Tone::Bad,
                "faulty",
                format!("{path} has changed and cannot be applied: {count}. What runs is not touched by it."),
            )
        }
        FileState::Unreadable { why } => (Tone::Bad, "unreadable", format!("{path} cannot be read: {why}.")),
        FileState::Overridden { .. } => (
            Tone::Waiting,
            "overridden",
            format!(
                "{path} is not what is in force: another configuration was applied since, and stays also when the control plane is started again."
            ),
        ),
    };
    let plan = match state {
        FileState::Pending { plan } | FileState::Overridden { plan } => Some(plan),
        _ => None,
    };
    let close = {
        let (close, reload) = (dialog.close.clone(), reload.clone());
        Callback::from(move |()| {
            close.emit(());
            reload.emit(());
        })
    };
    html! {
        <section aria-label="The file" data-file={kind}>
            <Banner {tone} {kind} {text}>
                if plan.is_some() && account.may_administer() { <button id="apply" onclick={dialog.open.clone()}>{ "Apply…" }</button> }
            </Banner>
            <p class="dim">{ "Since " }<Ago at={*since} />{ "." }</p>
            { match state {
                FileState::Faulty { faults } => faulty(faults),
                _ => plan.map(|plan| changes(&plan.difference)).unwrap_or_default(),
            } }
            if let Some(plan) = plan.filter(|_| dialog.is_open) {
                <ConfirmDialog id="apply" title={format!("Apply {path}")} verb="Apply" consequence={consequence(plan)}
                    path="/configuration/apply" body={format!(r#"{{"pending":true,"base":{base},"sha256":"{}"}}"#, plan.sha256)} onclose={close} />
            }
        </section>
    }
}

/// What will happen, before it does.
fn consequence(plan: &Plan) -> String {
    words::apply_sentence(&plan.difference)
}

fn faulty(faults: &[FieldError]) -> Html {
    html! {
        <ul class="changes" aria-label="Faults">
            { for faults.iter().map(|it| html! { <li><code>{ if it.path.is_empty() { "the file" } else { &it.path } }</code>{ " " }{ &it.message }</li> }) }
        </ul>
    }
}

#[derive(Properties, PartialEq)]
struct AwaitsProps {
    configuration: Shared<Configuration>,
}

/// What is applied and counts only once the control plane was started again.
#[component]
fn AwaitsRestart(props: &AwaitsProps) -> Html {
    let waiting = &props.configuration.awaits_restart;
    let account = use_account();
    let dialog = use_dialog();
    let text = match waiting.len() {
        1 => "A setting is applied and counts once the control plane was started again.".to_owned(),
        many => format!("{many} settings are applied and count once the control plane was started again."),
    };
    html! {
        <section aria-label="Waiting for a restart" data-awaits-restart="">
            <Banner tone={Tone::Waiting} kind="restart" {text}>
                if account.may_administer() { <button id="restart-now" onclick={dialog.open.clone()}>{ "Restart…" }</button> }
            </Banner>
            <ul class="changes">{ for waiting.iter().map(|it| html! { <li>{ it.to_string() }</li> }) }</ul>
            if dialog.is_open {
                <ConfirmDialog id="restart" title="Restart the control plane" verb="Restart"
                    consequence="The control plane is away for a few seconds. Replicas go on running; a rollout goes on afterwards."
                    path="/control-plane/restart" onclose={dialog.close.clone()} />
            }
        </section>
    }
}
