//! What we show of ourselves and demand of a node where the protocol goes over TLS (`-proto_dist inet_tls`).

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

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
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    Ok(Arc::new(config))
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
