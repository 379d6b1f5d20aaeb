//! Whose database it is: a demo's or not.
//!
//! A demo gives admin a password that everybody knows. Its database is a demo's from the demo's first start until a start
//! without `--demo`; on one that was ever used for real a demo does not start, and changes nothing of it.

use sea_orm_migration::SchemaManager;

use super::connection::Db;
use super::error::{DbError, doing};
use super::migration;

/// The setting that says it.
const KEY: &str = "demo";
const YES: &str = "yes";
const NO: &str = "no";

impl Db {
    /// As [`Db::open`], for whoever is not a demo.
    pub async fn open_for_real(url: &str) -> Result<Self, DbError> {
        let db = Self::open(url).await?;
        db.put_setting(KEY, NO).await?;
        Ok(db)
    }

    /// As [`Db::open`], where nobody but a demo has used it.
    pub async fn open_for_demo(url: &str) -> Result<Self, DbError> {
        let db = Self::connect(url).await?;
        // Before its tables are brought up to date: that would be a change too.
        if db.is_used_for_real().await? {
            db.close().await?;
            return Err(DbError::NotADemos);
        }
        migration::migrate(db.writer()).await?;
        db.put_setting(KEY, YES).await?;
        Ok(db)
    }

    async fn is_used_for_real(&self) -> Result<bool, DbError> {
        let is_new = doing("look into the database", async {
            let schema = SchemaManager::new(self.writer());
            Ok(!schema.has_table("settings").await? || !schema.has_table("users").await?)
        });
        if is_new.await? {
            return Ok(false);
        }
        match self.setting(KEY).await?.as_deref() {
            Some(YES) => Ok(false),
            Some(_) => Ok(true),
            // A first start that was broken off before it could say so has made no user either.
            None => self.has_users().await,
        }
    }
}
