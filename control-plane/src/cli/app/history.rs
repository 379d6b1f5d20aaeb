//! `deployex app history`: every version of an application or of one replica, with what became of it.

use clap::Args;
use proto::apps::{DeploymentKind, HistoryEntry, ReplicaHistoryEntry};
use proto::ids::{AppName, NodeName, Slot};
use proto::page::Page;
use proto::timestamp::Timestamp;

use crate::cli::CliError;
use crate::cli::client::Client;
use crate::cli::output::{Cell, Out, Paint, Table, age, duration, or_dash, wrap};

/// Show every version that was deployed: when, for how long, on whose word, and what became of it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  deployex app history myapp --node web-1 --slot 2")]
pub(in crate::cli) struct History {
    /// The application's name.
    application: AppName,
    /// With --slot: what that one replica was told to run.
    #[arg(long, value_name = "NAME", requires = "slot")]
    node: Option<NodeName>,
    /// The replica's slot on --node.
    #[arg(long, value_name = "K", requires = "node")]
    slot: Option<Slot>,
    /// How many, the newest first.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
}

impl History {
    pub(in crate::cli) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let (paint, now) = (out.paint, out.now());
        let Self { application, node, slot, limit } = self;
        if let (Some(node), Some(slot)) = (node, slot) {
            let path = format!("/replicas/{node}/{application}/{slot}/history?limit={limit}");
            let page: Page<ReplicaHistoryEntry> = client.get(&path).await?;
            return out.show(&page.items, |entries| match entries.is_empty() {
                true => format!("Slot {slot} of {application} on {node} was never told to run anything.\n"),
                false => of_replica(entries, paint, now),
            });
        }
        let path = format!("/applications/{application}/history?limit={limit}");
        let page: Page<HistoryEntry> = client.get(&path).await?;
        out.show(&page.items, |entries| match entries.is_empty() {
            true => format!("Nothing of {application} was ever deployed.\n"),
            false => of_application(entries, paint, now),
        })
    }
}

fn took(from: Timestamp, until: Option<Timestamp>) -> Cell {
    match until {
        Some(until) => duration(until.0.saturating_sub(from.0)).into(),
        None => "goes on".into(),
    }
}

fn of_application(entries: &[HistoryEntry], paint: Paint, now: Timestamp) -> String {
    let mut table = Table::new(&["VERSION", "FROM", "KIND", "STARTED", "TOOK", "BY", "OUTCOME"]);
    for entry in entries {
        let HistoryEntry { release, from, kind, by, started_at, finished_at, outcome, .. } = entry;
        table.row(vec![
            (&release.version).into(),
            or_dash(from.as_ref().map(|it| &it.version)).into(),
            or_dash(kind.map(DeploymentKind::word)).into(),
            age(Some(*started_at), now).into(),
            took(*started_at, *finished_at),
            by.into(),
            paint.state(outcome.tone(), outcome),
        ]);
    }
    let reasons = entries.iter().filter_map(|it| Some((&it.release.version, it.reason.as_ref()?)));
    table.render() + &said(reasons)
}

fn of_replica(entries: &[ReplicaHistoryEntry], paint: Paint, now: Timestamp) -> String {
    let mut table = Table::new(&["VERSION", "FROM", "KIND", "SINCE", "FOR", "BY", "ROLLOUT", "OUTCOME"]);
    for entry in entries {
        let ReplicaHistoryEntry {
            release, kind, from, started_at, finished_at, rollout, by, outcome, ..
        } = entry;
        table.row(vec![
            (&release.version).into(),
            or_dash(from.as_ref().map(|it| &it.version)).into(),
            kind.word().into(),
            age(Some(*started_at), now).into(),
            took(*started_at, *finished_at),
            or_dash(by.as_ref()).into(),
            or_dash(*rollout).into(),
            outcome.map_or_else(|| "-".into(), |outcome| paint.state(outcome.tone(), outcome)),
        ]);
    }
    let reasons = entries.iter().filter_map(|it| Some((&it.release.version, it.reason.as_ref()?)));
    table.render() + &said(reasons)
}

/// To its end what did not fit into a column, each once.
fn said<'a>(reasons: impl Iterator<Item = (&'a proto::ids::Version, &'a String)>) -> String {
    let mut lines: Vec<String> = reasons.map(|(version, reason)| format!("{version}: {reason}")).collect();
    lines.dedup();
    lines.iter().map(|line| wrap(line)).collect()
}

#[cfg(test)]
mod tests {
    use proto::state::RolloutPhase;

    use super::super::tests::release;
    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
    const WHY: &str = "slot 1 on web-1 was not stable within 10 min";

    #[test]
    fn a_history_says_what_became_of_each_version() {
        let done = HistoryEntry {
            rollout: ID.parse().unwrap(),
            release: release("2.4.1"),
            from: None,
            kind: Some(DeploymentKind::Full),
            by: "bucket".to_owned(),
            started_at: Timestamp(1_000),
            finished_at: Some(Timestamp(91_000)),
            outcome: RolloutPhase::Done,
            reason: None,
        };
        let reverted = HistoryEntry {
            release: release("2.5.0"),
            from: Some(release("2.4.1")),
            kind: Some(DeploymentKind::Mixed),
            by: "ann".to_owned(),
            started_at: Timestamp(100_000),
            finished_at: None,
            outcome: RolloutPhase::Reverting,
            reason: Some(WHY.to_owned()),
            ..done.clone()
        };
        let text = of_application(&[reverted, done], Paint { on: false }, Timestamp(200_000));
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_replica_says_who_told_it_what() {
        let told = ReplicaHistoryEntry {
            release: release("2.4.1"),
            kind: DeploymentKind::Full,
            from: None,
            started_at: Timestamp(100_000),
            finished_at: None,
            rollout: None,
            by: None,
            outcome: None,
            reason: None,
        };
        let taken_back = ReplicaHistoryEntry {
            release: release("2.5.0"),
            kind: DeploymentKind::Hot,
            from: Some(release("2.4.0")),
            started_at: Timestamp(40_000),
            finished_at: Some(Timestamp(100_000)),
            rollout: Some(ID.parse().unwrap()),
            by: Some("bucket".to_owned()),
            outcome: Some(RolloutPhase::Reverted),
            reason: Some(WHY.to_owned()),
        };
        insta::assert_snapshot!(of_replica(&[told, taken_back], Paint { on: false }, Timestamp(200_000)));
    }
}
