//! How the agents' listener speaks TLS: which client certificates a handshake lets through, and which certificate it shows.
//!
//! A handshake lets through no certificate (to enrol) and one that expired less than ninety days ago (to renew); `gate` says
//! what each of them may call. Revocation is not the handshake's business: a refused call can say why, a refused handshake not.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use super::pki::{Identity, NotANode};

/// How long after its end a certificate may still be renewed: a host that was off for a season comes back by itself.
pub(super) const RENEWABLE_FOR: Duration = Duration::from_hours(90 * 24);

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the agents' roots cannot be used to check certificates")]
    Roots(#[source] VerifierBuilderError),
    #[error("the agents' listener cannot speak TLS")]
    Config(#[source] Error),
}

/// `shown` may be exchanged while the listener runs.
pub(super) fn server_config(
    roots: RootCertStore,
    shown: Arc<ShownCertificate>,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = NodeVerifier::new(roots, Arc::clone(&provider))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Config)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Without resumption every connection shows its certificate anew, and a renewed one counts at once.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The server's certificate in force.
#[derive(Debug)]
pub(super) struct ShownCertificate(RwLock<Arc<CertifiedKey>>);

impl ShownCertificate {
    pub(super) fn new(certificate: CertifiedKey) -> Self {
        Self(RwLock::new(Arc::new(certificate)))
    }

    pub(super) fn exchange(&self, certificate: CertifiedKey) {
        let mut shown = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        *shown = Arc::new(certificate);
    }
}

impl ResolvesServerCert for ShownCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)))
    }
}

/// webpki's verifier, then ours: the key usage and name of a node.
#[derive(Debug)]
struct NodeVerifier {
    chain: Arc<dyn ClientCertVerifier>,
}

impl NodeVerifier {
    fn new(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()
            .map_err(TlsError::Roots)?;
        Ok(Self { chain })
    }
}

impl ClientCertVerifier for NodeVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let identity = Identity::read(certificate).map_err(|why| {
            Error::InvalidCertificate(match why {
                NotANode::Unreadable => CertificateError::BadEncoding,
                NotANode::KeyUsage => CertificateError::InvalidPurpose,
                NotANode::Name => CertificateError::ApplicationVerificationFailure,
            })
        })?;
        // An expired certificate is checked as of its last moment: everything else about it must still be right.
        let end = identity.not_after.0 / 1_000;
        let at = match now.as_secs() {
            late if late > end && late - end <= RENEWABLE_FOR.as_secs() => {
                UnixTime::since_unix_epoch(Duration::from_secs(end))
            }
            _ => now,
        };
        self.chain.verify_client_cert(certificate, intermediates, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::agents::pki::{Authority, Root};
    use crate::clock::Time;

    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 86_400;

    struct Fixture {
        authority: Authority,
        verifier: NodeVerifier,
    }

    fn fixture() -> Fixture {
        let authority = Authority::new(&Root::generate(Time(NOW * 1000)).unwrap(), &[]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = NodeVerifier::new(authority.roots().unwrap(), provider).unwrap();
        Fixture { authority, verifier }
    }

    fn node_certificate(authority: &Authority) -> CertificateDer<'static> {
        let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
        let node = proto::ids::NodeId(uuid::Uuid::now_v7());
        let life = Duration::from_secs(30 * DAY);
        let issued = authority.sign_node(&csr.pem().unwrap(), node, Time(NOW * 1000), life).unwrap();
        CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap()
    }

    impl Fixture {
        fn accepts(&self, certificate: &CertificateDer<'_>, at: u64) -> bool {
            let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
            self.verifier.verify_client_cert(certificate, &[], at).is_ok()
        }
    }

    #[test]
    fn a_node_is_let_through_until_ninety_days_after_its_certificate_ended() {
        let fixture = fixture();
        let certificate = node_certificate(&fixture.authority);
        assert!(!fixture.accepts(&certificate, NOW - 2 * 3600));
        assert!(fixture.accepts(&certificate, NOW - 1800));
        assert!(fixture.accepts(&certificate, NOW + 31 * DAY));
        assert!(fixture.accepts(&certificate, NOW + 120 * DAY));
        assert!(!fixture.accepts(&certificate, NOW + 120 * DAY + 1));
    }

    #[test]
    fn a_foreign_authoritys_node_is_not_let_through_expired_or_not() {
        let (fixture, foreign) = (fixture(), fixture());
        let certificate = node_certificate(&foreign.authority);
        assert!(!fixture.accepts(&certificate, NOW));
        assert!(!fixture.accepts(&certificate, NOW + 31 * DAY));
    }

    #[test]
    fn a_certificate_of_our_authority_that_is_no_nodes_is_not_let_through() {
        let fixture = fixture();
        let life = Duration::from_secs(DAY);
        let server = fixture.authority.server(&["localhost".to_owned()], Time(NOW * 1000), life).unwrap();
        assert!(!fixture.accepts(&server.cert[0], NOW));
    }
}
