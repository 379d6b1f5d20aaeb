//! The first sign-in: whose password `admin` has when the program starts.
//!
//! Known to everybody only under `--demo`; from the configuration where that gives a hash; else made up once and told once.
//! A data folder that was used by a demo does not keep the demo's password.

use proto::state::Role;
use secrecy::SecretString;

use super::password::{PasswordError, PasswordHash, Passwords};
use super::secret::{NoRandom, Secret};
use crate::clock::Time;
use crate::db::{Db, DbError, User};

pub const ADMIN: &str = "admin";
pub const DEMO_PASSWORD: &str = "deployex";

/// What somebody has to be told.
#[derive(Debug)]
pub enum FirstSignIn {
    /// Users are as they were.
    Unchanged,
    /// admin / deployex.
    Demo,
    /// As the configuration says.
    Configured,
    /// Made now; shown this once.
    OneTime(SecretString),
}

#[derive(Debug, thiserror::Error)]
pub enum FirstSignInError {
    #[error("the user admin cannot be read or written")]
    Db(#[from] DbError),
    #[error("the password of admin cannot be set")]
    Password(#[from] PasswordError),
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

/// Sees to it that somebody can sign in.
pub async fn prepare(
    db: &Db,
    passwords: &Passwords,
    demo: bool,
    configured: Option<&PasswordHash>,
    now: Time,
) -> Result<FirstSignIn, FirstSignInError> {
    let admin = db.user(ADMIN).await?;
    if demo {
        if !has_demo_password(passwords, admin.as_ref()).await? {
            let hash = passwords.hash(DEMO_PASSWORD.into()).await?;
            set(db, admin.as_ref(), &hash, now).await?;
        }
        return Ok(FirstSignIn::Demo);
    }
    if let Some(hash) = configured {
        if admin.as_ref().is_none_or(|admin| admin.password_hash != hash.as_str()) {
            set(db, admin.as_ref(), hash, now).await?;
        }
        return Ok(FirstSignIn::Configured);
    }
    if db.has_users().await? && !has_demo_password(passwords, admin.as_ref()).await? {
        return Ok(FirstSignIn::Unchanged);
    }
    // Shorter than our other secrets, because a person types it: 128 bits all the same.
    let secret = Secret::random("")?;
    let password: String = secret.expose().chars().take(22).collect();
    let hash = passwords.hash(password.clone().into()).await?;
    set(db, admin.as_ref(), &hash, now).await?;
    Ok(FirstSignIn::OneTime(password.into()))
}

async fn has_demo_password(passwords: &Passwords, admin: Option<&User>) -> Result<bool, PasswordError> {
    let Some(admin) = admin else { return Ok(false) };
    let hash = PasswordHash::parse(&admin.password_hash)?;
    passwords.verify(DEMO_PASSWORD.into(), Some(hash)).await
}

async fn set(db: &Db, admin: Option<&User>, hash: &PasswordHash, now: Time) -> Result<(), DbError> {
    match admin {
        Some(_) => db.set_password(ADMIN, hash.as_str(), None, &[], None).await.map(drop),
        None => {
            let name = ADMIN.to_owned();
            let password_hash = hash.as_str().to_owned();
            db.add_user(&User { name, role: Role::Admin, password_hash, created_at: now }).await
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::db::tests::fixture::TestDb;

    const NOW: Time = Time(1_000);

    async fn start(db: &Db, demo: bool, configured: Option<&PasswordHash>) -> FirstSignIn {
        prepare(db, &Passwords::default(), demo, configured, NOW).await.unwrap()
    }

    async fn opens(db: &Db, password: &str) -> bool {
        let admin = db.user(ADMIN).await.unwrap().unwrap();
        let hash = PasswordHash::parse(&admin.password_hash).unwrap();
        Passwords::default().verify(password.into(), Some(hash)).await.unwrap()
    }

    #[tokio::test]
    async fn the_first_start_makes_a_password_up_and_the_second_keeps_it() {
        let test = TestDb::sqlite().await;
        let FirstSignIn::OneTime(password) = start(&test.db, false, None).await else { panic!("none made") };
        assert!(opens(&test.db, password.expose_secret()).await);
        assert!(matches!(start(&test.db, false, None).await, FirstSignIn::Unchanged));
        assert!(opens(&test.db, password.expose_secret()).await);
    }

    #[tokio::test]
    async fn the_demos_password_does_not_outlive_the_demo() {
        let test = TestDb::sqlite().await;
        assert!(matches!(start(&test.db, true, None).await, FirstSignIn::Demo));
        assert!(opens(&test.db, DEMO_PASSWORD).await);
        assert!(matches!(start(&test.db, false, None).await, FirstSignIn::OneTime(_)));
        assert!(!opens(&test.db, DEMO_PASSWORD).await);
    }

    #[tokio::test]
    async fn a_configured_hash_is_in_force_at_every_start() {
        let test = TestDb::sqlite().await;
        start(&test.db, false, None).await;
        let hash = PasswordHash::parse(&bcrypt::hash("from the file", 4).unwrap()).unwrap();
        assert!(matches!(start(&test.db, false, Some(&hash)).await, FirstSignIn::Configured));
        assert!(opens(&test.db, "from the file").await);
    }
}
