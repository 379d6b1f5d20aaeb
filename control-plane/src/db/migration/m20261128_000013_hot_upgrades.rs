//! Assignments: how a release comes to where another runs, as JSON.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, Table};
use sea_orm_migration::schema::text_null;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let hot = Table::alter().table("assignments").add_column(text_null("hot")).take();
        manager.alter_table(hot).await
    }
}
