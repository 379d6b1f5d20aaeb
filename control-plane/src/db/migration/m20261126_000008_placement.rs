//! Nodes from which a person keeps replicas away, and how many of a spread each node holds.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, Table};
use sea_orm_migration::schema::{text, text_null};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut service = text("service");
        service.default("open");
        manager.alter_table(Table::alter().table("nodes").add_column(service).take()).await?;
        // JSON: node to number of slots.
        let placed = text_null("placed");
        manager.alter_table(Table::alter().table("applications").add_column(placed).take()).await
    }
}
