//! What an application is to be: the validated form of an entry of `applications` in `deployex.yaml`.
//!
//! Plain data, kept as JSON in the database and given to the planner. Reading YAML is `config`'s work; what each key means
//! to an agent is decided where the assignment is made.

mod deploy;
pub mod label;
pub mod monitoring;
mod probe;

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use proto::ids::AppName;
use proto::state::Language;
use serde::{Deserialize, Serialize};

pub use self::deploy::{Amount, CanarySpec, DeploySpec, HotUpgradePolicy, PreCommandsRun, Promote};
use self::monitoring::VmMonitoring;
pub use self::probe::{Ask, Probe};

/// Milliseconds, as every duration in the YAML.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSpec {
    pub name: AppName,
    pub language: Language,
    /// Per node, where there is no `spread`.
    pub replicas: NonZeroU16,
    /// This many over all nodes that may run it. Missing in rows of earlier versions.
    #[serde(default)]
    pub spread: Option<NonZeroU16>,
    /// Labels that a node must have; empty: every node.
    pub nodes: BTreeMap<String, String>,
    /// Slot n gets `base + n - 1` in the variable `key`.
    pub ports: Vec<PortBase>,
    pub env: Vec<EnvEntry>,
    /// A file on the host with further variables.
    pub env_file: Option<String>,
    pub run_as: RunAs,
    pub rollback_timeout: Millis,
    /// How often `current.json` is looked at.
    pub schedule_interval: Millis,
    pub deploy: DeploySpec,
    pub restart: RestartSpec,
    /// What makes it ready where `ready_probes` names nothing, and to agents that know no probes.
    pub ready: ReadyWhen,
    /// All must pass. Missing, like `live`, in what an earlier version stored.
    #[serde(default)]
    pub ready_probes: Vec<Probe>,
    /// One that fails restarts its replica; empty: off.
    #[serde(default)]
    pub live: Vec<Probe>,
    pub distribution: Distribution,
    /// Missing in rows of earlier versions, for which it is the default too.
    #[serde(default)]
    pub cluster: Cluster,
    /// Of each replica.
    #[serde(default)]
    pub limits: Limits,
    /// Missing in rows of earlier versions.
    #[serde(default)]
    pub nginx: Option<NginxSpec>,
    /// Missing in rows of earlier versions.
    #[serde(default)]
    pub monitoring: VmMonitoring,
    /// Which of its events are counted; empty: none. Missing in rows of earlier versions.
    #[serde(default)]
    pub telemetry: Vec<String>,
    pub later: Later,
}

/// What a replica may use at most; `None`: as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes.
    pub memory_max: Option<u64>,
    /// 100 is one core.
    pub cpu_percent: Option<u32>,
    /// Processes and threads together.
    pub pids_max: Option<u32>,
}

/// Settings that are accepted and validated today and used by a part that is not in force yet, as JSON under the YAML's own
/// keys (`deploy.batch`), so that none is lost between two versions of the program.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Later(pub BTreeMap<String, serde_json::Value>);

/// Shows the keys alone: there are tokens among the values.
impl std::fmt::Debug for Later {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBase {
    pub key: String,
    pub base: u16,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvEntry {
    pub key: String,
    pub value: EnvValue,
}

/// Shows the key alone: a value may be a secret that somebody wrote into the YAML.
impl std::fmt::Debug for EnvEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EnvEntry({}=…)", self.key)
    }
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvValue {
    Plain(String),
    /// `name/KEY` in the secrets adapter; resolved when an assignment is made.
    FromSecret(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    pub user: String,
    pub group: Option<String>,
}

/// The upstream file that an application's agents keep for the NGINX of their hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NginxSpec {
    /// On the host, absolute.
    pub upstream_file: String,
    /// What `proxy_pass` names.
    pub upstream: String,
    /// The key of one of the application's ports.
    pub port: String,
    /// One line, split into words as a shell would.
    pub reload: String,
}

impl NginxSpec {
    pub const USUAL_RELOAD: &str = "nginx -s reload";
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartSpec {
    pub backoff_min: Millis,
    pub backoff_max: Millis,
    pub reset_after: Millis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadyWhen {
    /// TCP on the first port where ports are given, else the process lives.
    Default,
    /// The process lives: what DeployEx 0.3.0 did.
    Process,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    pub mode: DistributionMode,
    /// The host part of the node name; the host's own by default.
    pub host: Option<String>,
    pub ports: Option<(u16, u16)>,
    #[serde(default)]
    pub tls: DistributionTls,
}

/// How its Erlang nodes talk TLS to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DistributionTls {
    /// With the host's certificate where it has one, as 0.x did.
    #[default]
    Host,
    Off,
    /// With certificates of the application's own authority.
    Managed,
    /// With the host's certificate, and not at all without.
    Files,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DistributionMode {
    Short,
    Long,
    Off,
}

/// Which of its replicas are kept connected to each other as Erlang nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cluster {
    /// None: what is connected stays so.
    Off,
    /// Those of one host, as in DeployEx 0.x.
    #[default]
    Node,
    /// All, across hosts.
    Fleet,
}

impl DistributionMode {
    pub fn word(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Long => "long",
            Self::Off => "off",
        }
    }
}

impl Cluster {
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Node => "node",
            Self::Fleet => "fleet",
        }
    }
}

impl AppSpec {
    /// An application with every default of the YAML.
    pub fn new(name: AppName, language: Language) -> Self {
        Self {
            name,
            language,
            replicas: NonZeroU16::new(3).unwrap_or(NonZeroU16::MIN),
            spread: None,
            nodes: BTreeMap::new(),
            ports: Vec::new(),
            env: Vec::new(),
            env_file: None,
            run_as: RunAs { user: "deployex".to_owned(), group: None },
            rollback_timeout: Millis(600_000),
            schedule_interval: Millis(5_000),
            deploy: DeploySpec::default(),
            restart: RestartSpec {
                backoff_min: Millis(1_000),
                backoff_max: Millis(300_000),
                reset_after: Millis(60_000),
            },
            ready: ReadyWhen::Default,
            ready_probes: Vec::new(),
            live: Vec::new(),
            distribution: Distribution {
                mode: DistributionMode::Short,
                host: None,
                ports: None,
                tls: DistributionTls::Host,
            },
            cluster: Cluster::default(),
            limits: Limits::default(),
            nginx: None,
            monitoring: VmMonitoring::default(),
            telemetry: Vec::new(),
            later: Later::default(),
        }
    }

    /// Slots 1..=N that one node may have to hold at most: a spread may have to make do with a single node.
    pub fn most_per_node(&self) -> NonZeroU16 {
        self.spread.unwrap_or(self.replicas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_version_stored_is_read_and_what_is_stored_now_it_reads() {
        let mut spec = AppSpec::new("shop".parse().unwrap(), Language::Elixir);
        let mut stored = serde_json::to_value(&spec).unwrap();
        let fields = stored.as_object_mut().unwrap();
        for missing in ["ready_probes", "live", "monitoring", "cluster", "telemetry"] {
            assert!(fields.remove(missing).is_some());
        }
        assert_eq!(serde_json::from_value::<AppSpec>(stored).unwrap(), spec);
        let ask = Ask::Http { port: None, path: "/health".to_owned(), expect: 200 };
        spec.ready_probes =
            vec![Probe { ask, interval: Some(Millis(1_000)), timeout: Millis(2_000), after: 2 }];
        let stored = serde_json::to_value(&spec).unwrap();
        // A word that it knows: it goes by the first port.
        assert_eq!(stored["ready"], "default");
        assert_eq!(serde_json::from_value::<AppSpec>(stored).unwrap(), spec);
    }
}
