//! The whole fleet in one answer, and what is said of it in one sentence.

use axum::Json;
use axum::extract::State;
use proto::apps::ApplicationSummary;
use proto::nodes::NodeSummary;
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
    let (apps_said, nodes_said) = (count(apps.len(), "application"), count(nodes.len(), "node"));
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
        (_, _, _, moving @ 1..) => {
            let verb = if moving == 1 { "is" } else { "are" };
            (
                Tone::Moving,
                format!("{} {verb} on the move, the rest of {apps_said} well.", count(moving, "application")),
            )
        }
        (1, _, _, _) => (Tone::Ok, format!("The application is well on {nodes_said}.")),
        _ => (Tone::Ok, format!("All {apps_said} are well on {nodes_said}.")),
    }
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
