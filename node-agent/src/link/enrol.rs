//! First contact: a join token becomes this host's identity.
//!
//! The control plane is known by the fingerprint in the token: nothing is said to a server whose chain does not end in that
//! very root, so a token is never given to somebody in between.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proto::ids::{Digest, NodeName};
use proto::join_token::JoinToken;
use proto::pb;
use proto::pb::agent_client::AgentClient;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::Digest as _;
use tokio::time::timeout;
use tonic::Code;

use super::dial::{Address, LinkError, dial};
use super::identity::{Identity, IdentityError, Parts, client_config, refuse_existing, try_folder};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// What `deployex-agent enrol` was told.
#[derive(Debug)]
pub struct Enrolment {
    pub control_plane: Address,
    pub token: JoinToken,
    pub name: NodeName,
    pub labels: BTreeMap<String, String>,
    /// `{var}/agent/identity`.
    pub folder: PathBuf,
    /// Replace the identity that is there.
    pub force: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(
        "{0} is not the control plane that made this token: its root certificate is another one; check the address, or \
         make a token there"
    )]
    Foreign(Address),
    #[error("cannot enrol")]
    Link(#[source] LinkError),
    #[error("{0}")]
    Refused(String),
    #[error("cannot make a key and a request for a certificate")]
    Key(#[source] rcgen::Error),
    #[error("the control plane's answer cannot be used: {0}")]
    Answer(&'static str),
}

/// Makes a key, has it certified, stores all of it.
pub async fn enrol(wish: Enrolment) -> Result<Identity, EnrolError> {
    if !wish.force {
        refuse_existing(&wish.folder)?;
    }
    try_folder(&wish.folder)?;
    let (key_pem, csr_pem) = key_and_request().map_err(EnrolError::Key)?;
    let tls = pinned(wish.token.ca).map_err(|error| {
        EnrolError::Link(LinkError::Tls {
            address: wish.control_plane.clone(),
            source: std::io::Error::other(error),
        })
    })?;
    let wire = dial(&wish.control_plane, Arc::new(tls)).await.map_err(|error| match error {
        LinkError::Foreign { address } => EnrolError::Foreign(address),
        other => EnrolError::Link(other),
    })?;
    let request = pb::EnrolRequest {
        token: wish.token.secret().to_owned(),
        csr_pem,
        node_name: wish.name.to_string(),
        labels: wish.labels.into_iter().collect(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let answer = timeout(ANSWER_TIMEOUT, AgentClient::new(wire.channel.clone()).enrol(request))
        .await
        .map_err(|_| EnrolError::Link(LinkError::TimedOut { address: wish.control_plane.clone() }))?
        .map_err(|status| match status.code() {
            Code::Unauthenticated | Code::AlreadyExists | Code::InvalidArgument | Code::PermissionDenied => {
                EnrolError::Refused(status.message().to_owned())
            }
            _ => EnrolError::Link(wire.explain(status)),
        })?
        .into_inner();
    let parts = Parts {
        node: answer.node_id.parse().map_err(|_| EnrolError::Answer("it names no node"))?,
        name: answer.node_name.parse().map_err(|_| EnrolError::Answer("the node has no name"))?,
        control_plane: wish.control_plane,
        host: answer.host.unwrap_or_default().into(),
        ca_pem: answer.ca_pem,
        certificate_pem: answer.certificate_pem,
        key_pem,
    };
    let identity = Identity::new(&wish.folder, parts)?;
    identity.store()?;
    Ok(identity)
}

fn key_and_request() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let request = request(&key)?;
    Ok((key.serialize_pem(), request))
}

/// Only the key in it counts: the control plane says who we are.
pub(crate) fn request(key: &KeyPair) -> Result<String, rcgen::Error> {
    CertificateParams::default().serialize_request(key)?.pem()
}

fn pinned(root: Digest) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = client_config()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedRoot { root, provider }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Takes the root out of the server's chain by its fingerprint, then checks the chain against it as always.
#[derive(Debug)]
struct PinnedRoot {
    root: Digest,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedRoot {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let foreign = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let is_root = |it: &&CertificateDer<'_>| self.root.0 == <[u8; 32]>::from(sha2::Sha256::digest(it));
        let root = chain.iter().find(is_root).ok_or_else(foreign)?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned()).map_err(|_| foreign())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|_| foreign())?
            .verify_server_cert(server, &[], name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
