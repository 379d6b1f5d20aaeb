//! `deployex rollout …`: the moves of applications to releases.

mod drawn;
pub(super) mod watch;

use clap::Subcommand;
use proto::apps::Application;
use proto::ids::{AppName, RolloutId};
use proto::page::Page;
use proto::rollouts::{Rollout as RolloutView, RolloutSummary};
use proto::timestamp::Timestamp;
use serde_json::Value;

use super::CliError;
use super::client::Client;
use super::output::{Out, Paint, Table, age};
use drawn::Changes;
use watch::Screen;

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
    /// Show one rollout: its batches, how far it is and what it waits for.
    #[command(after_help = "Example:\n  deployex rollout show myapp -w")]
    Show {
        /// The application, for its newest rollout, or the rollout's id.
        rollout: String,
        /// Follow it until it is over: drawn in place on a terminal, a line for each change elsewhere.
        #[arg(short, long)]
        watch: bool,
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
    /// Let a rollout go on behind its canary or its last batch, without waiting any longer.
    #[command(after_help = "Example:\n  deployex rollout promote myapp --batch 1")]
    Promote {
        /// The application whose rollout waits, or the rollout's id.
        rollout: String,
        /// The batch that you looked at: where another one is moved by now, nothing is done. Without it, whichever it is.
        #[arg(long, value_name = "NUMBER")]
        batch: Option<u32>,
    },
    /// Give a rollout up: it goes back to where it came from, and its release is not ghosted.
    ///
    /// A first deployment is taken down. What was given up is not tried again until somebody wishes it anew.
    #[command(after_help = "Example:\n  deployex rollout abort myapp")]
    Abort {
        /// The application whose rollout moves or is watched, or the rollout's id.
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
            Self::Pause { rollout } => steer(client, out, &rollout, "pause").await,
            Self::Resume { rollout } => steer(client, out, &rollout, "resume").await,
            Self::Promote { rollout, batch } => {
                let batch = batch.map(|number| format!("?batch={number}")).unwrap_or_default();
                steer(client, out, &rollout, &format!("promote{batch}")).await
            }
            Self::Abort { rollout } => steer(client, out, &rollout, "abort").await,
            Self::Show { rollout, watch: false } => {
                let id = newest(client, &rollout).await?;
                let shown: RolloutView = client.get(&format!("/rollouts/{id}")).await?;
                // What became of the last wish is told also where that failed; an earlier release may be watched on
                // since. An application that was removed has nothing under way.
                let by_name = rollout.parse::<RolloutId>().is_err();
                let other = match by_name && shown.summary.phase.is_over() {
                    true => under_way(client, &shown.summary.application).await.unwrap_or_default(),
                    false => None,
                };
                out.show(&shown, |shown| {
                    drawn::whole(shown, paint, now)
                        + &other.as_ref().map(drawn::under_way).unwrap_or_default()
                })
            }
            Self::Show { rollout, watch: true } => {
                let id = newest(client, &rollout).await?;
                watch(client, out, id).await
            }
        }
    }
}

async fn steer(client: &Client, out: &mut Out, rollout: &str, how: &str) -> Result<(), CliError> {
    let (paint, now) = (out.paint, out.now());
    let id = named(client, rollout).await?;
    let rollout: RolloutView = client.post(&format!("/rollouts/{id}/{how}"), &Value::Null).await?;
    out.show(&rollout, |rollout| drawn::whole(rollout, paint, now))
}

/// Until it is over.
async fn watch(client: &Client, out: &mut Out, id: RolloutId) -> Result<(), CliError> {
    let is_over = |rollout: &RolloutView| rollout.summary.phase.is_over();
    if out.paint.on && !out.json() {
        let mut screen = Screen::as_the_answer(out.paint);
        watch::follow(client, id, None, |rollout| screen.show(rollout), is_over).await?;
        return Ok(());
    }
    let (mut changes, mut last) = (Changes::default(), None);
    let show = |rollout: &RolloutView| {
        let lines = changes.lines(rollout);
        // For a program each state of it is one object, whatever is new in it.
        if out.json() && last.replace(rollout.clone()).as_ref() == Some(rollout) {
            return Ok(());
        }
        if !out.json() && lines.is_empty() {
            return Ok(());
        }
        out.show_line(rollout, |_| lines.join("\n") + "\n")
    };
    watch::follow(client, id, None, show, is_over).await?;
    Ok(())
}

/// By its id, or as the newest one of an application, under way or not: it is what became of the last wish.
async fn newest(client: &Client, rollout: &str) -> Result<RolloutId, CliError> {
    if let Ok(id) = rollout.parse() {
        return Ok(id);
    }
    let app = application(rollout)?;
    let page: Page<RolloutSummary> = client.get(&format!("/rollouts?limit=1&app={app}")).await?;
    match page.items.first() {
        Some(rollout) => Ok(rollout.id),
        None => {
            client.must_know(Some(&app), None).await?;
            Err(CliError::Refused(format!("there was no rollout of {app} yet")))
        }
    }
}

fn application(rollout: &str) -> Result<AppName, CliError> {
    rollout.parse().map_err(|_| {
        CliError::WrongUse(format!(
            "{rollout:?} is neither the id of a rollout nor the name of an application"
        ))
    })
}

/// By its id, or as the one under way of an application.
async fn named(client: &Client, rollout: &str) -> Result<RolloutId, CliError> {
    if let Ok(id) = rollout.parse() {
        return Ok(id);
    }
    let app = application(rollout)?;
    let rollout = under_way(client, &app).await?.map(|it| it.id);
    rollout.ok_or_else(|| CliError::Refused(format!("no rollout of {app} is under way")))
}

async fn under_way(client: &Client, app: &AppName) -> Result<Option<RolloutSummary>, CliError> {
    let application: Application = client.get(&format!("/applications/{app}")).await?;
    Ok(application.current_rollout.map(|it| it.summary))
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

#[cfg(test)]
pub(super) mod tests {
    use proto::rollouts::Progress;
    use proto::state::RolloutPhase;

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
            aborted_by: None,
            left: None,
            progress: Progress { stable: 1, total: 3 },
            waiting: vec!["slot 2 on web-1 must stay ready for 18 s more".to_owned()],
        }
    }
}
