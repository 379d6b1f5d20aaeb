//! The history: of which release what ran was upgraded, and how a rollout's releases came into its slots, found by rollout.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, Index, MigrationTrait, SchemaManager, Table};
use sea_orm_migration::schema::{binary_null, text_null};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // One column a statement: SQLite adds no two at once.
        for column in [text_null("from_version"), binary_null("from_sha256")] {
            manager.alter_table(Table::alter().table("history").add_column(column).take()).await?;
        }
        let by_rollout = Index::create()
            .name("history_by_rollout")
            .table("history")
            .col("rollout")
            .col("version")
            .col("kind")
            .take();
        manager.create_index(by_rollout).await
    }
}
