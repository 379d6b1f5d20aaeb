//! What we show of ourselves and demand of a node where the protocol goes over TLS (`-proto_dist inet_tls`).

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::term::Atom;

/// TLS 1.2 and 1.3, which are what OTP 25 to 28 speak, each with mutual certificates. The node's is demanded and must be signed
/// by one of `roots` for the host in its name.
///
/// # Errors
/// Where the key is none of the chain's.
pub fn client_config(
    roots: RootCertStore,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    Ok(Arc::new(config))
}

/// As [`client_config`], where nodes share one certificate that is for no host in particular: that it is signed by one of
/// `roots` is verified, its name is not.
///
/// # Errors
/// Where the key is none of the chain's, or there is no root.
pub fn client_config_for_any_host(
    roots: RootCertStore,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous() // as said above
        .with_custom_certificate_verifier(Arc::new(AnyHost(chains)))
        .with_client_auth_cert(chain, key)?;
    Ok(Arc::new(config))
}

/// What is verified of another's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// That it is of the authority.
    Chain,
    /// And that it is for the host that was dialled. Of who dials it is not: behind which addresses a host's name is, the two
    /// ends need not agree on.
    ChainAndName,
}

/// The options of a node (`-ssl_dist_optfile`): in the words of Erlang's `ssl`, the same as [`client_config`] or
/// [`client_config_for_any_host`] for who dials, and a certificate demanded of who is dialled by.
pub fn option_file(authority: &Path, certificate: &Path, key: &Path, verified: Verified) -> String {
    let quoted = |path: &Path| {
        let path = path.display().to_string();
        format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\""))
    };
    let common = format!(
        "{{cacertfile, {}}}, {{certfile, {}}}, {{keyfile, {}}}, {{verify, verify_peer}}",
        quoted(authority),
        quoted(certificate),
        quoted(key)
    );
    // Erlang looks for the host among the names that a certificate is for, whatever else is said, and asks a function of two
    // arguments whether a name is it: what it passes is marked by what it is, so that the two always differ.
    let name = match verified {
        Verified::Chain => ", {customize_hostname_check, [{match_fun, fun erlang:'=/='/2}]}",
        Verified::ChainAndName => "",
    };
    format!("[{{server, [{common}, {{fail_if_no_peer_cert, true}}]}},\n {{client, [{common}{name}]}}].\n")
}

/// Verifies chains and no names.
#[derive(Debug)]
struct AnyHost(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.0.verify_server_cert(leaf, intermediates, name, ocsp, now) {
            // The name is looked at last.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// What a node's certificate must be for: the host part of its name. `None` where that is no name of a host.
pub(super) fn host_of(node: &Atom) -> Option<ServerName<'static>> {
    let (_, host) = node.as_str().split_once('@')?;
    ServerName::try_from(host.to_owned()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_for_the_host_in_a_node_s_name() {
        let host = |name| host_of(&Atom::of(name)).map(|it| it.to_str().into_owned());
        assert_eq!(host("shop-1@vm"), Some("vm".into()));
        assert_eq!(host("shop-1@10.0.0.1"), Some("10.0.0.1".into()));
        for none in ["shop-1", "shop-1@", "shop-1@a b"] {
            assert_eq!(host(none), None);
        }
    }
}
