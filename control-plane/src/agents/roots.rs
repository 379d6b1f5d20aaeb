//! The agents' root and one per application, from the database, so that several control planes have the same: each made when
//! it is asked for the first time, its key sealed by the vault.

use std::sync::Arc;

use proto::ids::AppName;

use super::pki::{Authority, PkiError, Root};
use super::registry::{PeerAuthorities, Source};
use crate::clock::Time;
use crate::db::{Db, DbError, NewAuthority};
use crate::vault::{Purpose, Vault, VaultError};

const AGENTS: &str = "agents";

#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error("cannot read or store the certificate authority of {kind}")]
    Db { kind: String, source: DbError },
    #[error("the key of the certificate authority of {kind}")]
    Vault { kind: String, source: VaultError },
    #[error("cannot make or use the certificate authority of {kind}")]
    Pki { kind: String, source: PkiError },
    #[error("every certificate authority of {0} is retired: none can sign")]
    Retired(String),
}

/// The agents' root that signs, and those that are trusted beside it while one replaces the other.
pub async fn authority(db: &Db, vault: &Vault, now: Time) -> Result<Authority, RootsError> {
    stored(db, vault, AGENTS, now, Root::generate).await
}

/// The roots of applications, for TLS between their Erlang nodes.
pub struct ApplicationRoots {
    db: Db,
    vault: Arc<Vault>,
}

impl ApplicationRoots {
    pub fn new(db: Db, vault: Arc<Vault>) -> Self {
        Self { db, vault }
    }
}

#[async_trait::async_trait]
impl PeerAuthorities for ApplicationRoots {
    async fn authority(&self, app: &AppName, now: Time) -> Result<Authority, Source> {
        let kind = format!("application:{app}");
        Ok(stored(&self.db, &self.vault, &kind, now, |now| Root::of_application(app, now)).await?)
    }
}

async fn stored(
    db: &Db,
    vault: &Vault,
    kind: &str,
    now: Time,
    make: impl FnOnce(Time) -> Result<Root, PkiError>,
) -> Result<Authority, RootsError> {
    let of = || kind.to_owned();
    let in_db = |source| RootsError::Db { kind: of(), source };
    let in_vault = |source| RootsError::Vault { kind: of(), source };
    let in_pki = |source| RootsError::Pki { kind: of(), source };
    let mut stored = db.authorities(kind).await.map_err(in_db)?;
    if stored.is_empty() {
        let root = make(now).map_err(in_pki)?;
        let encrypted_key =
            vault.seal(Purpose::Authorities, kind, root.key_pem.as_bytes()).map_err(in_vault)?;
        let new = NewAuthority {
            kind: of(),
            certificate_pem: root.certificate_pem,
            encrypted_key,
            created_at: now,
        };
        stored = db.first_authority(&new).await.map_err(in_db)?;
    }
    let signing = stored.iter().position(|root| root.retired_at.is_none());
    let signing = stored.remove(signing.ok_or_else(|| RootsError::Retired(of()))?);
    let key = vault.unseal(Purpose::Authorities, kind, &signing.encrypted_key).map_err(in_vault)?;
    let key_pem = String::from_utf8(key.to_vec()).map_err(|_| in_vault(VaultError::Sealed))?.into();
    let trusted: Vec<_> = stored.into_iter().map(|root| root.certificate_pem).collect();
    Authority::new(&Root { certificate_pem: signing.certificate_pem, key_pem }, &trusted).map_err(in_pki)
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    const NOW: Time = Time(1_800_000_000_000);

    fn vault(letter: &str) -> Vault {
        Vault::new(&SecretString::from(letter.repeat(64))).unwrap()
    }

    #[tokio::test]
    async fn the_root_is_made_once_and_opens_with_its_secret_alone() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&format!("sqlite://{}/db", folder.path().display())).await.unwrap();
        let first = authority(&db, &vault("a"), NOW).await.unwrap().fingerprint();
        assert_eq!(authority(&db, &vault("a"), NOW.plus(1)).await.unwrap().fingerprint(), first);
        let error = authority(&db, &vault("b"), NOW).await.err().unwrap();
        assert!(matches!(error, RootsError::Vault { source: VaultError::Sealed, .. }), "{error:?}");
    }

    #[tokio::test]
    async fn each_application_has_a_root_of_its_own_which_every_control_plane_has() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&format!("sqlite://{}/db", folder.path().display())).await.unwrap();
        let roots = || ApplicationRoots::new(db.clone(), Arc::new(vault("a")));
        let (one, other) = (roots(), roots());
        let of = async |roots: &ApplicationRoots, app: &str| {
            roots.authority(&app.parse().unwrap(), NOW).await.unwrap().fingerprint()
        };
        let shop = of(&one, "shop").await;
        assert_eq!(of(&other, "shop").await, shop);
        let agents = authority(&db, &vault("a"), NOW).await.unwrap().fingerprint();
        assert!(shop != of(&one, "blog").await && shop != agents);
    }
}
