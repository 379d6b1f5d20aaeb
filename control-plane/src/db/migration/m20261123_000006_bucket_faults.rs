//! Of what is wrong with a bucket, whether it is only waited for; and since when its last `current.json` is the last.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, Table};
use sea_orm_migration::schema::{big_integer_null, text_null};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite adds one column at a time.
        for column in [text_null("fault_kind"), big_integer_null("named_at")] {
            manager.alter_table(Table::alter().table("buckets").add_column(column).take()).await?;
        }
        Ok(())
    }
}
