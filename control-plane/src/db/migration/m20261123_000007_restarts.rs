//! Restarts that people ask for, and which of them a place was told of.

use sea_orm_migration::prelude::{
    DbErr, DeriveMigrationName, ForeignKey, ForeignKeyAction, Index, MigrationTrait, SchemaManager, Table,
};
use sea_orm_migration::schema::{
    big_integer, big_integer_null, integer_null, text, text_null, uuid, uuid_null,
};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let restarts = Table::create()
            .table("restarts")
            .col(uuid("id").primary_key())
            .col(text("app"))
            .col(big_integer("generation"))
            .col(uuid_null("node"))
            .col(integer_null("slot"))
            .col(text("by"))
            .col(big_integer("at"))
            .col(big_integer_null("finished_at"))
            .col(text_null("failure"))
            .foreign_key(
                ForeignKey::create()
                    .from("restarts", "app")
                    .to("applications", "name")
                    .on_delete(ForeignKeyAction::Cascade),
            )
            .take();
        manager.create_table(restarts).await?;
        let by_end = Index::create().name("restarts_by_end").table("restarts").col("finished_at").take();
        manager.create_index(by_end).await?;
        // SQLite adds one column at a time.
        let mut begun_at = big_integer("begun_at");
        begun_at.default(0);
        for column in [begun_at, uuid_null("restart"), big_integer_null("restart_at")] {
            manager.alter_table(Table::alter().table("assignments").add_column(column).take()).await?;
        }
        Ok(())
    }
}
