//! An authority for certificates, and what it makes for nodes and for us.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use node_agent::dist::tls::{client_config, client_config_for_any_host};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        // Of a name of its own, or what it signs would be taken for its own signer.
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Shows a certificate of `shown_by` and trusts this one.
    pub(crate) fn client(&self, shown_by: &Self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let (certificate, key) = shown_by.leaf("agent");
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        client_config(roots, vec![certificate], key).unwrap()
    }

    /// Shows a certificate of this one's and trusts it, whatever host a node's is for.
    pub(crate) fn client_for_any_host(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let (certificate, key) = self.leaf("deployex");
        client_config_for_any_host(roots, vec![certificate], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap()
    }

    /// Arguments for an `erl` that speaks TLS with a certificate for `host`.
    pub(crate) fn arguments(&self, folder: &Path, host: &str, versions: &str) -> [String; 4] {
        let (certificate, key) = self.leaf(host);
        let path = |name| folder.join(name).display().to_string();
        let (ca, leaf, key_file) = (path("ca.pem"), path("node.pem"), path("node.key"));
        fs::write(&ca, pem(self.0.der())).unwrap();
        fs::write(&leaf, pem(&certificate)).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        let common = format!(
            "{{cacertfile, {ca:?}}}, {{certfile, {leaf:?}}}, {{keyfile, {key_file:?}}}, \
             {{versions, {versions}}}, {{verify, verify_peer}}"
        );
        let options = path("inet_tls.conf");
        let text =
            format!("[{{server, [{common}, {{fail_if_no_peer_cert, true}}]}}, {{client, [{common}]}}].\n");
        fs::write(&options, text).unwrap();
        ["-proto_dist".into(), "inet_tls".into(), "-ssl_dist_optfile".into(), options]
    }

    fn leaf(&self, host: &str) -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, host);
        (params.signed_by(&key, &self.0).unwrap().der().clone(), key)
    }
}

fn pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|it| str::from_utf8(it).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
