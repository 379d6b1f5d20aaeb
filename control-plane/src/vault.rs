//! Keeps what must not lie readable in the database: sealed with keys derived from one secret, a key for each purpose, so
//! that nothing sealed for one can be opened as another.
//!
//! The secret is `DEPLOYEX_SECRET_KEY_BASE`, or with SQLite a file made once beside the database. It is never stored elsewhere
//! and cannot be got back from what was sealed: who loses it, enrols the hosts anew.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::rand::{SecureRandom as _, SystemRandom};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

/// What a key is for. A word here is part of the key: changing one makes what it sealed unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The private keys of certificate authorities.
    Authorities,
    /// Values in the database that are secrets of applications, such as cookies.
    Settings,
    /// Telling whether a secret changed without keeping it.
    Fingerprints,
}

impl Purpose {
    fn word(self) -> &'static [u8] {
        match self {
            Self::Authorities => b"deployex/authorities/1",
            Self::Settings => b"deployex/settings/1",
            Self::Fingerprints => b"deployex/fingerprints/1",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error(
        "DEPLOYEX_SECRET_KEY_BASE has {0} characters, at least {min} are needed: `openssl rand -base64 48` makes one",
        min = Vault::MIN_SECRET
    )]
    TooShort(usize),
    #[error(
        "DEPLOYEX_SECRET_KEY_BASE is not set: with PostgreSQL it has to be, because the key must not lie beside the data"
    )]
    Missing,
    #[error(
        "{} may be read by others than its owner (mode {mode:04o}): `chmod 600` it, and consider the key known",
        path.display()
    )]
    Open { path: PathBuf, mode: u32 },
    #[error("cannot read or make the key file {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the system has no randomness to give")]
    Random,
    #[error(
        "cannot be opened: it was sealed under another DEPLOYEX_SECRET_KEY_BASE (or key file), or it is damaged"
    )]
    Sealed,
}

/// Seals and opens. A cheap handle would be an `Arc` of it.
pub struct Vault {
    root: Prk,
    random: SystemRandom,
}

const FORMAT: u8 = 1;

impl Vault {
    /// Phoenix asks for as much of its `secret_key_base`.
    pub const MIN_SECRET: usize = 64;

    pub fn new(secret: &SecretString) -> Result<Self, VaultError> {
        let secret = secret.expose_secret().as_bytes();
        if secret.len() < Self::MIN_SECRET {
            return Err(VaultError::TooShort(secret.len()));
        }
        Ok(Self {
            root: Salt::new(HKDF_SHA256, b"deployex vault").extract(secret),
            random: SystemRandom::new(),
        })
    }

    /// From the variable where it is set, else from `file`, which is made where it is missing.
    pub fn open(secret: Option<&SecretString>, file: Option<&Path>) -> Result<Self, VaultError> {
        match (secret, file) {
            (Some(secret), _) => Self::new(secret),
            (None, Some(path)) => Self::new(&key_file(path)?),
            (None, None) => Err(VaultError::Missing),
        }
    }

    /// `context` says which thing this is (a table and id); it is not stored and must be the same at [`Vault::unseal`].
    pub fn seal(&self, purpose: Purpose, context: &str, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| VaultError::Random)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&nonce);
        let mut body = Zeroizing::new(plain.to_vec());
        let tag = self
            .cipher(purpose)?
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context.as_bytes()),
                &mut body,
            )
            .map_err(|_| VaultError::Sealed)?;
        sealed.extend_from_slice(&body);
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    pub fn unseal(
        &self,
        purpose: Purpose,
        context: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let Some((&[FORMAT], rest)) = sealed.split_first_chunk() else { return Err(VaultError::Sealed) };
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(VaultError::Sealed)?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self
            .cipher(purpose)?
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(context.as_bytes()),
                body.as_mut_slice(),
            )
            .map_err(|_| VaultError::Sealed)?
            .len();
        body.truncate(length);
        Ok(body)
    }

    /// A key for uses other than sealing, such as a MAC.
    pub fn key(&self, purpose: Purpose) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        let mut key = Zeroizing::new([0; 32]);
        self.root
            .expand(&[purpose.word()], HKDF_SHA256)
            .and_then(|derived| derived.fill(key.as_mut_slice()))
            .map_err(|_| VaultError::Sealed)?;
        Ok(key)
    }

    fn cipher(&self, purpose: Purpose) -> Result<LessSafeKey, VaultError> {
        let key = self.key(purpose)?;
        UnboundKey::new(&AES_256_GCM, key.as_slice()).map(LessSafeKey::new).map_err(|_| VaultError::Sealed)
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(…)")
    }
}

/// Read, or made whole under another name first, so that a crash leaves no half key.
fn key_file(path: &Path) -> Result<SecretString, VaultError> {
    let failed = |source| VaultError::File { path: path.to_owned(), source };
    match File::open(path) {
        Ok(file) => read_key(path, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_key_file(path)?;
            File::open(path).map_err(failed).and_then(|file| read_key(path, file))
        }
        Err(error) => Err(failed(error)),
    }
}

fn read_key(path: &Path, file: File) -> Result<SecretString, VaultError> {
    let failed = |source| VaultError::File { path: path.to_owned(), source };
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(VaultError::Open { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(4096).read_to_string(&mut text).map_err(failed)?;
    Ok(SecretString::from(text.trim().to_owned()))
}

fn make_key_file(path: &Path) -> Result<(), VaultError> {
    use base64::Engine as _;
    let mut bytes = Zeroizing::new([0; 48]);
    SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_| VaultError::Random)?;
    let text = Zeroizing::new(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes.as_slice()));
    let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        // A link never replaces: where two start at once, both go on with the key of the first.
        .and_then(|()| match std::fs::hard_link(&unfinished, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        })
        .and_then(|()| std::fs::remove_file(&unfinished))
        .and_then(|()| match path.parent() {
            Some(folder) => File::open(folder).and_then(|folder| folder.sync_all()),
            None => Ok(()),
        });
    made.map_err(|source| VaultError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(letter: &str) -> Vault {
        Vault::new(&SecretString::from(letter.repeat(64))).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_again() {
        let sealed = vault("a").seal(Purpose::Authorities, "agents", b"key").unwrap();
        assert_eq!(*vault("a").unseal(Purpose::Authorities, "agents", &sealed).unwrap(), b"key");
        assert!(!sealed.windows(3).any(|part| part == b"key"));
    }

    #[test]
    fn another_secret_purpose_or_context_does_not_open_it() {
        let sealed = vault("a").seal(Purpose::Authorities, "agents", b"key").unwrap();
        assert!(vault("b").unseal(Purpose::Authorities, "agents", &sealed).is_err());
        assert!(vault("a").unseal(Purpose::Settings, "agents", &sealed).is_err());
        assert!(vault("a").unseal(Purpose::Authorities, "apps", &sealed).is_err());
    }

    #[test]
    fn damage_anywhere_is_noticed() {
        let sealed = vault("a").seal(Purpose::Settings, "", b"value").unwrap();
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(vault("a").unseal(Purpose::Settings, "", &damaged).is_err(), "byte {at}");
            assert!(vault("a").unseal(Purpose::Settings, "", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_key_file_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret_key");
        let sealed = Vault::open(None, Some(&path)).unwrap().seal(Purpose::Settings, "", b"x").unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(Vault::open(None, Some(&path)).unwrap().unseal(Purpose::Settings, "", &sealed).is_ok());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Vault::open(None, Some(&path)), Err(VaultError::Open { mode: 0o640, .. })));
    }

    #[test]
    fn a_weak_or_missing_secret_is_refused() {
        assert!(matches!(Vault::new(&SecretString::from("short".to_owned())), Err(VaultError::TooShort(5))));
        assert!(matches!(Vault::open(None, None), Err(VaultError::Missing)));
    }
}
