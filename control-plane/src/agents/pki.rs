//! The agents' certificate authority: what it signs, and how one reads a node's identity from a certificate.
//!
//! It signs two things only: nodes' certificates (client authentication and our own key usage) and this control plane's server
//! certificate. Applications have authorities of their own, which sign for TLS between Erlang nodes: no root is trusted where
//! another one is. Where a root is kept is the caller's business.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::agent::{BACKDATED_SECONDS, NODE_KEY_USAGE, node_of_uri, node_uri};
use proto::ids::{AppName, Digest, NodeId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CustomExtension, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::clock::Time;

const ROOT_LIFE: Duration = Duration::from_hours(10 * 365 * 24);

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("the certificate request cannot be read, or is not signed by its own key")]
    Request(#[source] rcgen::Error),
    #[error("the authority cannot be used as it is stored")]
    Root(#[source] rcgen::Error),
    #[error("the root certificate cannot be read")]
    RootCertificate,
    #[error("{0:?} cannot stand in a certificate: a host name or an IP address is needed")]
    Name(String),
    #[error("cannot sign a certificate")]
    Sign(#[source] rcgen::Error),
    #[error("cannot use the new server key")]
    ServerKey(#[source] rustls::Error),
    #[error("the system has no randomness to give")]
    Random,
}

/// Why a certificate names no node of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotANode {
    #[error("the certificate cannot be read")]
    Unreadable,
    #[error("the certificate was not issued for nodes")]
    KeyUsage,
    #[error("the certificate names no node")]
    Name,
}

/// A root as it is stored: the key is for the vault.
pub struct Root {
    pub certificate_pem: String,
    pub key_pem: Zeroizing<String>,
}

impl Root {
    pub fn generate(now: Time) -> Result<Self, PkiError> {
        // The number tells two roots apart while one replaces the other.
        Self::called(common_name(&format!("DeployEx agents {}", now.0)), now)
    }

    /// For the Erlang nodes of an application.
    pub fn of_application(app: &AppName, now: Time) -> Result<Self, PkiError> {
        // As long as a common name may be, so the number stands elsewhere.
        let mut subject = common_name(app.as_str());
        subject.push(DnType::OrganizationName, "DeployEx Erlang nodes");
        subject.push(DnType::OrganizationalUnitName, now.0.to_string());
        Self::called(subject, now)
    }

    fn called(subject: DistinguishedName, now: Time) -> Result<Self, PkiError> {
        let key = KeyPair::generate().map_err(PkiError::Sign)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid(&mut params, now, ROOT_LIFE);
        params.serial_number = Some(serial()?);
        let certificate = params.self_signed(&key).map_err(PkiError::Sign)?;
        Ok(Self { certificate_pem: certificate.pem(), key_pem: Zeroizing::new(key.serialize_pem()) })
    }
}

/// A certificate that was just signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    pub pem: String,
    pub serial: String,
    pub not_after: Time,
}

/// The root that signs, and every root that is trusted.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    trusted: Vec<CertificateDer<'static>>,
    trusted_pem: String,
}

impl Authority {
    /// `also_trusted`: the roots before and after this one while they are exchanged, as PEM.
    pub fn new(root: &Root, also_trusted: &[String]) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(&root.key_pem).map_err(PkiError::Root)?;
        let issuer = Issuer::from_ca_cert_pem(&root.certificate_pem, key).map_err(PkiError::Root)?;
        let read = |pem: &String| {
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| PkiError::RootCertificate)
        };
        let certificate = read(&root.certificate_pem)?;
        let mut trusted = vec![certificate.clone()];
        let mut trusted_pem = root.certificate_pem.clone();
        for pem in also_trusted {
            trusted.push(read(pem)?);
            trusted_pem.push_str(pem);
        }
        Ok(Self { issuer, certificate, trusted, trusted_pem })
    }

    /// What a join token carries: the digest of the signing root's certificate.
    pub fn fingerprint(&self) -> Digest {
        Digest(Sha256::digest(&self.certificate).into())
    }

    /// Every trusted root, for the agents.
    pub fn roots_pem(&self) -> &str {
        &self.trusted_pem
    }

    pub fn roots(&self) -> Result<RootCertStore, PkiError> {
        let mut store = RootCertStore::empty();
        for root in &self.trusted {
            store.add(root.clone()).map_err(|_| PkiError::RootCertificate)?;
        }
        Ok(store)
    }

    /// Of the request only its public key is used: what it says of names and uses is the requester's claim.
    pub fn sign_node(
        &self,
        csr_pem: &str,
        node: NodeId,
        now: Time,
        life: Duration,
    ) -> Result<Issued, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&node.to_string());
        let uri = node_uri(node);
        params.subject_alt_names =
            vec![SanType::URI(uri.as_str().try_into().map_err(|_| PkiError::Name(uri.clone()))?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.custom_extensions = vec![node_key_usage()];
        self.sign(csr_pem, params, now, life)
    }

    /// For an Erlang node on `host`, or for who only dials such nodes. As above, only the request's public key is used.
    pub fn sign_peer(
        &self,
        csr_pem: &str,
        host: &str,
        only_dials: bool,
        now: Time,
        life: Duration,
    ) -> Result<Issued, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name =
            common_name(if only_dials { "DeployEx agent" } else { "DeployEx replica" });
        params.subject_alt_names = vec![san(host)?];
        if host.parse::<IpAddr>().is_ok() {
            // Erlang looks for an address among the names, and only there (tried on OTP 25); others look where it belongs.
            let name = host.try_into().map_err(|_| PkiError::Name(host.to_owned()))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // A node dials as well as it is dialled.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !only_dials {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        self.sign(csr_pem, params, now, life)
    }

    fn sign(
        &self,
        csr_pem: &str,
        mut params: CertificateParams,
        now: Time,
        life: Duration,
    ) -> Result<Issued, PkiError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(PkiError::Request)?;
        let not_after = valid(&mut params, now, life);
        let serial = serial()?;
        params.serial_number = Some(serial.clone());
        let certificate = params.signed_by(&request.public_key, &self.issuer).map_err(PkiError::Sign)?;
        Ok(Issued { pem: certificate.pem(), serial: hex(&serial.to_bytes()), not_after })
    }

    /// The control plane's own certificate with a new key, the root behind it in the chain, so that an agent that knows no
    /// more than the root's fingerprint can check it.
    pub fn server(&self, names: &[String], now: Time, life: Duration) -> Result<CertifiedKey, PkiError> {
        let key = KeyPair::generate().map_err(PkiError::Sign)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("DeployEx control plane");
        params.subject_alt_names = names.iter().map(|name| san(name)).collect::<Result<_, _>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        valid(&mut params, now, life);
        params.serial_number = Some(serial()?);
        let certificate = params.signed_by(&key, &self.issuer).map_err(PkiError::Sign)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(PkiError::ServerKey)?;
        Ok(CertifiedKey::new(vec![certificate.der().clone(), self.certificate.clone()], Arc::clone(&key)))
    }
}

/// Who a checked certificate speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub node: NodeId,
    pub serial: String,
    pub not_after: Time,
}

impl Identity {
    /// Reads, checks no signature: only for certificates that a handshake has verified.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, NotANode> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| NotANode::Unreadable)?;
        let usages = parsed.extended_key_usage().map_err(|_| NotANode::Unreadable)?;
        if !usages.is_some_and(|usages| usages.value.other.iter().any(|oid| oid.as_bytes() == NODE_KEY_USAGE))
        {
            return Err(NotANode::KeyUsage);
        }
        let names = parsed.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        });
        let mut uris = names.flatten().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(node_of_uri(uri)),
            _ => None,
        });
        // One name: a certificate that speaks for two nodes is none of ours.
        let (Some(Some(node)), None) = (uris.next(), uris.next()) else { return Err(NotANode::Name) };
        let not_after = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self { node, serial: hex(parsed.raw_serial()), not_after: Time(not_after.saturating_mul(1_000)) })
    }
}

/// Client authentication and ours, as DER: the arc of ours is longer than what rcgen can number.
fn node_key_usage() -> CustomExtension {
    const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
    let mut oids = Vec::new();
    for oid in [CLIENT_AUTH, NODE_KEY_USAGE] {
        oids.push(0x06);
        oids.push(short_length(oid));
        oids.extend_from_slice(oid);
    }
    let mut sequence = vec![0x30, short_length(&oids)];
    sequence.append(&mut oids);
    CustomExtension::from_oid_content(&[2, 5, 29, 37], sequence)
}

/// DER's length of what is shorter than 128 bytes, as all here is.
fn short_length(bytes: &[u8]) -> u8 {
    u8::try_from(bytes.len()).unwrap_or(0x7f)
}

fn valid(params: &mut CertificateParams, now: Time, life: Duration) -> Time {
    let seconds = i64::try_from(now.0 / 1_000).unwrap_or(i64::MAX);
    let end = seconds.saturating_add(i64::try_from(life.as_secs()).unwrap_or(i64::MAX));
    let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    params.not_before = at(seconds - BACKDATED_SECONDS);
    params.not_after = at(end);
    Time(u64::try_from(end).unwrap_or(0).saturating_mul(1_000))
}

fn san(name: &str) -> Result<SanType, PkiError> {
    match name.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => name.try_into().map(SanType::DnsName).map_err(|_| PkiError::Name(name.to_owned())),
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// Random, positive and always 16 bytes long, so that its hex form is the same wherever it is read.
fn serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| PkiError::Random)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_800_000_000_000);
    const DAY: Duration = Duration::from_hours(24);

    fn authority() -> Authority {
        Authority::new(&Root::generate(NOW).unwrap(), &[]).unwrap()
    }

    fn node() -> NodeId {
        NodeId(uuid::Uuid::now_v7())
    }

    fn request(params: CertificateParams) -> String {
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn a_nodes_certificate_says_which_node_it_is() {
        let node = node();
        let issued =
            authority().sign_node(&request(CertificateParams::default()), node, NOW, 30 * DAY).unwrap();
        let identity = Identity::read(&der(&issued.pem)).unwrap();
        assert_eq!(
            identity,
            Identity { node, serial: issued.serial, not_after: NOW.plus(30 * 86_400 * 1000) }
        );
    }

    #[test]
    fn a_replica_s_certificate_is_for_its_host_of_its_application_s_root_and_no_node_s() {
        let root = Root::of_application(&"a".repeat(64).parse().unwrap(), NOW).unwrap();
        let application = Authority::new(&root, &[]).unwrap();
        let roots = Arc::new(application.roots().unwrap());
        let sign = |host: &str, only_dials| {
            let csr = request(CertificateParams::default());
            der(&application.sign_peer(&csr, host, only_dials, NOW, DAY).unwrap().pem)
        };
        let verified = |authority: Arc<RootCertStore>, leaf: &CertificateDer<'_>, host: &'static str| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(authority, provider);
            let now = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_millis(NOW.0));
            let name = rustls::pki_types::ServerName::try_from(host).unwrap();
            let verifier = verifier.build().unwrap();
            rustls::client::danger::ServerCertVerifier::verify_server_cert(
                &*verifier,
                leaf,
                &[],
                &name,
                &[],
                now,
            )
        };
        for host in ["web-1", "web-1.example.com", "10.0.0.7"] {
            let leaf = sign(host, false);
            verified(roots.clone(), &leaf, host).unwrap();
            assert!(verified(roots.clone(), &leaf, "web-2").is_err());
            assert_eq!(Identity::read(&leaf), Err(NotANode::KeyUsage));
            let agents = Arc::new(authority().roots().unwrap());
            assert!(verified(agents, &leaf, host).is_err(), "another root");
        }
        // Nobody is to take the agent for a node.
        assert!(verified(roots, &sign("web-1", true), "web-1").is_err());
        let error = application.sign_peer(&request(CertificateParams::default()), "wéb", false, NOW, DAY);
        assert!(matches!(error, Err(PkiError::Name(_))), "{error:?}");
    }

    #[test]
    fn what_a_request_claims_is_not_signed() {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names.push(SanType::URI(node_uri(node()).as_str().try_into().unwrap()));
        let victim = node();
        let issued = authority().sign_node(&request(params), victim, NOW, DAY).unwrap();
        let der = der(&issued.pem);
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        assert!(!parsed.is_ca());
        assert!(!parsed.extended_key_usage().unwrap().unwrap().value.server_auth);
        assert_eq!(Identity::read(&der).unwrap().node, victim);
    }

    #[test]
    fn a_renewal_with_the_same_key_has_a_serial_of_its_own() {
        let (authority, csr) = (authority(), request(CertificateParams::default()));
        let node = node();
        let serials = [(); 2].map(|()| authority.sign_node(&csr, node, NOW, DAY).unwrap().serial);
        assert_ne!(serials[0], serials[1]);
    }

    #[test]
    fn a_server_certificate_is_no_identity() {
        let server = authority().server(&["localhost".to_owned(), "127.0.0.1".to_owned()], NOW, DAY).unwrap();
        assert_eq!(Identity::read(&server.cert[0]), Err(NotANode::KeyUsage));
        assert_eq!(server.cert.len(), 2);
    }

    #[test]
    fn a_root_that_was_stored_signs_as_before() {
        let root = Root::generate(NOW).unwrap();
        let (one, two) = (Authority::new(&root, &[]).unwrap(), Authority::new(&root, &[]).unwrap());
        assert_eq!(one.fingerprint(), two.fingerprint());
        let older = Root::generate(NOW).unwrap();
        let both = Authority::new(&root, std::slice::from_ref(&older.certificate_pem)).unwrap();
        assert_eq!(both.roots().unwrap().len(), 2);
        assert_eq!(both.roots_pem().matches("BEGIN CERTIFICATE").count(), 2);
    }

    #[test]
    fn an_impossible_name_is_refused_by_name() {
        let error = authority().server(&["ex ample\u{e4}".to_owned()], NOW, DAY).unwrap_err();
        assert!(error.to_string().contains("ex ample"), "{error}");
    }
}
