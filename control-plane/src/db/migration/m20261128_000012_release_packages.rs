//! Releases: what their packages hold that hot upgrades go by, as JSON.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, Table};
use sea_orm_migration::schema::text_null;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let package = Table::alter().table("releases").add_column(text_null("package")).take();
        manager.alter_table(package).await
    }
}
