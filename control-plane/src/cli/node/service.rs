//! `deployex node cordon|uncordon|drain`: whether replicas are kept away from a node, and with `--wait` until it is empty.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use proto::ids::NodeName;
use proto::nodes::{Node, drain_sentence};
use proto::state::Service;
use serde_json::Value;
use tokio::time::Instant;

use crate::cli::CliError;
use crate::cli::client::Client;
use crate::cli::output::{News, Out, go_on, wrap};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Give a node no replica more. What it has stays, and follows rollouts.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  deployex node cordon web-1")]
pub(in crate::cli) struct Cordon {
    /// The node's name.
    node: NodeName,
}

/// Give a node replicas again; a drain ends.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  deployex node uncordon web-1")]
pub(in crate::cli) struct Uncordon {
    /// The node's name.
    node: NodeName,
}

/// Withdraw what a node has, little by little, and give it nothing.
///
/// Never more replicas of an application are missing than its `max_unavailable` allows, and at least one. Those of a spread
/// move to other nodes first.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  deployex node drain web-1 --wait")]
pub(in crate::cli) struct Drain {
    /// The node's name.
    node: NodeName,
    /// Return when it holds nothing any more.
    #[arg(long)]
    wait: bool,
    /// With --wait: give up waiting (the drain goes on) and exit with 5.
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    timeout: u64,
    /// Do not ask first.
    #[arg(short, long)]
    yes: bool,
}

impl Cordon {
    pub(in crate::cli) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let node: Node = client.post(&format!("/nodes/{}/cordon", self.node), &Value::Null).await?;
        out.show(&node, |node| format!("{} is cordoned: it is given no replica more.\n", node.summary.name))
    }
}

impl Uncordon {
    pub(in crate::cli) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let node: Node = client.post(&format!("/nodes/{}/uncordon", self.node), &Value::Null).await?;
        out.show(&node, |node| format!("{} is in service.\n", node.summary.name))
    }
}

impl Drain {
    pub(in crate::cli) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let path = format!("/nodes/{}", self.node);
        let before: Node = client.get(&path).await?;
        let begun = before.summary.service == Service::Draining;
        let asks = !self.yes && !out.json() && std::io::stdin().is_terminal();
        if asks && !begun && !go_on(&self.will_happen(&before))? {
            return Err(CliError::Refused(format!("{} was left as it is", self.node)));
        }
        // Who comes again to wait for what was begun is not told that it was begun.
        let node: Node = match begun && self.wait {
            true => before,
            false => client.post(&format!("{path}/drain"), &Value::Null).await?,
        };
        if !self.wait {
            return out.show(&node, |it| {
                wrap(&format!("{} is being drained. {}", it.summary.name, drain_sentence(&it.holds)))
            });
        }
        let empty = self.until_empty(client, node).await?;
        out.show(&empty, |node| format!("{} holds nothing.\n", node.summary.name))
    }

    /// Before it is done, for who has to decide.
    fn will_happen(&self, node: &Node) -> String {
        format!("This drains {}. {}", self.node, drain_sentence(&node.holds))
    }

    async fn until_empty(&self, client: &Client, mut node: Node) -> Result<Node, CliError> {
        let until = Instant::now() + Duration::from_secs(self.timeout);
        let mut said = News::default();
        loop {
            match node.summary.service {
                Service::Draining if node.slots.is_empty() => return Ok(node),
                Service::Draining => said.say(&node.waiting),
                service => {
                    let message = format!("{} is no longer drained: it is {service}", self.node);
                    return Err(CliError::Refused(message));
                }
            }
            if Instant::now() >= until {
                let message =
                    format!("the drain of {} goes on; `deployex node show {0}` shows it", self.node);
                return Err(CliError::TimedOut(message));
            }
            tokio::time::sleep(LOOK_EVERY).await;
            node = client.get(&format!("/nodes/{}", self.node)).await?;
        }
    }
}

/// What it means for who looks at the node; `None`: nothing.
pub(super) fn means(service: Service) -> Option<&'static str> {
    match service {
        Service::Open => None,
        Service::Cordoned => Some("It is cordoned: it keeps what it has and is given no replica more."),
        Service::Draining => Some("It is being drained: what it has is withdrawn little by little."),
    }
}
