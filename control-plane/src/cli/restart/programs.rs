//! Restarts of DeployEx's own programs, which touch no replica.

use proto::ids::NodeName;
use proto::nodes::Node;
use proto::programs::{ControlPlane, ProgramRestart};
use proto::timestamp::Timestamp;
use tokio::time::Instant;

use super::super::CliError;
use super::super::client::Client;
use super::super::output::Out;
use super::LOOK_EVERY;

pub(super) enum Program {
    ControlPlane,
    /// Of this node.
    Agent(NodeName),
}

impl Program {
    /// Before it is done, for who has to decide.
    pub(super) fn will_happen(&self) -> String {
        match self {
            Self::ControlPlane => {
                "This restarts the control plane, which is away for a few seconds. Replicas go on running; \
                                   a rollout goes on afterwards."
                    .to_owned()
            }
            Self::Agent(node) => format!(
                "This restarts the agent of {node}, which is away for a moment. Its replicas go on running; one that ends \
                 meanwhile is started by the next agent."
            ),
        }
    }

    /// `until`: when to give up waiting for it to be back; `None`: it is not waited for.
    pub(super) async fn restart(
        &self,
        client: &Client,
        until: Option<Instant>,
        out: &mut Out,
    ) -> Result<(), CliError> {
        let path = match self {
            Self::ControlPlane => "/control-plane/restart".to_owned(),
            Self::Agent(node) => format!("/nodes/{node}/restart-agent"),
        };
        let asked: ProgramRestart = client.post(&path, &serde_json::json!({})).await?;
        let Some(until) = until else {
            return out.show(&asked, |_| format!("{} was asked to restart.\n", self.named()));
        };
        let is_back = |started: Option<Timestamp>| started.is_some_and(|at| at > asked.requested_at);
        while !is_back(self.started(client).await?) {
            if Instant::now() >= until {
                return Err(CliError::TimedOut(format!("{} is not back yet", self.named())));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        out.show(&asked, |_| format!("{} is back.\n", self.named()))
    }

    /// When it began. `None`: it is away.
    async fn started(&self, client: &Client) -> Result<Option<Timestamp>, CliError> {
        let started = match self {
            Self::ControlPlane => {
                client.get::<ControlPlane>("/control-plane").await.map(|it| Some(it.started_at))
            }
            Self::Agent(node) => {
                client.get::<Node>(&format!("/nodes/{node}")).await.map(|it| it.agent_started_at)
            }
        };
        match started {
            // A proxy before it answers in words of its own while it is away.
            Err(CliError::NotReachable { .. } | CliError::Unreadable { .. })
                if matches!(self, Self::ControlPlane) =>
            {
                Ok(None)
            }
            other => other,
        }
    }

    fn named(&self) -> String {
        match self {
            Self::ControlPlane => "The control plane".to_owned(),
            Self::Agent(node) => format!("The agent of {node}"),
        }
    }
}
