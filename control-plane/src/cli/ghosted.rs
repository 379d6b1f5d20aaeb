//! `deployex ghosted …`: releases that failed to become stable, and their way back.

use clap::Subcommand;
use proto::ids::{AppName, Version};
use proto::page::Page;
use proto::releases::{Ghost, GhostsCleared};
use proto::timestamp::Timestamp;

use super::client::Client;
use super::output::{Out, Table, age, one_line, quoted, wrap};
use super::{CliError, app};

/// Of a log: enough for the head of a stack trace.
const LAST_LINES: usize = 12;

#[derive(Debug, Subcommand)]
pub(super) enum Ghosted {
    /// List the ghosted releases of an application.
    #[command(after_help = "Example:\n  deployex ghosted list myapp")]
    List {
        /// The application's name.
        application: AppName,
    },
    /// Let ghosted releases be deployed again: one version, or all of them.
    #[command(after_help = "Example:\n  deployex ghosted clear myapp 2.5.0")]
    Clear {
        /// The application's name.
        application: AppName,
        /// Without it, all of them.
        version: Option<Version>,
    },
}

impl Ghosted {
    pub(super) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let now = out.now();
        match self {
            Self::List { application } => {
                let page: Page<Ghost> = client.get(&format!("/applications/{application}/ghosted")).await?;
                out.show(&page.items, |ghosts| match ghosts.is_empty() {
                    true => format!("No release of {application} is ghosted.\n"),
                    false => table(ghosts, now),
                })
            }
            Self::Clear { application, version } => {
                let version = version.map(|version| format!("/{version}")).unwrap_or_default();
                let path = format!("/applications/{application}/ghosted{version}");
                let cleared: GhostsCleared = client.delete(&path).await?;
                out.show(&cleared, |cleared| said_of_clearing(&application, cleared))
            }
        }
    }
}

fn table(ghosts: &[Ghost], now: Timestamp) -> String {
    let mut table = Table::new(&["VERSION", "SHA-256", "SINCE", "WHY"]);
    for ghost in ghosts {
        table.row(vec![
            (&ghost.key.version).into(),
            ghost.key.sha256.short().into(),
            age(Some(ghost.at), now).into(),
            (&ghost.reason).into(),
        ]);
    }
    let mut text = table.render();
    for ghost in ghosts {
        text.push_str(&wrap(&format!("{}: {}", ghost.key.version, ghost.reason)));
        text.push_str(&evidence(ghost, now));
    }
    text
}

/// What is known of the slot that failed: its last check, how it ended, and what it printed last.
pub(super) fn evidence(ghost: &Ghost, now: Timestamp) -> String {
    let at = ghost.node.as_ref().zip(ghost.slot);
    let mut text =
        at.map(|(node, slot)| format!("It failed in slot {slot} on {node}.\n")).unwrap_or_default();
    if let Some(fault) = &ghost.fault {
        text.push_str(&wrap(&format!("The slot said: {}", one_line(fault))));
    }
    if let Some(check) = &ghost.failed_check {
        text.push_str(&wrap(&format!("Its {}", app::failed_check(check, now))));
    }
    if let Some(exit) = &ghost.last_exit {
        // The reason may say it already, and a slogan is long.
        let said = |it: &&String| ghost.reason.contains(it.as_str());
        let detail = exit.because.as_ref().or(exit.slogan.as_ref()).filter(|it| !said(it));
        let detail = detail.map(|it| format!(": {}", one_line(it))).unwrap_or_default();
        text.push_str(&wrap(&format!(
            "It ended {} ago with {}{detail}",
            age(Some(exit.at), now),
            exit.cause
        )));
    }
    let quote = |tail: &str| format!("Its last lines:\n{}", quoted(tail, LAST_LINES));
    text.push_str(&ghost.log_tail.as_deref().map(quote).unwrap_or_default());
    text
}

fn said_of_clearing(application: &AppName, cleared: &GhostsCleared) -> String {
    match cleared.cleared.as_slice() {
        [] => format!("No release of {application} was ghosted.\n"),
        keys => {
            let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
            format!("May be deployed again: {}.\n", keys.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::app::tests::release;
    use super::*;

    #[test]
    fn a_ghost_says_why() {
        let reason =
            "slot 1 on web-1 crashed 3 times within 2 minutes of its deployment, last with exit status 1";
        let numbers: Vec<String> = (1..=14).map(|number: u8| number.to_string()).collect();
        let log_tail = Some(format!("line {}\n{}\u{7}", numbers.join("\nline "), "x".repeat(200)));
        let ghost = Ghost {
            key: release("2.5.0"),
            at: Timestamp(0),
            reason: reason.to_owned(),
            node: Some("web-1".parse().unwrap()),
            slot: Some(proto::ids::Slot::new(1).unwrap()),
            failed_check: Some(proto::replicas::FailedCheck {
                list: proto::replicas::ProbeList::Ready,
                asked: "GET /health on port 4000".to_owned(),
                outcome: "answered 503".to_owned(),
                body: "database down".to_owned(),
                at: Timestamp(0),
                in_a_row: 4,
                log_tail: String::new(),
            }),
            last_exit: Some(proto::replicas::LastExit {
                cause: proto::state::ExitCause::Code(1),
                at: Timestamp(0),
                asked_for: false,
                log_tail: String::new(),
                slogan: Some("init terminating in do_boot".to_owned()),
                crash_dump: None,
                because: None,
            }),
            fault: Some("it does not start".to_owned()),
            log_tail,
        };
        let key = release("2.4.0");
        let (node, slot, failed_check, last_exit, fault, log_tail) = (None, None, None, None, None, None);
        let reason = reason.to_owned();
        let silent =
            Ghost { key, at: Timestamp(0), reason, node, slot, failed_check, last_exit, fault, log_tail };
        insta::assert_snapshot!(table(&[ghost, silent], Timestamp(7_200_000)));
    }

    #[test]
    fn clearing_names_what_was_cleared() {
        let app = "myapp".parse().unwrap();
        let cleared = GhostsCleared { cleared: vec![release("2.5.0")] };
        assert_eq!(said_of_clearing(&app, &cleared), "May be deployed again: 2.5.0 (abababababab).\n");
    }
}
