//! `deployex restart`: starts anew what runs, or DeployEx's own programs, and with `--wait` follows it to its end.

mod programs;

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use proto::apps::Application;
use proto::ids::{AppName, NodeName, Slot};
use proto::nodes::Node;
use proto::replicas::Replica;
use proto::restarts::{NewRestart, Restart as Asked};
use proto::state::Strategy;
use tokio::time::Instant;

use self::programs::Program;
use super::CliError;
use super::client::Client;
use super::output::{News, Out, go_on};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Start anew what runs: an application, part of it, everything on a node, or a program of DeployEx itself.
///
/// One replica that is named by node and slot is started anew at once. More go slot by slot, each once the last is stable,
/// never with fewer ready than the application's strategy allows.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  deployex restart myapp --wait")]
pub(super) struct Restart {
    /// The application's name; without it, every application on --node.
    #[arg(required_unless_present_any = ["node", "own"])]
    application: Option<AppName>,
    /// Only on this node.
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// Only this slot.
    #[arg(long, value_name = "K", requires = "application")]
    slot: Option<Slot>,
    /// Not the replicas of --node but its agent. No replica is touched.
    #[arg(long, requires = "node", conflicts_with = "application")]
    agent: bool,
    /// The control plane. No replica is touched.
    #[arg(long = "self", id = "own", conflicts_with_all = ["application", "node"])]
    own: bool,
    /// Return when all of it was started anew and is stable.
    #[arg(long)]
    wait: bool,
    /// With --wait: give up waiting (the restart goes on) and exit with 5.
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    timeout: u64,
    /// Do not ask first.
    #[arg(short, long)]
    yes: bool,
}

impl Restart {
    pub(super) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        if !self.yes && !out.json() && std::io::stdin().is_terminal() && !self.agreed(client).await? {
            return Err(CliError::Refused("nothing was started anew".to_owned()));
        }
        if let Some(program) = self.program() {
            let until = self.wait.then(|| Instant::now() + Duration::from_secs(self.timeout));
            return program.restart(client, until, out).await;
        }
        let asked: Vec<Asked> = match (&self.application, &self.node) {
            (Some(app), node) => {
                let wish = NewRestart { node: node.clone(), slot: self.slot };
                vec![client.post(&format!("/applications/{app}/restart"), &wish).await?]
            }
            (None, Some(node)) => {
                client.post(&format!("/nodes/{node}/restart"), &serde_json::json!({})).await?
            }
            (None, None) => return Err(CliError::WrongUse("name an application, or a --node".to_owned())),
        };
        if !self.wait {
            return out.show(&asked, |asked| said_of(asked, "is under way"));
        }
        let until = Instant::now() + Duration::from_secs(self.timeout);
        let mut over = Vec::new();
        for restart in asked {
            over.push(follow(client, restart, until).await?);
        }
        let failed: Vec<String> = over.iter().filter_map(failure).collect();
        if failed.is_empty() {
            return out.show(&over, |over| said_of(over, "is complete"));
        }
        Err(CliError::Refused(failed.join("; ")))
    }

    fn program(&self) -> Option<Program> {
        let agent = || Some(Program::Agent(self.node.clone().filter(|_| self.agent)?));
        if self.own { Some(Program::ControlPlane) } else { agent() }
    }

    async fn agreed(&self, client: &Client) -> Result<bool, CliError> {
        if let Some(program) = self.program() {
            return go_on(&program.will_happen());
        }
        let sentence = match (&self.application, &self.node) {
            (Some(app), _) => {
                let app: Application = client.get(&format!("/applications/{app}")).await?;
                will_happen(&app.slots, self.node.as_ref(), self.slot, app.settings.strategy)
            }
            (None, Some(node)) => {
                let node: Node = client.get(&format!("/nodes/{node}")).await?;
                format!(
                    "This starts {} on {} anew, those of each application one by one.",
                    replicas(node.slots.iter().filter(|it| it.assigned.is_some()).count()),
                    node.summary.name
                )
            }
            (None, None) => return Ok(true),
        };
        go_on(&sentence)
    }
}

/// Before it is done, for who has to decide.
fn will_happen(slots: &[Replica], node: Option<&NodeName>, slot: Option<Slot>, strategy: Strategy) -> String {
    let covered = slots
        .iter()
        .filter(|it| it.assigned.is_some())
        .filter(|it| node.is_none_or(|node| *node == it.node) && slot.is_none_or(|slot| slot == it.slot))
        .count();
    match (node, slot) {
        (Some(node), Some(slot)) => {
            format!(
                "This stops slot {slot} on {node} and starts it anew; it serves nobody until it is ready."
            )
        }
        _ => {
            let meanwhile = match strategy {
                Strategy::StartFirst => "an extra slot serves meanwhile",
                Strategy::StopFirst => "each serves nobody while it starts",
            };
            format!("This starts {} anew, one by one; {meanwhile}.", replicas(covered))
        }
    }
}

fn replicas(count: usize) -> String {
    if count == 1 { "1 replica".to_owned() } else { format!("{count} replicas") }
}

async fn follow(client: &Client, restart: Asked, until: Instant) -> Result<Asked, CliError> {
    let mut said = News::default();
    loop {
        let now: Asked = client.get(&format!("/restarts/{}", restart.id)).await?;
        if now.finished_at.is_some() {
            return Ok(now);
        }
        if Instant::now() >= until {
            return Err(CliError::TimedOut(format!("{} goes on", what(&now))));
        }
        said.say(&now.waiting);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A line for each.
fn said_of(restarts: &[Asked], word: &str) -> String {
    let lines: Vec<String> = restarts.iter().map(|it| format!("{} {word}.", what(it))).collect();
    lines.join("\n") + "\n"
}

fn failure(restart: &Asked) -> Option<String> {
    restart.failure.as_ref().map(|why| format!("{} is not complete: {why}", what(restart)))
}

/// "The restart of slot 2 of shop on web-1"
fn what(restart: &Asked) -> String {
    let slot = restart.slot.map(|slot| format!("slot {slot} of ")).unwrap_or_default();
    let node = restart.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
    format!("The restart of {slot}{}{node}", restart.application)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::app::tests::replica;

    #[test]
    fn who_restarts_is_told_what_will_happen() {
        let slots = [replica()];
        let (node, slot) = (slots[0].node.clone(), slots[0].slot);
        let one = will_happen(&slots, Some(&node), Some(slot), Strategy::StartFirst);
        assert!(one.contains("serves nobody until it is ready"), "{one}");
        let all = will_happen(&slots, None, None, Strategy::StartFirst);
        assert_eq!(all, "This starts 1 replica anew, one by one; an extra slot serves meanwhile.");
    }
}
