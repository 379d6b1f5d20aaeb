//! All applications: what each runs and what it is doing.

use proto::apps::ApplicationSummary;
use yew::{Html, component, html};

use super::View;
use crate::components::notice::{Empty, shown};
use crate::components::state::shape;
use crate::components::table::{Column, Kind, Table};
use crate::components::time::Elapsed;
use crate::live::use_store;
use crate::route::Route;
use crate::words;

const COLUMNS: &[Column<ApplicationSummary>] = &[
    Column {
        title: "Application",
        class: "",
        cell: |it| {
            html! { <a href={Route::application(&it.name).path()}>{ shape(it.tone) }{ it.name.to_string() }</a> }
        },
        text: |it| it.name.to_string(),
        compare: |a, b| a.name.cmp(&b.name),
    },
    Column {
        title: "Language",
        class: "wide",
        cell: |it| html! { words::language(it.language) },
        text: |it| words::language(it.language).to_owned(),
        compare: |a, b| a.language.cmp(&b.language),
    },
    Column {
        title: "Version",
        class: "",
        cell: |it| match &it.in_force {
            Some(key) => {
                html! { <code data-version={key.version.to_string()}>{ key.version.to_string() }</code> }
            }
            None => html! { <span class="dim">{ "none" }</span> },
        },
        text: |it| it.in_force.as_ref().map(|key| key.version.to_string()).unwrap_or_default(),
        compare: |a, b| a.in_force.cmp(&b.in_force),
    },
    Column {
        title: "In force for",
        class: "number wide",
        cell: |it| match it.in_force_since {
            Some(at) => html! { <Elapsed {at} /> },
            None => html! {},
        },
        text: |_| String::new(),
        compare: |a, b| b.in_force_since.cmp(&a.in_force_since),
    },
    Column {
        title: "Ready",
        class: "number",
        cell: |it| html! { format!("{} of {}", words::counted_ready(it), it.replicas_wanted) },
        text: |_| String::new(),
        compare: |a, b| a.replicas_ready.cmp(&b.replicas_ready),
    },
    Column {
        title: "What it is doing",
        class: "grow middle",
        cell: |it| {
            let sentence = words::sentence(&it.sentence);
            html! { <span class="clip" data-tone={it.tone.word()} title={sentence.clone()}>{ sentence }</span> }
        },
        text: |it| it.sentence.clone(),
        compare: |a, b| a.tone.cmp(&b.tone),
    },
];

const KIND: Kind<ApplicationSummary> = Kind {
    id: "applications",
    label: "Applications",
    columns: COLUMNS,
    name: |it| it.name.to_string(),
    href: Some(|it| Route::application(&it.name).path()),
};

#[component]
pub fn ApplicationsPage() -> Html {
    let store = use_store();
    shown(&store.fleet, "fleet", |fleet| {
        html! {
            <View id="applications" title="Applications">
                if fleet.applications.is_empty() {
                    <Empty title="Applications appear here once they are configured.">
                        <p>{ "Name them under " }<code>{ "applications:" }</code>{ " in deployex.yaml and start deployex again." }</p>
                    </Empty>
                } else {
                    <Table<ApplicationSummary> kind={&KIND} rows={fleet.applications.clone()} />
                }
            </View>
        }
    })
}
