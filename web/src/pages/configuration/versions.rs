//! The versions that were put in force, and the text of one. At most a hundred: a list, not a table that is sorted and filtered.

use proto::configuration::VersionSummary;
use proto::page::Page;
use serde::Deserialize;
use yew::{Callback, Html, Properties, component, html, use_state_eq};

use super::difference::changes;
use crate::client::use_value;
use crate::components::dialog::use_dialog;
use crate::components::notice::{Empty, shown};
use crate::components::time::Ago;
use crate::pages::confirm::ConfirmDialog;
use crate::session::use_account;

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    /// The one in force.
    pub(super) newest: u64,
    pub(super) reload: Callback<()>,
}

#[component]
pub(super) fn Versions(props: &Props) -> Html {
    let Props { newest, reload } = props;
    let open = use_state_eq(|| None::<u64>);
    let path = "/configuration/versions?limit=200".to_owned();
    let (look, _) = use_value::<Page<VersionSummary>, _>(path, *newest);
    let row = |it: &VersionSummary| {
        let number = it.number;
        let is_open = *open == Some(number);
        let toggle = {
            let open = open.clone();
            Callback::from(move |_| open.set((!is_open).then_some(number)))
        };
        html! {
            <li key={number} data-version-row={number.to_string()}>
                <button class="quiet" aria-expanded={is_open.to_string()} onclick={toggle}>{ format!("Version {number}") }</button>
                <span class="what">{ it.changes.counted() }<span class="dim">{ format!(" by {} ({})", it.by, it.origin) }</span></span>
                <span class="when"><Ago at={it.at} /></span>
                if is_open {
                    <div class="version" data-detail={number.to_string()}>
                        if !it.changes.is_empty() { { changes(&it.changes) } }
                        <Opened {number} newest={*newest} reload={reload.clone()} />
                    </div>
                }
            </li>
        }
    };
    shown(&look, "list of versions", |page| match page.items.is_empty() {
        true => html! { <Empty title="Every configuration that is applied appears here." /> },
        false => html! { <ul class="versions">{ for page.items.iter().map(row) }</ul> },
    })
}

/// Of a version, what its summary has not.
#[derive(Deserialize)]
struct Text {
    yaml: String,
    masked: bool,
}

#[derive(Properties, PartialEq)]
struct OpenedProps {
    number: u64,
    newest: u64,
    reload: Callback<()>,
}

/// Its text, and the way back to it.
#[component]
fn Opened(props: &OpenedProps) -> Html {
    let OpenedProps { number, newest, reload } = props;
    let account = use_account();
    let dialog = use_dialog();
    let (look, _) = use_value::<Text, _>(format!("/configuration/versions/{number}"), ());
    let close = {
        let (close, reload) = (dialog.close.clone(), reload.clone());
        Callback::from(move |()| {
            close.emit(());
            reload.emit(());
        })
    };
    html! {
        <>
            { shown(&look, &format!("version {number}"), |it| html! {
                <>
                    if it.masked { <p class="dim">{ "Secrets and comments are left out." }</p> }
                    <pre class="yaml" aria-label={format!("Text of version {number}")}>{ &it.yaml }</pre>
                </>
            }) }
            if account.may_administer() && number != newest {
                <div><button id="restore" onclick={dialog.open.clone()}>{ format!("Restore version {number}…") }</button></div>
            }
            if dialog.is_open {
                <ConfirmDialog id="restore" title={format!("Restore version {number}")} verb="Restore"
                    consequence={format!("Version {number} is put in force again, as version {}. What each application changes by it, its events say.", newest + 1)}
                    path="/configuration/apply" body={format!(r#"{{"restore":{number},"base":{newest}}}"#)} onclose={close} />
            }
        </>
    }
}
