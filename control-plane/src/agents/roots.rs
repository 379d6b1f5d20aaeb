//! The agents' root, from the database: made at the first start, its key sealed by the vault.

use crate::clock::Time;
use crate::db::{Db, DbError, NewAuthority};
use crate::vault::{Purpose, Vault, VaultError};

use super::pki::{Authority, PkiError, Root};

const KIND: &str = "agents";

#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error("cannot read or store the agents' certificate authority")]
    Db(#[from] DbError),
    #[error("the key of the agents' certificate authority")]
    Vault(#[from] VaultError),
    #[error("cannot make or use the agents' certificate authority")]
    Pki(#[from] PkiError),
    #[error("every certificate authority of the agents is retired: none can sign")]
    Retired,
}

/// The root that signs, and those that are trusted beside it while one replaces the other.
pub async fn authority(db: &Db, vault: &Vault, now: Time) -> Result<Authority, RootsError> {
    let mut stored = db.authorities(KIND).await?;
    if stored.is_empty() {
        let root = Root::generate(now)?;
        let encrypted_key = vault.seal(Purpose::Authorities, KIND, root.key_pem.as_bytes())?;
        let new = NewAuthority {
            kind: KIND.to_owned(),
            certificate_pem: root.certificate_pem,
            encrypted_key,
            created_at: now,
        };
        stored = db.first_authority(&new).await?;
    }
    let signing = stored.iter().position(|root| root.retired_at.is_none()).ok_or(RootsError::Retired)?;
    let signing = stored.remove(signing);
    let key = vault.unseal(Purpose::Authorities, KIND, &signing.encrypted_key)?;
    let key_pem = String::from_utf8(key.to_vec()).map_err(|_| VaultError::Sealed)?.into();
    let trusted: Vec<_> = stored.into_iter().map(|root| root.certificate_pem).collect();
    Ok(Authority::new(&Root { certificate_pem: signing.certificate_pem, key_pem }, &trusted)?)
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
        assert!(matches!(error, RootsError::Vault(VaultError::Sealed)), "{error:?}");
    }
}
