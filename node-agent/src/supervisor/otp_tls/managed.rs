//! `distribution: { tls: managed }`: certificates of an application's own authority, one for each replica and one for the agent
//! that talks to it, each for the host in the node's name. Obtained before a start, and renewed in place while it runs.
//!
//! They are kept in a folder of the agent's, from which a replica gets copies as it does from the host's. Without the control
//! plane what there is serves to its end. A key stays the same at a renewal, so that no crash between two files leaves a
//! certificate without its key; it is given up with the folder alone.
//!
//! Erlang's `ssl` keeps what it read of a file for up to two minutes (its PEM cache; tried on OTP 25), and a renewal comes at two
//! thirds of a certificate's life: nothing need be told to the node.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use proto::pb;
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CA, CERTIFICATE, Certificates, FolderError, KEY, LARGEST, read};
use crate::clock;
use crate::dist::tls::Verified;
use crate::link::{Certify, LinkError, Validity, request};
use crate::supervisor::acts::chain;

/// The wall clock may be set and a host may sleep: the time is looked at again this often.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// Between two tries, as nobody waits: half of it is up to chance, so that not all hosts come at once.
const TRY_AGAIN: Duration = Duration::from_mins(2);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(in crate::supervisor) enum ManagedError {
    #[error("the control plane has given no certificate for TLS between Erlang nodes")]
    NotSigned(#[from] LinkError),
    #[error(
        "the control plane has given a certificate for TLS between Erlang nodes that cannot be used: {0}"
    )]
    Unusable(&'static str),
    #[error("cannot make a key or a request for TLS between Erlang nodes")]
    Key(#[from] rcgen::Error),
    #[error("cannot keep {}", path.display())]
    Unkept { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// Whose certificate.
#[derive(Clone, Debug)]
pub(in crate::supervisor) struct Holder {
    pub(in crate::supervisor) folder: PathBuf,
    pub(in crate::supervisor) app: String,
    /// The host part of the node's name.
    pub(in crate::supervisor) host: String,
    /// The agent: it dials, and nobody dials it.
    pub(in crate::supervisor) only_dials: bool,
}

/// What is to be done about a certificate. Pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Not before that moment, in milliseconds since 1970.
    Nothing(u64),
    /// It serves, and two thirds of its life are over.
    Another,
    /// There is none that serves.
    One,
}

fn need(validity: Option<Validity>, now: u64) -> Need {
    match validity {
        Some(validity) if now < validity.renew_at() => Need::Nothing(validity.renew_at()),
        Some(validity) if now < validity.ends => Need::Another,
        _ => Need::One,
    }
}

impl Holder {
    /// What lies in the folder, made good where it must be: for who is about to use it. One that serves still is used where
    /// there is no other to be had.
    ///
    /// # Errors
    /// Where there is none that serves.
    pub(in crate::supervisor) async fn obtain(
        &self,
        certify: &dyn Certify,
    ) -> Result<Certificates, ManagedError> {
        self.obtain_at(certify, clock::unix_ms()).await
    }

    async fn obtain_at(&self, certify: &dyn Certify, now: u64) -> Result<Certificates, ManagedError> {
        match need(self.validity(), now) {
            Need::Nothing(_) => {}
            Need::One => self.ask(certify).await?,
            Need::Another => {
                if let Err(error) = self.ask(certify).await {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        app = self.app,
                        "a certificate is used that is to be renewed"
                    );
                }
            }
        }
        Ok(self.read()?)
    }

    pub(in crate::supervisor) fn read(&self) -> Result<Certificates, FolderError> {
        Certificates::read(&self.folder, Verified::ChainAndName)
    }

    /// Of a certificate that is for the host; `None`: there is none.
    fn validity(&self) -> Option<Validity> {
        self.read().ok()?;
        validity(&read(&self.folder, CERTIFICATE).ok()?, &self.host).ok()
    }

    async fn ask(&self, certify: &dyn Certify) -> Result<(), ManagedError> {
        let kept = read(&self.folder, KEY)
            .ok()
            .and_then(|pem| KeyPair::from_pem(&String::from_utf8(pem).ok()?).ok());
        let key = match kept {
            Some(key) => key,
            None => {
                let key = KeyPair::generate()?;
                self.keep(KEY, key.serialize_pem().as_bytes())?;
                key
            }
        };
        let asked = pb::CertifyPeerRequest {
            app: self.app.clone(),
            csr_pem: request(&key)?,
            host: self.host.clone(),
            agent: self.only_dials,
        };
        let pb::CertifyPeerResponse { certificate_pem, ca_pem } = certify.certify(asked).await?;
        if certificate_pem.len() as u64 > LARGEST || ca_pem.len() as u64 > LARGEST {
            return Err(ManagedError::Unusable("it is too large"));
        }
        let given = validity(certificate_pem.as_bytes(), &self.host).map_err(ManagedError::Unusable)?;
        if need(Some(given), clock::unix_ms()) == Need::One {
            return Err(ManagedError::Unusable("it has ended already; compare the clocks of both hosts"));
        }
        // The roots first: a new certificate may need a new root, never the other way round.
        self.keep(CA, ca_pem.as_bytes())?;
        self.keep(CERTIFICATE, certificate_pem.as_bytes())?;
        self.read()?;
        info!(app = self.app, host = self.host, "a certificate for TLS between Erlang nodes was obtained");
        Ok(())
    }

    fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), ManagedError> {
        let path = self.folder.join(name);
        let unfinished = self.folder.join(format!(".{name}.new"));
        let write = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| ManagedError::Unkept { path, source })
    }
}

/// The certificates of a node that runs: the replica's, of which it has a copy beside `options`, and the agent's own.
#[derive(Clone, Debug)]
pub(in crate::supervisor) struct Kept {
    pub(in crate::supervisor) agent: Holder,
    pub(in crate::supervisor) replica: Holder,
    pub(in crate::supervisor) options: PathBuf,
}

impl Kept {
    /// Until cancelled. `tell` is told why they cannot be renewed, and that they can.
    pub(in crate::supervisor) async fn keep(
        &self,
        certify: &dyn Certify,
        tell: impl Fn(Option<String>),
        cancel: &CancellationToken,
    ) {
        // A renewal may have been cut off before the replica had its copy.
        let mut is_laid_out = false;
        loop {
            let renewed = tokio::select! {
                biased; // stopping comes before new work
                () = cancel.cancelled() => return,
                renewed = self.renew(certify, &mut is_laid_out) => renewed,
            };
            let wait = match renewed {
                Ok(left) => {
                    tell(None);
                    left
                }
                Err(error) => {
                    let fault = chain(&error);
                    warn!(
                        fault,
                        app = self.replica.app,
                        "certificates for TLS between Erlang nodes are not kept up"
                    );
                    tell(Some(fault));
                    TRY_AGAIN.mul_f64(0.5 + rand::random::<f64>() / 2.0)
                }
            };
            tokio::select! {
                biased; // as above
                () = cancel.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// How long nothing is to be done then.
    async fn renew(&self, certify: &dyn Certify, is_laid_out: &mut bool) -> Result<Duration, ManagedError> {
        let mut wait = LOOK_AGAIN;
        for holder in [&self.agent, &self.replica] {
            let mut left = need(holder.validity(), clock::unix_ms());
            if !matches!(left, Need::Nothing(_)) {
                holder.ask(certify).await?;
                *is_laid_out &= holder.only_dials;
                left = need(holder.validity(), clock::unix_ms());
            }
            wait = wait.min(match left {
                Need::Nothing(until) => Duration::from_millis(until.saturating_sub(clock::unix_ms())),
                // Due as it comes, by a clock that is wrong.
                Need::Another | Need::One => TRY_AGAIN,
            });
        }
        if !*is_laid_out {
            let folder = self.options.parent().unwrap_or(&self.options);
            let its = fs::metadata(folder)
                .map_err(|source| ManagedError::Unkept { path: folder.to_owned(), source })?;
            self.replica.read()?.lay_out_for(&self.options, Some((its.uid(), its.gid())))?;
            *is_laid_out = true;
        }
        Ok(wait)
    }
}

/// A certificate's, where it is for the host.
fn validity(pem: &[u8], host: &str) -> Result<Validity, &'static str> {
    let der = CertificateDer::from_pem_slice(pem).map_err(|_| "it is no certificate")?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| "it is no certificate")?;
    let names = parsed.subject_alternative_name().map_err(|_| "its names cannot be read")?;
    let is_the_host = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => name.eq_ignore_ascii_case(host),
        _ => false,
    };
    if !names.is_some_and(|it| it.value.general_names.iter().any(is_the_host)) {
        return Err("it is for another host");
    }
    Ok(Validity::of(&parsed))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use proto::agent::BACKDATED_SECONDS;
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa,
    };
    use time::OffsetDateTime;

    use super::*;

    /// A control plane's authority, which can be away.
    struct Authority {
        issuer: CertifiedIssuer<'static, KeyPair>,
        /// Of what it signs, in seconds.
        life: AtomicU64,
        is_away: AtomicBool,
        signed: AtomicU64,
    }

    impl Authority {
        fn new(life: u64) -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
            let (life, signed) = (AtomicU64::new(life), AtomicU64::new(0));
            Self { issuer, life, is_away: AtomicBool::new(false), signed }
        }

        fn signed(&self) -> u64 {
            self.signed.load(Ordering::Relaxed)
        }
    }

    #[async_trait::async_trait]
    impl Certify for Authority {
        async fn certify(
            &self,
            request: pb::CertifyPeerRequest,
        ) -> Result<pb::CertifyPeerResponse, LinkError> {
            if self.is_away.load(Ordering::Relaxed) {
                return Err(LinkError::Silent);
            }
            self.signed.fetch_add(1, Ordering::Relaxed);
            let key = CertificateSigningRequestParams::from_pem(&request.csr_pem).unwrap().public_key;
            let mut params = CertificateParams::new(vec![request.host]).unwrap();
            let now = i64::try_from(clock::unix_ms() / 1_000).unwrap();
            let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            params.not_before = at(now - BACKDATED_SECONDS);
            params.not_after = at(now + i64::try_from(self.life.load(Ordering::Relaxed)).unwrap());
            let certificate_pem = params.signed_by(&key, &self.issuer).unwrap().pem();
            Ok(pb::CertifyPeerResponse { certificate_pem, ca_pem: self.issuer.pem() })
        }
    }

    fn holder(folder: &Path, host: &str, only_dials: bool) -> Holder {
        let folder = folder.join(if only_dials { "agent" } else { "replica" });
        Holder { folder, app: "shop".to_owned(), host: host.to_owned(), only_dials }
    }

    fn file(folder: &Path, name: &str) -> Vec<u8> {
        fs::read(folder.join(name)).unwrap()
    }

    const DAY: u64 = 24 * 60 * 60;

    #[test]
    fn another_is_asked_for_at_two_thirds_of_the_life_and_one_that_has_ended_is_none() {
        let validity = Some(Validity { issued: 1_000, ends: 4_000 });
        assert_eq!(need(validity, 2_999), Need::Nothing(3_000));
        assert_eq!(need(validity, 3_000), Need::Another);
        assert_eq!(need(validity, 4_000), Need::One);
        assert_eq!(need(None, 0), Need::One);
    }

    #[tokio::test]
    async fn what_was_obtained_serves_without_the_control_plane_and_is_asked_for_once() {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new(DAY));
        let holder_of = |host| holder(folder.path(), host, false);
        holder_of("web-1").obtain(&authority).await.unwrap();
        let mode = |name: &str| {
            fs::metadata(folder.path().join("replica").join(name)).unwrap().permissions().mode() & 0o777
        };
        assert_eq!((mode(""), mode(KEY), mode(CERTIFICATE)), (0o700, 0o600, 0o600));
        authority.is_away.store(true, Ordering::Relaxed);
        holder_of("web-1").obtain(&authority).await.unwrap();
        assert_eq!(authority.signed(), 1);
        let elsewhere = holder_of("web-2").obtain(&authority).await.err().unwrap();
        assert!(matches!(elsewhere, ManagedError::NotSigned(LinkError::Silent)), "{elsewhere:?}");
    }

    #[tokio::test]
    async fn one_that_is_due_is_renewed_with_its_key_and_used_where_it_cannot_be() {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new(DAY));
        let holder = holder(folder.path(), "web-1", false);
        holder.obtain(&authority).await.unwrap();
        let (key, certificate) = (file(&holder.folder, KEY), file(&holder.folder, CERTIFICATE));
        let after = |hours: u64| clock::unix_ms() + hours * 3_600_000;
        authority.is_away.store(true, Ordering::Relaxed);
        holder.obtain_at(&authority, after(20)).await.unwrap();
        assert_eq!(file(&holder.folder, CERTIFICATE), certificate);
        let ended = holder.obtain_at(&authority, after(25)).await.err().unwrap();
        assert!(matches!(ended, ManagedError::NotSigned(LinkError::Silent)), "{ended:?}");
        authority.is_away.store(false, Ordering::Relaxed);
        holder.obtain_at(&authority, after(20)).await.unwrap();
        assert_eq!(file(&holder.folder, KEY), key);
        assert_ne!(file(&holder.folder, CERTIFICATE), certificate);
    }

    #[tokio::test]
    async fn a_certificate_for_another_host_or_one_too_large_is_not_kept() {
        struct Liar(Authority, &'static str, usize);
        #[async_trait::async_trait]
        impl Certify for Liar {
            async fn certify(
                &self,
                mut request: pb::CertifyPeerRequest,
            ) -> Result<pb::CertifyPeerResponse, LinkError> {
                request.host = self.1.to_owned();
                let mut response = self.0.certify(request).await?;
                response.ca_pem.push_str(&"x".repeat(self.2));
                Ok(response)
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let holder = holder(folder.path(), "web-1", false);
        for (host, more, expected) in
            [("web-2", 0, "it is for another host"), ("web-1", 300_000, "it is too large")]
        {
            let liar = Liar(Authority::new(DAY), host, more);
            let error = holder.obtain(&liar).await.err().unwrap().to_string();
            assert!(error.ends_with(expected), "{error}");
            assert!(!holder.folder.join(CERTIFICATE).exists());
        }
        let error = holder.obtain(&Authority::new(0)).await.err().unwrap().to_string();
        assert!(error.ends_with("compare the clocks of both hosts"), "{error}");
    }

    #[tokio::test]
    async fn a_node_that_runs_gets_another_in_place_before_its_own_ends() {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new(3));
        let options = folder.path().join("tls-managed/inet_tls.conf");
        let kept = Kept {
            agent: holder(folder.path(), "web-1", true),
            replica: holder(folder.path(), "web-1", false),
            options: options.clone(),
        };
        kept.replica.obtain(&authority).await.unwrap().lay_out(&options, None).unwrap();
        let copy = || fs::read(options.with_file_name(CERTIFICATE)).unwrap();
        let (first, key) = (copy(), fs::read(options.with_file_name(KEY)).unwrap());
        let (cancel, told) = (CancellationToken::new(), std::sync::Mutex::new(Vec::new()));
        let keeping = kept.keep(&authority, |fault| told.lock().unwrap().push(fault), &cancel);
        let watching = async {
            while copy() == first {
                sleep(Duration::from_millis(20)).await;
            }
            cancel.cancel();
        };
        tokio::time::timeout(Duration::from_mins(1), async { tokio::join!(keeping, watching) })
            .await
            .unwrap();
        assert_eq!(copy(), file(&kept.replica.folder, CERTIFICATE));
        assert_eq!(fs::read(options.with_file_name(KEY)).unwrap(), key);
        assert!(told.lock().unwrap().iter().all(Option::is_none));
        assert!(kept.agent.read().is_ok(), "the agent has one of its own");
    }

    #[tokio::test(start_paused = true)]
    async fn why_none_can_be_had_is_told_until_it_can() {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new(DAY));
        let options = folder.path().join("tls-managed/inet_tls.conf");
        let kept = Kept {
            agent: holder(folder.path(), "web-1", true),
            replica: holder(folder.path(), "web-1", false),
            options: options.clone(),
        };
        kept.replica.obtain(&authority).await.unwrap().lay_out(&options, None).unwrap();
        authority.is_away.store(true, Ordering::Relaxed);
        let (cancel, told) = (CancellationToken::new(), std::sync::Mutex::new(Vec::new()));
        let tell = |fault: Option<String>| {
            if fault.is_some() {
                authority.is_away.store(false, Ordering::Relaxed);
            } else {
                cancel.cancel();
            }
            told.lock().unwrap().push(fault);
        };
        kept.keep(&authority, tell, &cancel).await;
        let told = told.into_inner().unwrap();
        assert!(told[0].as_ref().unwrap().contains("the control plane fell silent"), "{told:?}");
        assert_eq!(told[1..], [None]);
    }
}
