//! The releases of an application that were recorded: which is in force, which is wanted, which are ghosted.

use proto::releases::Release;
use yew::{Html, Properties, component, html};

use crate::client::use_pages;
use crate::components::notice::Empty;
use crate::components::state::State;
use crate::components::table::{Column, Kind, Table};
use crate::components::time::Ago;
use crate::format;
use crate::live::store::ApplicationNow;
use crate::pages::{listed, rows};
use crate::shared::Shared;
use crate::words;

const COLUMNS: &[Column<Release>] = &[
    Column {
        title: "Version",
        class: "",
        cell: |it| html! { <code>{ it.key.version.to_string() }</code> },
        text: |it| it.key.version.to_string(),
        compare: |a, b| a.key.cmp(&b.key),
    },
    Column {
        title: "Standing",
        class: "",
        cell: |it| html! { <>{ for words::standing(it).into_iter().map(|(word, tone)| html! { <State {tone} {word} /> }) }</> },
        text: |it| words::standing(it).into_iter().map(|it| it.0).collect::<Vec<_>>().join(" "),
        compare: |a, b| (b.in_force, b.wanted).cmp(&(a.in_force, a.wanted)),
    },
    Column {
        title: "Recorded",
        class: "number",
        cell: |it| html! { <Ago at={it.recorded_at} /> },
        text: |_| String::new(),
        compare: |a, b| a.recorded_at.cmp(&b.recorded_at),
    },
    Column {
        title: "Size",
        class: "number middle",
        cell: |it| html! { format::bytes(it.size) },
        text: |_| String::new(),
        compare: |a, b| a.size.cmp(&b.size),
    },
    Column {
        title: "SHA-256",
        class: "wide",
        cell: |it| html! { <code title={it.key.sha256.to_string()}>{ it.key.sha256.short() }</code> },
        text: |it| it.key.sha256.to_string(),
        compare: |a, b| a.key.sha256.cmp(&b.key.sha256),
    },
    Column {
        title: "Pre-commands",
        class: "grow wide",
        cell: |it| html! { <span class="clip">{ it.pre_commands.join("; ") }</span> },
        text: |it| it.pre_commands.join(" "),
        compare: |a, b| a.pre_commands.len().cmp(&b.pre_commands.len()),
    },
];

const KIND: Kind<Release> =
    Kind { id: "releases", label: "Releases", columns: COLUMNS, name: |it| it.key.to_string(), href: None };

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    pub(super) application: Shared<ApplicationNow>,
}

#[component]
pub(super) fn Releases(props: &Props) -> Html {
    let application = &props.application.application;
    let summary = &application.summary;
    let version = (summary.in_force.clone(), summary.wanted.clone(), application.ghosts.len());
    let pages = use_pages::<Release, _>(format!("/applications/{}/releases", summary.name), version);
    listed(&pages, "releases", |items| {
        if items.is_empty() {
            return html! {
                <Empty title="Releases appear here once they were seen in the bucket.">
                    <p>{ "Upload the tarball, then name it in " }<code>{ format!("versions/{}/…/current.json", summary.name) }</code>{ "." }</p>
                </Empty>
            };
        }
        html! { <Table<Release> kind={&KIND} rows={rows(items)} /> }
    })
}
