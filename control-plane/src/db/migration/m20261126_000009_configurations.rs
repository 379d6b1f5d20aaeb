//! The versions of the configuration that were put in force.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, Table};
use sea_orm_migration::schema::{big_integer, binary, binary_null, text};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let configurations = Table::create()
            .table("configurations")
            .col(big_integer("number").primary_key())
            .col(binary("text"))
            .col(binary("sha256"))
            .col(binary_null("file_sha256"))
            .col(text("by"))
            .col(big_integer("at"))
            .col(text("origin"))
            .col(text("changes"))
            .take();
        manager.create_table(configurations).await
    }
}
