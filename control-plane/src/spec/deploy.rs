//! How a release takes the place of another: `deploy` of an application, as it is kept.

mod said;

pub use proto::hot_upgrade::HotUpgradePolicy;
use proto::state::Strategy;
use serde::{Deserialize, Serialize};

use super::Millis;

/// A number of things, or a share of them in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    Count(u32),
    /// 1..=100.
    Percent(u8),
}

impl Amount {
    /// Of so many, rounded down: what may be missing is never more than was allowed.
    pub fn of(self, all: u64) -> u64 {
        match self {
            Self::Count(count) => u64::from(count),
            Self::Percent(percent) => all.saturating_mul(u64::from(percent)) / 100,
        }
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Fields with a default of their own are missing in rows of earlier versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploySpec {
    pub strategy: Strategy,
    pub stable_after: Millis,
    /// A crash loop within this after stability still rolls back.
    pub watch: Millis,
    pub stop_grace: Millis,
    pub pre_commands_timeout: Millis,
    /// From the moment at which NGINX sends a replica no more requests until it is told to stop.
    #[serde(default = "DeploySpec::usual_drain")]
    pub drain: Millis,
    /// Nodes whose replicas are replaced side by side; a share is one of the nodes that may run it. At least one.
    #[serde(default = "DeploySpec::usual_batch")]
    pub batch: Amount,
    /// Replicas of the application that may be missing at a time because of what we do; a share is one of all its replicas.
    /// `stop_first` and a drain take it for at least 1.
    #[serde(default = "DeploySpec::usual_max_unavailable")]
    pub max_unavailable: Amount,
    /// `None`: a rollout begins with an ordinary batch.
    #[serde(default)]
    pub canary: Option<CanarySpec>,
    /// Nodes are taken in the order of this label's values, those without it last, and no batch holds two values of it.
    #[serde(default)]
    pub order_by: Option<String>,
    /// Between the last stable slot of a batch and the next batch.
    #[serde(default = "DeploySpec::usual_pause")]
    pub pause_between: Millis,
    /// Nodes on which a release may fail without being taken back.
    #[serde(default)]
    pub tolerate_failed_nodes: u32,
    #[serde(default)]
    pub pre_commands_run: PreCommandsRun,
    #[serde(default)]
    pub hot_upgrade: HotUpgradePolicy,
}

/// The first batch of a rollout, behind which the others wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanarySpec {
    /// At least one.
    pub nodes: Amount,
    pub promote: Promote,
    /// How long all of it must be stable before the rollout goes on by itself.
    pub soak: Millis,
}

/// What lets a rollout go on behind its canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Promote {
    /// The soak.
    Auto,
    /// A person, whatever the soak.
    Manual,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreCommandsRun {
    /// For the whole fleet, before anything is moved.
    #[default]
    Once,
    /// By each slot, before it starts the release.
    EveryReplica,
}

impl DeploySpec {
    fn usual_drain() -> Millis {
        Millis(5_000)
    }

    fn usual_batch() -> Amount {
        Amount::Count(1)
    }

    fn usual_max_unavailable() -> Amount {
        Amount::Count(0)
    }

    fn usual_pause() -> Millis {
        Millis(0)
    }

    /// Replicas that may be missing at a time, of so many.
    pub fn may_be_missing(&self, replicas: u64) -> u64 {
        let least = u64::from(self.strategy == Strategy::StopFirst);
        self.max_unavailable.of(replicas).max(least)
    }
}

impl CanarySpec {
    pub const USUAL_SOAK: Millis = Millis(60_000);
}

impl Default for DeploySpec {
    fn default() -> Self {
        Self {
            strategy: Strategy::StartFirst,
            stable_after: Millis(30_000),
            watch: Millis(600_000),
            stop_grace: Millis(10_000),
            pre_commands_timeout: Millis(600_000),
            drain: Self::usual_drain(),
            batch: Self::usual_batch(),
            max_unavailable: Self::usual_max_unavailable(),
            canary: None,
            order_by: None,
            pause_between: Self::usual_pause(),
            tolerate_failed_nodes: 0,
            pre_commands_run: PreCommandsRun::Once,
            hot_upgrade: HotUpgradePolicy::Auto,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_down_and_stop_first_may_always_miss_one() {
        let mut spec = DeploySpec { max_unavailable: Amount::Percent(25), ..DeploySpec::default() };
        assert_eq!((spec.may_be_missing(7), spec.may_be_missing(3)), (1, 0));
        spec.strategy = Strategy::StopFirst;
        assert_eq!((spec.may_be_missing(9), spec.may_be_missing(3)), (2, 1));
        spec.max_unavailable = Amount::Count(0);
        assert_eq!(spec.may_be_missing(100), 1);
    }

    #[test]
    fn what_an_earlier_version_stored_means_what_it_did() {
        let stored = r#"{"strategy":"start_first","stable_after":30000,"watch":600000,"stop_grace":10000,"pre_commands_timeout":600000}"#;
        assert_eq!(serde_json::from_str::<DeploySpec>(stored).unwrap(), DeploySpec::default());
    }
}
