//! `deployex config …`: the versions of the configuration, and what waits for somebody.

use clap::Subcommand;
use proto::configuration::{
    Applied, ApplyConfiguration, Configuration as Shown, FileState, Plan, PlanConfiguration, Version,
    VersionSummary,
};
use proto::page::Page;
use proto::timestamp::Timestamp;

use super::CliError;
use super::client::Client;
use super::output::{Out, Table, age, facts, note, wrap};
use super::plan::{by_class, confirmed};

#[derive(Debug, Subcommand)]
pub(super) enum Configuration {
    /// List the versions of the configuration, the newest first; the first is in force.
    #[command(after_help = "Example:\n  deployex config list")]
    List {
        /// How many.
        #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
    /// Show what is in force and what waits, or the text of one version.
    #[command(after_help = "Example:\n  deployex config show 3")]
    Show {
        /// Its number, as `config list` prints it.
        version: Option<u64>,
    },
    /// Put an earlier version in force again, as a new one.
    #[command(after_help = "Example:\n  deployex config restore 3")]
    Restore {
        /// Its number, as `config list` prints it.
        version: u64,
        /// Do not ask first. Needed where there is no terminal to ask on.
        #[arg(short, long)]
        yes: bool,
    },
}

impl Configuration {
    pub(super) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let now = out.now();
        match self {
            Self::List { limit } => {
                let page: Page<VersionSummary> =
                    client.get(&format!("/configuration/versions?limit={limit}")).await?;
                out.show(&page.items, |versions| table(versions, now))
            }
            Self::Show { version: None } => {
                let shown: Shown = client.get("/configuration").await?;
                out.show(&shown, |shown| render(shown, now))
            }
            Self::Show { version: Some(number) } => {
                let version: Version = client.get(&format!("/configuration/versions/{number}")).await?;
                if !out.json() {
                    // Not part of the text, which may be written to a file.
                    note(&said_of(&version, now));
                }
                out.show(&version, |version| version.yaml.clone())
            }
            Self::Restore { version, yes } => {
                let earlier: Version = client.get(&format!("/configuration/versions/{version}")).await?;
                if earlier.masked {
                    let message = "this needs the role admin: the text of a version is not shown to others";
                    return Err(CliError::NotAllowed(message.to_owned()));
                }
                let plan: Plan =
                    client.post("/configuration/plan", &PlanConfiguration { yaml: earlier.yaml }).await?;
                confirmed(&plan, yes, false, out)?;
                let wish = ApplyConfiguration {
                    restore: Some(version),
                    base: plan.base,
                    sha256: Some(plan.sha256),
                    ..ApplyConfiguration::default()
                };
                let applied: Applied = client.post("/configuration/apply", &wish).await?;
                out.show(&applied, |applied| format!("{}\n", applied.sentence))
            }
        }
    }
}

fn table(versions: &[VersionSummary], now: Timestamp) -> String {
    let mut table = Table::new(&["VERSION", "APPLIED", "BY", "FROM", "CHANGES", "SHA-256"]);
    for version in versions {
        let VersionSummary { number, sha256, by, at, origin, changes } = version;
        table.row(vec![
            number.into(),
            age(Some(*at), now).into(),
            by.into(),
            origin.into(),
            changes.counted().into(),
            sha256.short().into(),
        ]);
    }
    table.render()
}

fn said_of(version: &Version, now: Timestamp) -> String {
    let Version { summary: VersionSummary { number, by, at, origin, .. }, masked, .. } = version;
    let hidden = if *masked { "; secrets and comments are left out" } else { "" };
    format!("# version {number}, applied {} ago by {by} ({origin}){hidden}", age(Some(*at), now))
}

fn render(shown: &Shown, now: Timestamp) -> String {
    let Shown { in_force, file, auto_apply, awaits_restart: _ } = shown;
    let version = in_force.as_ref().map_or_else(
        || "none".to_owned(),
        |it| {
            format!(
                "version {}, applied {} ago by {} ({})",
                it.number,
                age(Some(it.at), now),
                it.by,
                it.origin
            )
        },
    );
    let looked_at = file.as_ref().map_or_else(|| "none".to_owned(), |it| it.path.clone());
    let apply = if *auto_apply { "a changed file is applied at once" } else { "a changed file waits" };
    let mut text = facts(&[("in force", version), ("file", looked_at), ("apply", apply.to_owned())]);
    for sentence in shown.waiting() {
        text.push_str(&wrap(&format!("{sentence}.")));
    }
    match file.as_ref().map(|it| &it.state) {
        Some(FileState::Pending { plan } | FileState::Overridden { plan }) => {
            text.push_str(&by_class(&plan.difference));
        }
        Some(FileState::Faulty { faults }) => {
            for fault in faults {
                text.push_str(&wrap(&format!("  {}: {}", fault.path, fault.message)));
            }
        }
        Some(FileState::InForce | FileState::Unreadable { .. }) | None => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use proto::configuration::{Difference, Origin, WatchedFile};
    use proto::ids::Digest;

    use super::super::plan::tests::plan;
    use super::*;

    fn version(number: u64, origin: Origin) -> VersionSummary {
        VersionSummary {
            number,
            sha256: Digest([0xab; 32]),
            by: "token:ci".to_owned(),
            at: Timestamp(80_000),
            origin,
            changes: Difference { control_plane: plan().difference.control_plane, ..Difference::default() },
        }
    }

    #[test]
    fn versions_say_who_applied_them_and_from_where() {
        let versions = [version(12, Origin::Restore(3)), version(11, Origin::Cli)];
        insta::assert_snapshot!(table(&versions, Timestamp(200_000)), @r"
        VERSION  APPLIED  BY        FROM       CHANGES    SHA-256
        12       2m       token:ci  restore 3  2 changes  abababababab
        11       2m       token:ci  cli        2 changes  abababababab
        ");
    }

    #[test]
    fn what_waits_is_said_with_its_difference() {
        let plan = plan();
        let awaits_restart = plan.difference.control_plane.clone();
        let shown = Shown {
            in_force: Some(version(4, Origin::File)),
            file: Some(WatchedFile {
                path: "/etc/deployex/deployex.yaml".to_owned(),
                since: Timestamp(90_000),
                state: FileState::Pending { plan },
            }),
            auto_apply: false,
            awaits_restart,
        };
        insta::assert_snapshot!(render(&shown, Timestamp(200_000)));
    }
}
