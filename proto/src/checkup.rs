//! What `deployex app doctor` finds: of each replica of an application how its Erlang node stands with its agent and with the
//! others, in plain words, with what to do.

use serde::{Deserialize, Serialize};

use crate::ids::{AppName, NodeName, Slot};

/// An application, looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Checkup {
    pub application: AppName,
    /// `off`, `node` or `fleet`.
    pub cluster: String,
    /// `short`, `long` or `off`.
    pub distribution: String,
    /// Nothing is wrong.
    pub well: bool,
    /// Of the application as a whole.
    pub findings: Vec<Finding>,
    pub replicas: Vec<ReplicaCheckup>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReplicaCheckup {
    pub node: NodeName,
    pub slot: Slot,
    /// Of its Erlang node; absent: it is none, or that is not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Finding {
    pub verdict: Verdict,
    pub about: Subject,
    /// What is true, as a sentence.
    pub sentence: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Well,
    /// To be known, or not known yet.
    Note,
    Wrong,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Note => "note",
            Self::Wrong => "wrong",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// Whether it runs, and is an Erlang node.
    Distribution,
    /// Its agent's connection to it.
    Connection,
    /// Its connections to the others.
    Mesh,
    /// Names of nodes and the hosts in them.
    Names,
    /// Where nodes listen.
    Ports,
    /// How they talk to each other.
    Tls,
}

impl Checkup {
    /// All findings, those of the application first.
    pub fn all(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().chain(self.replicas.iter().flat_map(|it| &it.findings))
    }
}
