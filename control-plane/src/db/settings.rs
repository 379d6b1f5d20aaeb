//! Settings of which there is one: a word and its value.

use sea_orm::sea_query::OnConflict;
use sea_orm::{ConnectionTrait, EntityTrait, IntoActiveModel};

use super::connection::Db;
use super::entity::records::setting;
use super::error::{DbError, Fault, doing};

impl Db {
    pub async fn setting(&self, key: &str) -> Result<Option<String>, DbError> {
        doing("read a setting", async { get(self.reader(), key).await }).await
    }

    pub async fn put_setting(&self, key: &str, value: &str) -> Result<(), DbError> {
        doing("store a setting", async { put(self.writer(), key, value).await }).await
    }

    /// Stores the value where there is none yet; returns the one in force. Of many callers at once all get the same.
    pub async fn setting_or_insert(&self, key: &str, value: &str) -> Result<String, DbError> {
        doing("store a setting", async {
            let row = setting::Model { key: key.to_owned(), value: value.to_owned() };
            setting::Entity::insert(row.into_active_model())
                .on_conflict(OnConflict::column(setting::Column::Key).do_nothing().to_owned())
                .exec_without_returning(self.writer())
                .await?;
            let stored = setting::Entity::find_by_id(key).one(self.writer()).await?;
            Ok(stored.map_or_else(|| value.to_owned(), |row| row.value))
        })
        .await
    }
}

pub(super) async fn get(connection: &impl ConnectionTrait, key: &str) -> Result<Option<String>, Fault> {
    Ok(setting::Entity::find_by_id(key).one(connection).await?.map(|row| row.value))
}

pub(super) async fn put(connection: &impl ConnectionTrait, key: &str, value: &str) -> Result<(), Fault> {
    let row = setting::Model { key: key.to_owned(), value: value.to_owned() };
    setting::Entity::insert(row.into_active_model())
        .on_conflict(
            OnConflict::column(setting::Column::Key).update_column(setting::Column::Value).to_owned(),
        )
        .exec_without_returning(connection)
        .await?;
    Ok(())
}

/// Holds a word until the transaction ends: whoever else wants to hold it waits.
pub(super) async fn hold(tx: &impl ConnectionTrait, word: &str) -> Result<(), Fault> {
    put(tx, &format!("lock:{word}"), "").await
}
