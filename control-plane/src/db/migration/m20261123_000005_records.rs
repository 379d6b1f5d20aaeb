//! What happened and who did it: events and the audit; and the settings of which there is one.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, Index, MigrationTrait, SchemaManager, Table};
use sea_orm_migration::schema::{big_integer, integer_null, text, text_null, uuid, uuid_null};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // No foreign keys: a record outlives what it speaks of.
        manager
            .create_table(
                Table::create()
                    .table("events")
                    .col(uuid("id").primary_key())
                    .col(big_integer("at"))
                    .col(text("kind"))
                    .col(text("severity"))
                    .col(text_null("app"))
                    .col(uuid_null("node"))
                    .col(integer_null("slot"))
                    .col(uuid_null("rollout"))
                    .col(text("message"))
                    .col(text("data"))
                    .take(),
            )
            .await?;
        for (name, columns) in [
            ("events_by_time", ["at", "id"]),
            ("events_by_app", ["app", "id"]),
            ("events_by_node", ["node", "id"]),
            ("events_by_rollout", ["rollout", "id"]),
        ] {
            let mut index = Index::create().name(name).table("events").take();
            for column in columns {
                index.col(column);
            }
            manager.create_index(index).await?;
        }
        manager
            .create_table(
                Table::create()
                    .table("audit")
                    .col(uuid("id").primary_key())
                    .col(big_integer("at"))
                    .col(text("who"))
                    .col(text("what"))
                    .col(text("object"))
                    .col(text("detail"))
                    .take(),
            )
            .await?;
        manager
            .create_table(
                Table::create().table("settings").col(text("key").primary_key()).col(text("value")).take(),
            )
            .await
    }
}
