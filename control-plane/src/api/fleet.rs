//! The whole fleet in one answer, and what is said of it in one sentence.

use axum::Json;
use axum::extract::State;
use proto::apps::ApplicationSummary;
use proto::nodes::{HostLimit, NodeSummary};
use proto::overview::{Fleet, Headline};
use proto::state::{Liveness, Tone};

use super::{Api, apps, nodes, rollouts};
use crate::error::ApiResult;
use crate::picture::Picture;

#[utoipa::path(get, path = "/api/v1/fleet", tag = "fleet",
    responses((status = 200, description = "Everything that the overview shows.", body = Fleet)))]
pub(super) async fn show(State(api): State<Api>) -> ApiResult<Json<Fleet>> {
    Ok(Json(view(&api.picture().await?)))
}

pub(super) fn view(picture: &Picture) -> Fleet {
    let applications: Vec<_> = picture.apps.values().map(|app| apps::summary(picture, app)).collect();
    let mut nodes: Vec<_> = picture.nodes.values().map(|node| nodes::summary(picture, node)).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let mut rollouts: Vec<_> = picture
        .apps
        .values()
        .filter_map(|app| Some(rollouts::summary(picture, Some(app), app.fleet.rollout.as_ref()?)))
        .collect();
    rollouts.sort_by_key(|rollout| (rollout.started_at, rollout.id));
    let (tone, text) = headline(&applications, &nodes);
    let headline = Headline { tone, text, environment: picture.environment.clone() };
    Fleet { headline, applications, nodes, rollouts }
}

/// Is anything wrong, is anything moving, does anything wait for somebody? The first that holds.
fn headline(apps: &[ApplicationSummary], nodes: &[NodeSummary]) -> (Tone, String) {
    let needing: Vec<&ApplicationSummary> = apps.iter().filter(|app| app.needs_attention).collect();
    let lost = nodes.iter().filter(|node| node.liveness == Liveness::Lost).count();
    let moving = apps.iter().filter(|app| app.tone == Tone::Moving).count();
    if let [first, ..] = needing.as_slice() {
        let verb = if needing.len() == 1 { "needs" } else { "need" };
        let text = format!(
            "{} {verb} you: {}: {}.",
            count(needing.len(), "application"),
            first.name,
            first.sentence.trim_end_matches('.')
        );
        return (Tone::Bad, text);
    }
    let full = nodes.iter().find_map(|node| Some((&node.name, node.warnings.first()?)));
    if let (0, Some((name, HostLimit { kind, percent, .. }))) = (lost, full) {
        return (Tone::Waiting, format!("The {kind} of {name} is {percent:.0} % full."));
    }
    match (apps.len(), nodes.len(), lost, moving) {
        (_, _, lost @ 1.., _) => {
            let verb = if lost == 1 { "is" } else { "are" };
            (Tone::Waiting, format!("{} {verb} not connected.", count(lost, "node")))
        }
        (0, _, _, _) => (Tone::Off, "No application is configured: name one in deployex.yaml.".to_owned()),
        (_, 0, _, _) => {
            let text = "No host has joined: `deployex node token` prints the command to type on one.";
            (Tone::Off, text.to_owned())
        }
        (all, _, _, moving @ 1..) => (Tone::Moving, format!("{} on the move.", so_many(moving, all))),
        (all, _, _, _) => {
            let waiting: Vec<&ApplicationSummary> = apps.iter().filter(|app| app.tone != Tone::Ok).collect();
            let well = format!("{} well", so_many(all - waiting.len(), all));
            let Some(first) = waiting.first() else {
                return (Tone::Ok, format!("{well} on {}.", count(nodes.len(), "node")));
            };
            let tone =
                if waiting.iter().any(|app| app.tone == Tone::Waiting) { Tone::Waiting } else { Tone::Off };
            let why = format!("{}: {}.", first.name, first.sentence.trim_end_matches('.'));
            (tone, if waiting.len() == all { why } else { format!("{well}. {why}") })
        }
    }
}

/// `All 3 applications are`, `1 of 3 applications is`.
fn so_many(some: usize, all: usize) -> String {
    match (some, all) {
        (1, 1) => "The application is".to_owned(),
        (some, all) if some == all => format!("All {} are", count(all, "application")),
        (1, all) => format!("1 of {} is", count(all, "application")),
        (some, all) => format!("{some} of {} are", count(all, "application")),
    }
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use proto::ids::NodeId;
    use proto::state::Language;

    use super::*;

    fn app(name: &str, tone: Tone, sentence: &str) -> ApplicationSummary {
        ApplicationSummary {
            name: name.parse().unwrap(),
            language: Language::Gleam,
            tone,
            sentence: sentence.to_owned(),
            needs_attention: false,
            in_force: None,
            in_force_since: None,
            wanted: None,
            replicas_wanted: 1,
            replicas_ready: 1,
            rollout: None,
            ghosted: 0,
            replicas: Vec::new(),
        }
    }

    fn node() -> NodeSummary {
        NodeSummary {
            id: NodeId(uuid::Uuid::nil()),
            name: "node-1".parse().unwrap(),
            liveness: Liveness::Up,
            labels: std::collections::BTreeMap::new(),
            service: proto::state::Service::Open,
            agent_version: String::new(),
            heard_at: None,
            replicas: 1,
            replicas_ready: 1,
            usage: None,
            warnings: Vec::new(),
        }
    }

    fn said(tones: &[Tone]) -> (Tone, String) {
        let named = tones.iter().enumerate();
        let apps: Vec<_> =
            named.map(|(at, tone)| app(&format!("app{at}"), *tone, "waits for its first release")).collect();
        headline(&apps, &[node()])
    }

    #[test]
    fn the_headline_counts_what_moves_and_calls_nothing_well_that_waits() {
        use Tone::{Moving, Off, Ok, Waiting};
        let stories: [(&[Tone], Tone, &str); 9] = [
            (&[Ok], Ok, "The application is well on 1 node."),
            (&[Ok, Ok], Ok, "All 2 applications are well on 1 node."),
            (&[Moving], Moving, "The application is on the move."),
            (&[Moving, Moving], Moving, "All 2 applications are on the move."),
            (&[Ok, Moving, Off], Moving, "1 of 3 applications is on the move."),
            (&[Moving, Ok, Moving], Moving, "2 of 3 applications are on the move."),
            (&[Off], Off, "app0: waits for its first release."),
            (&[Ok, Off], Off, "1 of 2 applications is well. app1: waits for its first release."),
            (&[Waiting, Ok, Ok], Waiting, "2 of 3 applications are well. app0: waits for its first release."),
        ];
        for (tones, tone, text) in stories {
            assert_eq!(said(tones), (tone, text.to_owned()), "{tones:?}");
        }
    }

    #[test]
    fn a_host_that_passes_a_limit_is_named() {
        let mut full = node();
        full.warnings.push(HostLimit {
            kind: "disk".to_owned(),
            percent: 93.4,
            warning_percent: 90,
            restart_percent: None,
            level: proto::state::HostLevel::Warning,
            since: proto::timestamp::Timestamp(0),
            sentence: None,
        });
        let said = |nodes: &[NodeSummary]| headline(&[app("shop", Tone::Ok, "is well")], nodes);
        assert_eq!(
            said(&[node(), full.clone()]),
            (Tone::Waiting, "The disk of node-1 is 93 % full.".to_owned())
        );
        let lost = NodeSummary { liveness: Liveness::Lost, ..node() };
        assert!(said(&[lost, full]).1.contains("not connected"));
    }
}
