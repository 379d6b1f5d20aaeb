//! What is kept of rollouts for people: batches as they were drawn, what pre-commands printed, how nodes ended.

use sea_orm_migration::prelude::{
    DbErr, DeriveMigrationName, ForeignKey, ForeignKeyAction, ForeignKeyCreateStatement, Index,
    MigrationTrait, SchemaManager, Table,
};
use sea_orm_migration::schema::{boolean, integer, text, text_null, uuid};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let batches = Table::create()
            .table("rollout_batches")
            .col(uuid("rollout"))
            .col(integer("number"))
            .col(boolean("canary"))
            // JSON: names of nodes.
            .col(text("nodes"))
            .primary_key(Index::create().col("rollout").col("number"))
            .foreign_key(&mut of_rollout("rollout_batches"))
            .take();
        manager.create_table(batches).await?;
        let records = Table::create()
            .table("rollout_records")
            .col(uuid("rollout").primary_key())
            // Both are JSON.
            .col(text_null("ran"))
            .col(text_null("ended"))
            .foreign_key(&mut of_rollout("rollout_records"))
            .take();
        manager.create_table(records).await
    }
}

fn of_rollout(table: &'static str) -> ForeignKeyCreateStatement {
    ForeignKey::create()
        .from(table, "rollout")
        .to("rollouts", "id")
        .on_delete(ForeignKeyAction::Cascade)
        .take()
}
