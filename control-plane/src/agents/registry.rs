//! What the agents' side asks of the rest of the control plane, as narrow traits: who may join and who is still welcome, what a
//! node is to run, where a release's bytes come from.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use proto::ids::{AppName, NodeId, NodeName, ReleaseKey};
use proto::pb;
use proto::state::Severity;

use super::pki::{Authority, Issued};
use crate::clock::Time;
use crate::db::{Db, DbError, Enrolment, HelloFacts, Inventory, NewCertificate, NewEvent};

/// A failure behind one of these traits; what exactly, is for the log.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// A host that wants to join, with the certificate it will get if it may.
#[derive(Clone, Debug)]
pub struct Applicant {
    /// SHA-256 of the token's secret.
    pub token: [u8; 32],
    pub node: NodeId,
    /// What it wants to be called.
    pub name: NodeName,
    pub labels: BTreeMap<String, String>,
    pub agent_version: String,
    pub certificate: Issued,
}

/// Why a host may not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinRefused {
    /// Which of them, is not said to who cannot show a good one.
    #[error("this join token is unknown, used up or expired: make another with `deployex node token`")]
    Token,
    #[error("there is a node of that name already: choose another with --name, or remove that node first")]
    NameTaken,
    #[error("the join could not be recorded")]
    Failed(#[source] Source),
}

/// What is known of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Good,
    /// Its node was removed, or it was revoked by itself.
    Revoked,
    /// Never recorded, as after the database was restored from an older copy.
    Unknown,
}

/// Nodes and their certificates, remembered.
#[async_trait::async_trait]
pub trait Registry: Send + Sync {
    /// Checks the token, uses it once, records node and certificate: all or nothing. Returns the name in force.
    async fn join(&self, applicant: Applicant, now: Time) -> Result<NodeName, JoinRefused>;

    async fn standing(&self, node: NodeId, serial: &str) -> Result<Standing, Source>;

    /// A further certificate of a node.
    async fn renewed(&self, node: NodeId, certificate: &Issued, now: Time) -> Result<(), Source>;

    /// What a node said of itself at the start of a session.
    async fn hello(&self, node: NodeId, hello: &pb::Hello, now: Time) -> Result<(), Source>;
}

/// What a node is to run, made when it is asked for.
#[async_trait::async_trait]
pub trait AssignmentSource: Send + Sync {
    async fn assignment(&self, node: NodeId) -> Result<pb::Assignment, Source>;

    /// Whether a slot of the node is to run that release, also where its application is held.
    async fn is_to_run(&self, node: NodeId, app: &AppName, key: &ReleaseKey) -> Result<bool, Source>;

    /// Which hosts the application's Erlang nodes may be of on that node; `None`: it is to run none of them.
    async fn peer_hosts(&self, node: NodeId, app: &AppName) -> Result<Option<Vec<String>>, Source>;
}

/// The authorities that sign for TLS between Erlang nodes, one per application.
#[async_trait::async_trait]
pub trait PeerAuthorities: Send + Sync {
    /// Made when it is asked for the first time.
    async fn authority(&self, app: &AppName, now: Time) -> Result<Authority, Source>;
}

/// Why a release's bytes cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("the release is no longer in the bucket")]
    Gone,
    #[error("the bucket holds another file under the release's name than the one that was recorded")]
    Replaced,
    #[error("the bucket cannot be read")]
    Failed(#[source] Source),
}

/// A release's tarball from some offset on.
pub type ReleaseBytes = BoxStream<'static, Result<Bytes, RelayError>>;

/// Where releases are read that hosts cannot fetch by themselves.
#[async_trait::async_trait]
pub trait ReleaseRelay: Send + Sync {
    async fn open(&self, app: &AppName, key: &ReleaseKey, offset: u64) -> Result<ReleaseBytes, RelayError>;
}

#[async_trait::async_trait]
impl Registry for Db {
    async fn join(&self, applicant: Applicant, now: Time) -> Result<NodeName, JoinRefused> {
        let Applicant { token, node, name, labels, agent_version, certificate } = applicant;
        let mut joined = NewEvent::new(now, "node_joined", Severity::Info, format!("node {name} joined"));
        joined.node = Some(node);
        let enrolment = Enrolment {
            id: node,
            name,
            labels,
            agent_version,
            token_hash: token,
            certificate: NewCertificate::from(&certificate),
        };
        match self.enrol(&enrolment, now, &[joined]).await {
            Ok(node) => Ok(node.name),
            Err(DbError::Missing { .. }) => Err(JoinRefused::Token),
            Err(DbError::Taken { .. }) => Err(JoinRefused::NameTaken),
            Err(error) => Err(JoinRefused::Failed(error.into())),
        }
    }

    async fn standing(&self, node: NodeId, serial: &str) -> Result<Standing, Source> {
        let certificate = self.certificate(serial).await?;
        Ok(match certificate.filter(|certificate| certificate.node == node) {
            None => Standing::Unknown,
            Some(certificate) if certificate.revoked_at.is_some() => Standing::Revoked,
            Some(_) => Standing::Good,
        })
    }

    async fn renewed(&self, node: NodeId, certificate: &Issued, now: Time) -> Result<(), Source> {
        Ok(self.renew_certificate(node, &certificate.into(), now).await?)
    }

    async fn hello(&self, node: NodeId, hello: &pb::Hello, now: Time) -> Result<(), Source> {
        let said = hello.inventory.clone().unwrap_or_default();
        let inventory = Inventory {
            hostname: short(&said.hostname),
            os: short(&said.os),
            kernel: short(&said.kernel),
            arch: short(&said.arch),
            cpus: said.cpus,
            memory_bytes: said.memory_bytes,
            user: short(&said.user),
            erl: short(&said.erl),
            limits: said.limits.iter().take(8).map(|it| short(it)).collect(),
            limits_fault: sentence(&said.limits_fault),
        };
        let facts = HelloFacts {
            agent_version: short(&hello.agent_version),
            boot_id: short(&hello.boot_id),
            inventory,
        };
        Ok(self.record_hello(node, &facts, now).await?)
    }
}

impl From<&Issued> for NewCertificate {
    fn from(issued: &Issued) -> Self {
        Self { serial: issued.serial.clone(), not_after: issued.not_after }
    }
}

/// Names and versions; a host that sends a book for one is cut.
fn short(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).take(128).collect()
}

fn sentence(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).take(1024).collect()
}
