//! TLS between Erlang nodes, with certificates from a folder: what each replica is given of it, and what the agent shows and
//! trusts itself.
//!
//! The folder is either the host's (`otp_tls_certificates`), with one certificate for all, which is for no host in particular:
//! that it is signed by the folder's authority is verified on both sides, and its name on neither. Every start takes what is in it
//! then, so one that was renewed is used from a restart on. Or it is the agent's own, as `managed` keeps it.

pub(super) mod managed;

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::pb;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use self::managed::{Holder, Kept};
use super::accounts::Account;
use super::paths::Paths;
use super::{Shared, SlotId};
use crate::dist::link::Credentials;
use crate::dist::tls::{Verified, client_config, client_config_for_any_host, option_file};

const CA: &str = "ca.crt";
const CERTIFICATE: &str = "deployex.crt";
const KEY: &str = "deployex.key";

/// No such file is larger, in bytes: a chain of some certificates.
const LARGEST: u64 = 256 * 1024;

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FolderError {
    #[error("{}, for TLS between Erlang nodes, cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}, for TLS between Erlang nodes, has more than {LARGEST} bytes, which no certificate has", path.display())]
    TooLarge { path: PathBuf },
    #[error("{}, for TLS between Erlang nodes, holds no {what} as PEM", path.display())]
    Nothing { path: PathBuf, what: &'static str },
    #[error("{}, for TLS between Erlang nodes, is not the key of {CERTIFICATE} beside it, or none that TLS can use", path.display())]
    NotItsKey { path: PathBuf, source: rustls::Error },
    #[error("{}, for TLS between Erlang nodes, is none that can be trusted", path.display())]
    NoAuthority { path: PathBuf, source: rustls::Error },
    #[error("cannot write {} for the replica", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
}

/// What is in the folder, found to be right.
pub(super) struct Certificates {
    /// With their names: authority, certificate, key.
    files: [(&'static str, Vec<u8>); 3],
    client: Arc<ClientConfig>,
    verified: Verified,
}

impl Certificates {
    /// # Errors
    /// Where a file is missing or is not what it should be; the error names it.
    pub(super) fn read(folder: &Path, verified: Verified) -> Result<Self, FolderError> {
        let files = [read(folder, CA)?, read(folder, CERTIFICATE)?, read(folder, KEY)?];
        let [ca, chain_pem, key_pem] = &files;
        let mut roots = RootCertStore::empty();
        for authority in certificates(folder, CA, ca)? {
            let path = folder.join(CA);
            roots.add(authority).map_err(|source| FolderError::NoAuthority { path, source })?;
        }
        let chain = certificates(folder, CERTIFICATE, chain_pem)?;
        let path = folder.join(KEY);
        let key = PrivateKeyDer::from_pem_slice(key_pem)
            .map_err(|_| FolderError::Nothing { path: path.clone(), what: "private key" })?;
        let client = match verified {
            Verified::Chain => client_config_for_any_host(roots, chain, key),
            Verified::ChainAndName => client_config(roots, chain, key),
        };
        let client = client.map_err(|source| FolderError::NotItsKey { path, source })?;
        let [ca, chain, key] = files;
        Ok(Self { files: [(CA, ca), (CERTIFICATE, chain), (KEY, key)], client, verified })
    }

    /// What the agent shows and trusts where it talks to such a node.
    pub(super) fn client(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// Copies them into the folder of `options`, 0700 and of the account alone, with `options` beside them. The host's key need
    /// not be readable by whom a replica runs as. What runs reads them at each connection: each is replaced whole.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub(super) fn lay_out(&self, options: &Path, account: Option<&Account>) -> Result<(), FolderError> {
        self.lay_out_for(options, account.map(|it| (it.ids.uid, it.ids.gid)))
    }

    /// `ids`: user and group; `None`: who we are.
    fn lay_out_for(&self, options: &Path, ids: Option<(u32, u32)>) -> Result<(), FolderError> {
        let unwritable = |path: &Path| {
            let path = path.to_owned();
            move |source| FolderError::Unwritable { path, source }
        };
        let folder = options.parent().unwrap_or(options);
        own_folder(folder, ids).map_err(unwritable(folder))?;
        for (name, bytes) in &self.files {
            let path = folder.join(name);
            write(&path, bytes, ids).map_err(unwritable(&path))?;
        }
        let [ca, certificate, key] = [CA, CERTIFICATE, KEY].map(|name| folder.join(name));
        let said = option_file(&ca, &certificate, &key, self.verified);
        write(options, said.as_bytes(), ids).map_err(unwritable(options))
    }
}

/// With which certificates the Erlang nodes of an application talk TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Those of this folder of the host.
    Host(PathBuf),
    Managed,
}

/// The host was told of no folder.
#[derive(Debug, thiserror::Error)]
#[error(
    "distribution.tls is `files`, and this host has none: set otp_tls_certificates, for hosts that are enrolled already by \
     `deployex-agent run --otp-tls-certificates DIR`"
)]
pub(super) struct NoFolder;

impl Source {
    /// By the application's settings and the host's folder; `None`: without TLS.
    pub(super) fn of(app: &pb::Application, folder: Option<&Path>) -> Result<Option<Self>, NoFolder> {
        let Some(distribution) = &app.distribution else {
            return Ok(folder.map(|it| Self::Host(it.to_owned())));
        };
        if distribution.mode() == pb::DistributionMode::Off {
            return Ok(None);
        }
        let host = folder.map(|it| Self::Host(it.to_owned()));
        match distribution.tls() {
            pb::DistributionTls::Host => Ok(host),
            pb::DistributionTls::Off => Ok(None),
            pb::DistributionTls::Managed => Ok(Some(Self::Managed)),
            pb::DistributionTls::Files => host.ok_or(NoFolder).map(Some),
        }
    }

    /// Where the replica finds what its node's TLS is to be. In a folder for each source: pre-commands of a deployment that
    /// changes it must not take what runs its own.
    pub(super) fn options(&self, slot: &Path) -> PathBuf {
        let folder = match self {
            Self::Host(_) => "tls",
            Self::Managed => "tls-managed",
        };
        options_in(&slot.join(folder))
    }
}

fn options_in(folder: &Path) -> PathBuf {
    folder.join("inet_tls.conf")
}

/// Lays out what a replica is started with. `host`: of its node.
pub(super) async fn lay_out(
    (shared, id): (&Shared, &SlotId),
    source: &Source,
    host: String,
    options: &Path,
    account: Option<&Account>,
) -> anyhow::Result<()> {
    let certificates = match source {
        Source::Host(folder) => Certificates::read(folder, Verified::Chain)?,
        Source::Managed => replica_s(&shared.paths, id, host).obtain(&*shared.certify).await?,
    };
    Ok(certificates.lay_out(options, account)?)
}

/// Of a replica that runs on its node, by the options that it was started with.
pub(super) fn kept(paths: &Paths, id: &SlotId, host: &str, options: &Path) -> Option<Kept> {
    let ours = Source::Managed.options(&paths.slot_folder(id));
    (options == ours).then(|| Kept {
        agent: Holder {
            folder: paths.distribution(id).join("agent"),
            app: id.app.to_string(),
            host: host.to_owned(),
            only_dials: true,
        },
        replica: replica_s(paths, id, host.to_owned()),
        options: ours,
    })
}

fn replica_s(paths: &Paths, id: &SlotId, host: String) -> Holder {
    Holder {
        folder: paths.distribution(id).join("replica"),
        app: id.app.to_string(),
        host,
        only_dials: false,
    }
}

/// What the agent shows and trusts, as it is in a folder at each dial.
pub(super) struct InFolder {
    pub(super) folder: PathBuf,
    pub(super) verified: Verified,
}

impl Credentials for InFolder {
    fn now(&self) -> io::Result<Arc<ClientConfig>> {
        Certificates::read(&self.folder, self.verified).map(|it| it.client()).map_err(io::Error::other)
    }
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>, FolderError> {
    let path = folder.join(name);
    let length = fs::metadata(&path).map(|it| it.len());
    match length.and_then(|length| if length > LARGEST { Ok(None) } else { fs::read(&path).map(Some) }) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(FolderError::TooLarge { path }),
        Err(source) => Err(FolderError::Unreadable { path, source }),
    }
}

fn certificates(folder: &Path, name: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, FolderError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect();
    if found.is_empty() {
        return Err(FolderError::Nothing { path: folder.join(name), what: "certificate" });
    }
    Ok(found)
}

fn own_folder(folder: &Path, ids: Option<(u32, u32)>) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    match ids {
        // The folder above is the agent's own: what stands here is ours.
        Some((uid, gid)) => chown(folder, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

/// The folder is the application's: what it put there under these names is not followed.
fn write(path: &Path, bytes: &[u8], ids: Option<(u32, u32)>) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&temporary)?;
    file.write_all(bytes)?;
    if let Some((uid, gid)) = ids {
        fchown(&file, Some(uid), Some(gid))?;
    }
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["deployex".to_owned()]).unwrap();
        fs::write(folder.path().join(CA), authority.pem()).unwrap();
        fs::write(folder.path().join(CERTIFICATE), params.signed_by(&key, &authority).unwrap().pem())
            .unwrap();
        fs::write(folder.path().join(KEY), key.serialize_pem()).unwrap();
        folder
    }

    #[test]
    fn each_replica_has_what_it_needs_in_a_folder_of_its_own_and_a_later_start_what_is_there_then() {
        let (host, slot) = (folder(), tempfile::tempdir().unwrap());
        let options = options_in(&slot.path().join("tls"));
        for _ in 0..2 {
            fs::write(host.path().join(KEY), KeyPair::generate().unwrap().serialize_pem()).unwrap();
            let other = folder();
            for name in [CA, CERTIFICATE, KEY] {
                fs::copy(other.path().join(name), host.path().join(name)).unwrap();
            }
            Certificates::read(host.path(), Verified::Chain).unwrap().lay_out(&options, None).unwrap();
            for name in [CA, CERTIFICATE, KEY] {
                let copy = options.with_file_name(name);
                assert_eq!(fs::read(&copy).unwrap(), fs::read(host.path().join(name)).unwrap());
                assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o400);
            }
            assert!(fs::read_to_string(&options).unwrap().contains("tls/deployex.key"));
        }
        assert_eq!(fs::metadata(slot.path().join("tls")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_an_application_put_in_its_folder_is_not_followed() {
        let (host, slot) = (folder(), tempfile::tempdir().unwrap());
        let tls = slot.path().join("tls");
        fs::create_dir(&tls).unwrap();
        let precious = slot.path().join("precious");
        fs::write(&precious, "as it was").unwrap();
        for name in [KEY, "deployex.new", "inet_tls.conf", "inet_tls.new"] {
            std::os::unix::fs::symlink(&precious, tls.join(name)).unwrap();
        }
        Certificates::read(host.path(), Verified::Chain).unwrap().lay_out(&options_in(&tls), None).unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "as it was");
    }

    #[test]
    fn an_application_says_with_which_certificates_and_the_host_where_it_does_not() {
        let of = |tls: pb::DistributionTls, folder: Option<&str>| {
            let distribution = pb::Distribution { tls: tls.into(), ..Default::default() };
            let app = pb::Application { distribution: Some(distribution), ..Default::default() };
            Source::of(&app, folder.map(Path::new)).map_err(|it| it.to_string())
        };
        let host = Some(Source::Host("/o".into()));
        assert_eq!(of(pb::DistributionTls::Host, Some("/o")), Ok(host.clone()));
        assert_eq!(of(pb::DistributionTls::Host, None), Ok(None));
        assert_eq!(of(pb::DistributionTls::Off, Some("/o")), Ok(None));
        assert_eq!(of(pb::DistributionTls::Managed, Some("/o")), Ok(Some(Source::Managed)));
        assert_eq!(of(pb::DistributionTls::Files, Some("/o")), Ok(host));
        assert!(of(pb::DistributionTls::Files, None).unwrap_err().contains("--otp-tls-certificates"));
        let off = pb::Distribution { mode: pb::DistributionMode::Off.into(), tls: 2, ..Default::default() };
        let app = pb::Application { distribution: Some(off), ..Default::default() };
        assert_eq!(Source::of(&app, Some(Path::new("/o"))).ok(), Some(None));
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_told_by_the_file_that_is_wrong() {
        let told = |change: fn(&Path)| {
            let folder = folder();
            change(folder.path());
            let error = Certificates::read(folder.path(), Verified::Chain).err().unwrap().to_string();
            error.replace(&folder.path().display().to_string(), "")
        };
        let missing = told(|it| fs::remove_file(it.join(CERTIFICATE)).unwrap());
        assert_eq!(missing, "/deployex.crt, for TLS between Erlang nodes, cannot be read");
        let empty = told(|it| fs::write(it.join(CA), "nothing").unwrap());
        assert_eq!(empty, "/ca.crt, for TLS between Erlang nodes, holds no certificate as PEM");
        let none = told(|it| fs::write(it.join(KEY), "nothing").unwrap());
        assert_eq!(none, "/deployex.key, for TLS between Erlang nodes, holds no private key as PEM");
        let other = told(|it| {
            fs::write(it.join(KEY), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        });
        assert!(
            other.starts_with("/deployex.key, for TLS between Erlang nodes, is not the key of"),
            "{other}"
        );
        let large = told(|it| fs::write(it.join(CA), vec![b'x'; 300_000]).unwrap());
        assert!(large.contains("262144 bytes"), "{large}");
    }
}
