//! Who this host is to the control plane: certificate, key and the roots it trusts, in a folder of the agent's.
//!
//! The key is made here and never leaves. It stays the same at a renewal, so that no crash between two files can leave a
//! certificate without its key.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::agent::{BACKDATED_SECONDS, NODE_KEY_USAGE, node_of_uri};
use proto::ids::{NodeId, NodeName};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::dial::Address;

const CA: &str = "ca.pem";
const CERTIFICATE: &str = "node.pem";
const KEY: &str = "node.key";
/// Written last: where it is, the others are.
const FACTS: &str = "node.json";
/// Made and removed again.
const PROBE: &str = "probe";

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("this host is not enrolled ({} is not there): run `deployex-agent enrol`", .0.display())]
    NotEnrolled(PathBuf),
    #[error("this host is enrolled already ({} is there): --force gives up that identity", .0.display())]
    Enrolled(PathBuf),
    #[error("cannot read or write {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} cannot be used: {what}; enrol this host anew with --force", path.display())]
    Damaged { path: PathBuf, what: &'static str },
}

/// What the control plane said of hosts at the enrolment. The agent's own settings win.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostPaths {
    pub var_path: Option<PathBuf>,
    pub log_path: Option<PathBuf>,
    pub monitored_app_log_path: Option<PathBuf>,
    pub otp_tls_certificates: Option<PathBuf>,
}

impl From<proto::pb::HostSettings> for HostPaths {
    fn from(said: proto::pb::HostSettings) -> Self {
        let path = |text: String| (!text.is_empty()).then(|| PathBuf::from(text));
        Self {
            var_path: path(said.var_path),
            log_path: path(said.log_path),
            monitored_app_log_path: path(said.monitored_app_log_path),
            otp_tls_certificates: path(said.otp_tls_certificates),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Facts {
    node_id: NodeId,
    node_name: NodeName,
    control_plane: String,
    #[serde(default)]
    host: HostPaths,
}

/// A host's identity, complete and checked.
pub struct Identity {
    pub node: NodeId,
    pub name: NodeName,
    pub control_plane: Address,
    pub host: HostPaths,
    pub(super) folder: PathBuf,
    pub(super) ca_pem: String,
    pub(super) certificate_pem: String,
    pub(super) key_pem: String,
    pub(super) validity: Validity,
    pub(super) tls: Arc<ClientConfig>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({} {} at {})", self.name, self.node, self.control_plane)
    }
}

/// When a certificate counts, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) issued: u64,
    pub(crate) ends: u64,
}

impl Validity {
    /// What the control plane signs is valid from somewhat before it was.
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Self {
        let millis = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000);
        let validity = certificate.validity();
        Self {
            issued: millis(validity.not_before.timestamp() + BACKDATED_SECONDS),
            ends: millis(validity.not_after.timestamp()),
        }
    }

    /// At two thirds of the life.
    pub(crate) fn renew_at(self) -> u64 {
        self.issued.saturating_add(self.ends.saturating_sub(self.issued) / 3 * 2)
    }
}

/// The parts of an identity as they come from an enrolment.
pub(super) struct Parts {
    pub(super) node: NodeId,
    pub(super) name: NodeName,
    pub(super) control_plane: Address,
    pub(super) host: HostPaths,
    pub(super) ca_pem: String,
    pub(super) certificate_pem: String,
    pub(super) key_pem: String,
}

impl Identity {
    /// From `{var}/agent/identity`.
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        let path = folder.join(FACTS);
        let facts = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(IdentityError::NotEnrolled(path));
            }
            Err(source) => return Err(IdentityError::File { path, source }),
            Ok(json) => serde_json::from_slice::<Facts>(&json),
        };
        let damaged = |what| IdentityError::Damaged { path: path.clone(), what };
        let facts = facts.map_err(|_| damaged("it is no JSON of ours"))?;
        let control_plane = facts.control_plane.parse().map_err(|_| damaged("it names no control plane"))?;
        let parts = Parts {
            node: facts.node_id,
            name: facts.node_name,
            control_plane,
            host: facts.host,
            ca_pem: read(folder, CA)?,
            certificate_pem: read(folder, CERTIFICATE)?,
            key_pem: read(folder, KEY)?,
        };
        Self::new(folder, parts)
    }

    pub(super) fn new(folder: &Path, parts: Parts) -> Result<Self, IdentityError> {
        let Parts { node, name, control_plane, host, ca_pem, certificate_pem, key_pem } = parts;
        let damaged = |file: &str, what| IdentityError::Damaged { path: folder.join(file), what };
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| damaged(CERTIFICATE, "it is no certificate"))?;
        let validity = check(&certificate, node).map_err(|what| damaged(CERTIFICATE, what))?;
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            let root = root.map_err(|_| damaged(CA, "it is no certificate"))?;
            roots.add(root).map_err(|_| damaged(CA, "it is no root certificate"))?;
        }
        let key =
            PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| damaged(KEY, "it is no key"))?;
        let mut tls = client_config()
            .map_err(|_| damaged(CA, "TLS cannot be set up"))?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .map_err(|_| damaged(KEY, "it does not belong to the certificate"))?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        tls.resumption = rustls::client::Resumption::disabled();
        let folder = folder.to_owned();
        let tls = Arc::new(tls);
        Ok(Self { node, name, control_plane, host, folder, ca_pem, certificate_pem, key_pem, validity, tls })
    }

    /// The same node with another certificate, and the roots to trust from now on.
    pub(super) fn with_certificate(
        &self,
        certificate_pem: String,
        ca_pem: String,
    ) -> Result<Self, IdentityError> {
        let parts = Parts {
            node: self.node,
            name: self.name.clone(),
            control_plane: self.control_plane.clone(),
            host: self.host.clone(),
            ca_pem,
            certificate_pem,
            key_pem: self.key_pem.clone(),
        };
        Self::new(&self.folder, parts)
    }

    /// Durable when it returns; whatever was there before is replaced file by file.
    pub(super) fn store(&self) -> Result<(), IdentityError> {
        let failed = |source| IdentityError::File { path: self.folder.clone(), source };
        make(&self.folder)?;
        let facts = Facts {
            node_id: self.node,
            node_name: self.name.clone(),
            control_plane: self.control_plane.to_string(),
            host: self.host.clone(),
        };
        let facts = serde_json::to_string_pretty(&facts).map_err(|error| failed(error.into()))?;
        write(&self.folder, KEY, &self.key_pem)?;
        // The roots before the certificate: a new certificate may need a new root, never the other way round.
        write(&self.folder, CA, &self.ca_pem)?;
        write(&self.folder, CERTIFICATE, &self.certificate_pem)?;
        write(&self.folder, FACTS, &facts)
    }
}

fn make(folder: &Path) -> Result<(), IdentityError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| IdentityError::File { path: folder.to_owned(), source })
}

/// That an identity can be kept there is found out before a token is spent on one. A folder made for that goes again:
/// whoever is refused finds nothing left behind.
pub(super) fn try_folder(folder: &Path) -> Result<(), IdentityError> {
    let is_new = !folder.exists();
    make(folder)?;
    write(folder, PROBE, "")?;
    let path = folder.join(PROBE);
    fs::remove_file(&path).map_err(|source| IdentityError::File { path, source })?;
    if !is_new {
        return Ok(());
    }
    fs::remove_dir(folder).map_err(|source| IdentityError::File { path: folder.to_owned(), source })
}

/// `Err` where a new identity would replace one.
pub(super) fn refuse_existing(folder: &Path) -> Result<(), IdentityError> {
    let path = folder.join(FACTS);
    if path.exists() { Err(IdentityError::Enrolled(path)) } else { Ok(()) }
}

/// TLS 1.3 on ring, before it is said whom to trust.
pub(super) fn client_config()
-> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
}

fn check(certificate: &CertificateDer<'_>, node: NodeId) -> Result<Validity, &'static str> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| "it is no certificate")?;
    let usages = parsed.extended_key_usage().ok().flatten();
    if !usages.is_some_and(|it| it.value.other.iter().any(|oid| oid.as_bytes() == NODE_KEY_USAGE)) {
        return Err("it is not one of a node");
    }
    let names = parsed.subject_alternative_name().ok().flatten();
    let named = names.and_then(|names| {
        names.value.general_names.iter().find_map(|name| match name {
            GeneralName::URI(uri) => node_of_uri(uri),
            _ => None,
        })
    });
    if named != Some(node) {
        return Err("it is of another node");
    }
    Ok(Validity::of(&parsed))
}

fn read(folder: &Path, name: &str) -> Result<String, IdentityError> {
    let path = folder.join(name);
    fs::read_to_string(&path).map_err(|source| IdentityError::File { path, source })
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), IdentityError> {
    let path = folder.join(name);
    let unfinished = folder.join(format!(".{name}.new"));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&unfinished, &path))
        .and_then(|()| File::open(folder))
        .and_then(|folder| folder.sync_all());
    written.map_err(|source| IdentityError::File { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
        assert_eq!(Validity { issued: 1_000, ends: 4_000 }.renew_at(), 3_000);
        assert_eq!(Validity { issued: 4_000, ends: 1_000 }.renew_at(), 4_000);
    }

    #[test]
    fn a_host_without_an_identity_is_told_to_enrol() {
        let folder = tempfile::tempdir().unwrap();
        let error = Identity::load(folder.path()).unwrap_err();
        assert!(error.to_string().contains("deployex-agent enrol"), "{error}");
        assert!(refuse_existing(folder.path()).is_ok());
        write(folder.path(), FACTS, "{}").unwrap();
        assert!(matches!(refuse_existing(folder.path()), Err(IdentityError::Enrolled(_))));
        assert!(matches!(Identity::load(folder.path()), Err(IdentityError::Damaged { .. })));
    }
}
