//! `deployex rollout …`: the moves of applications to releases.

use clap::Subcommand;
use proto::apps::Application;
use proto::ids::{AppName, RolloutId};
use proto::page::Page;
use proto::rollouts::{Rollout as RolloutView, RolloutPreCommands, RolloutSummary};
use proto::timestamp::Timestamp;
use serde_json::Value;

use super::CliError;
use super::client::Client;
use super::output::{Out, Paint, Table, age, facts, or_dash, place, wrap};

#[derive(Debug, Subcommand)]
pub(super) enum Rollout {
    /// List rollouts, the newest first.
    #[command(after_help = "Example:\n  deployex rollout list --app myapp")]
    List {
        /// Of this application alone.
        #[arg(long, value_name = "NAME")]
        app: Option<AppName>,
        /// How many.
        #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
    /// Show one rollout: how far it is and what it waits for.
    #[command(after_help = "Example:\n  deployex rollout show 01890a5d-ac96-774b-bcce-b302099a8057")]
    Show {
        /// Its id, as `rollout list` prints it.
        id: RolloutId,
    },
    /// Tell no further slot the release. What was told is judged as ever.
    #[command(after_help = "Example:\n  deployex rollout pause myapp")]
    Pause {
        /// The application whose rollout moves, or the rollout's id.
        rollout: String,
    },
    /// Let a rollout go on that was paused.
    #[command(after_help = "Example:\n  deployex rollout resume myapp")]
    Resume {
        /// The application whose rollout is paused, or the rollout's id.
        rollout: String,
    },
}

impl Rollout {
    pub(super) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let (paint, now) = (out.paint, out.now());
        match self {
            Self::List { app, limit } => {
                let of = app.as_ref().map(|app| format!("&app={app}")).unwrap_or_default();
                let page: Page<RolloutSummary> = client.get(&format!("/rollouts?limit={limit}{of}")).await?;
                if page.items.is_empty() {
                    client.must_know(app.as_ref(), None).await?;
                }
                out.show(&page.items, |rollouts| match rollouts.is_empty() {
                    true => "There was no rollout yet.\n".to_owned(),
                    false => table(rollouts, paint, now),
                })
            }
            Self::Pause { rollout } => {
                let id = named(client, &rollout).await?;
                let rollout: RolloutView =
                    client.post(&format!("/rollouts/{id}/pause"), &Value::Null).await?;
                out.show(&rollout, |rollout| render(rollout, paint, now))
            }
            Self::Resume { rollout } => {
                let id = named(client, &rollout).await?;
                let rollout: RolloutView =
                    client.post(&format!("/rollouts/{id}/resume"), &Value::Null).await?;
                out.show(&rollout, |rollout| render(rollout, paint, now))
            }
            Self::Show { id } => {
                let rollout: RolloutView = client.get(&format!("/rollouts/{id}")).await?;
                out.show(&rollout, |rollout| render(rollout, paint, now))
            }
        }
    }
}

/// By its id, or as the one under way of an application.
async fn named(client: &Client, rollout: &str) -> Result<RolloutId, CliError> {
    if let Ok(id) = rollout.parse() {
        return Ok(id);
    }
    let app: AppName = rollout.parse().map_err(|_| {
        CliError::WrongUse(format!(
            "{rollout:?} is neither the id of a rollout nor the name of an application"
        ))
    })?;
    let application: Application = client.get(&format!("/applications/{app}")).await?;
    let rollout = application.current_rollout.map(|it| it.summary.id);
    rollout.ok_or_else(|| CliError::Refused(format!("no rollout of {app} is under way")))
}

pub(super) fn table(rollouts: &[RolloutSummary], paint: Paint, now: Timestamp) -> String {
    let mut table = Table::new(&["ROLLOUT", "APPLICATION", "TO", "PHASE", "STABLE", "STARTED", "BY"]);
    for rollout in rollouts {
        table.row(vec![
            rollout.id.into(),
            (&rollout.application).into(),
            (&rollout.release.version).into(),
            paint.state(rollout.phase.tone(), rollout.phase),
            match rollout.phase.is_over() {
                // Its slots may have gone through others since.
                true => "-".into(),
                false => format!("{}/{}", rollout.progress.stable, rollout.progress.total).into(),
            },
            age(Some(rollout.started_at), now).into(),
            (&rollout.by).into(),
        ]);
    }
    table.render()
}

fn render(rollout: &RolloutView, paint: Paint, now: Timestamp) -> String {
    let RolloutView { summary, pre_commands, nodes } = rollout;
    let progress = match summary.phase.is_over() {
        true => "it is over".to_owned(),
        false => format!("{} of {} slots are stable", summary.progress.stable, summary.progress.total),
    };
    let mut text = facts(&[
        ("rollout", summary.id.to_string()),
        ("application", summary.application.to_string()),
        ("to", summary.release.to_string()),
        ("from", or_dash(summary.from.as_ref())),
        ("phase", paint.headline(summary.phase.tone(), summary.phase.word())),
        ("progress", progress),
        ("pre-commands", said_of_pre_commands(pre_commands)),
        ("started", format!("{} ago, by {}", age(Some(summary.started_at), now), summary.by)),
        ("in this phase", format!("for {}", age(Some(summary.phase_since), now))),
    ]);
    if let Some(reason) = &summary.reason {
        text.push_str(&wrap(reason));
    }
    for waiting in &summary.waiting {
        text.push_str(&wrap(&format!("Waiting: {waiting}")));
    }
    if !nodes.is_empty() {
        let mut table = Table::new(&["REPLICA", "STATE", "VERSION", "TOLD"]);
        for (node, slot) in nodes.iter().flat_map(|node| node.slots.iter().map(move |slot| (node, slot))) {
            table.row(vec![
                place(&node.node, slot.slot).into(),
                paint.state(slot.state.tone(), slot.state),
                or_dash(slot.running.as_ref().map(|it| &it.version)).into(),
                if slot.told { "yes" } else { "not yet" }.into(),
            ]);
        }
        text.push('\n');
        text.push_str(&table.render());
    }
    text
}

fn said_of_pre_commands(state: &RolloutPreCommands) -> String {
    match state {
        RolloutPreCommands::NotNeeded => "none".to_owned(),
        RolloutPreCommands::Waiting => "not run yet".to_owned(),
        RolloutPreCommands::Running { node, slot } => format!("running on {}", place(node, *slot)),
        RolloutPreCommands::EveryReplica => "each replica runs its own".to_owned(),
        RolloutPreCommands::Passed => "passed".to_owned(),
        RolloutPreCommands::Failed { error } => format!("failed: {error}"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proto::rollouts::{Progress, RolloutNode, RolloutSlot};
    use proto::state::{RolloutPhase, SlotState};

    use super::super::app::tests::release;
    use super::*;

    pub(in crate::cli) fn running() -> RolloutSummary {
        RolloutSummary {
            id: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
            application: "myapp".parse().unwrap(),
            release: release("2.5.0"),
            from: Some(release("2.4.1")),
            phase: RolloutPhase::Running,
            reason: None,
            by: "bucket".to_owned(),
            started_at: Timestamp(80_000),
            phase_since: Timestamp(90_000),
            finished_at: None,
            paused_by: None,
            progress: Progress { stable: 1, total: 3 },
            waiting: vec!["slot 2 on web-1 must stay ready for 18 s more".to_owned()],
        }
    }

    #[test]
    fn a_rollout_says_what_it_waits_for() {
        let slot = |number: &str, state, version, told| RolloutSlot {
            slot: number.parse().unwrap(),
            state,
            running: Some(release(version)),
            told,
        };
        let rollout = RolloutView {
            summary: running(),
            pre_commands: RolloutPreCommands::Passed,
            nodes: vec![RolloutNode {
                node: "web-1".parse().unwrap(),
                slots: vec![
                    slot("1", SlotState::Stable, "2.5.0", true),
                    slot("2", SlotState::Ready, "2.5.0", true),
                    slot("3", SlotState::Stable, "2.4.1", false),
                ],
            }],
        };
        insta::assert_snapshot!(render(&rollout, Paint { on: false }, Timestamp(200_000)));
    }
}
