//! Nodes, their certificates, what they are to run, and the tokens with which they join.

use sea_orm_migration::prelude::{
    ConditionalStatement, DbErr, DeriveMigrationName, Expr, ExprTrait, ForeignKey, ForeignKeyAction, Index,
    MigrationTrait, SchemaManager, Table,
};
use sea_orm_migration::schema::{
    big_integer, big_integer_null, binary, binary_null, integer, text, text_null, uuid, uuid_null,
};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        nodes(manager).await?;
        certificates(manager).await?;
        assignments(manager).await?;
        manager
            .create_table(
                Table::create()
                    .table("join_tokens")
                    .col(uuid("id").primary_key())
                    .col(binary("hash").unique_key())
                    .col(integer("uses_left"))
                    .col(text("labels"))
                    .col(text("created_by"))
                    .col(big_integer("created_at"))
                    .col(big_integer("expires_at"))
                    .take(),
            )
            .await
    }
}

async fn nodes(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("nodes")
                .col(uuid("id").primary_key())
                .col(text("name"))
                .col(text("labels"))
                .col(text("agent_version"))
                .col(text("boot_id"))
                .col(text_null("inventory"))
                .col(big_integer("generation"))
                .col(big_integer("enrolled_at"))
                .col(big_integer_null("last_seen_at"))
                .col(big_integer_null("removed_at"))
                .take(),
        )
        .await?;
    // A removed node keeps its row for the record and gives its name back.
    manager
        .create_index(
            Index::create()
                .name("nodes_by_name")
                .table("nodes")
                .col("name")
                .unique()
                .and_where(Expr::col("removed_at").is_null())
                .take(),
        )
        .await
}

async fn certificates(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("certificates")
                .col(text("serial").primary_key())
                .col(uuid("node"))
                .col(big_integer("issued_at"))
                .col(big_integer("not_after"))
                .col(big_integer_null("revoked_at"))
                .foreign_key(
                    ForeignKey::create()
                        .from("certificates", "node")
                        .to("nodes", "id")
                        .on_delete(ForeignKeyAction::Cascade),
                )
                .take(),
        )
        .await?;
    manager
        .create_index(Index::create().name("certificates_by_node").table("certificates").col("node").take())
        .await
}

async fn assignments(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("assignments")
                .col(uuid("node"))
                .col(text("app"))
                .col(integer("slot"))
                .col(text_null("version"))
                .col(binary_null("sha256"))
                .col(text_null("pre_commands_run"))
                .col(big_integer("generation"))
                .col(big_integer("since"))
                .col(uuid_null("rollout"))
                .primary_key(Index::create().col("node").col("app").col("slot"))
                .foreign_key(
                    ForeignKey::create()
                        .from("assignments", "node")
                        .to("nodes", "id")
                        .on_delete(ForeignKeyAction::Cascade),
                )
                .foreign_key(ForeignKey::create().from("assignments", "app").to("applications", "name"))
                // Without a release (withdrawn) there is nothing to check.
                .foreign_key(
                    ForeignKey::create()
                        .from("assignments", ("app", "version", "sha256"))
                        .to("releases", ("app", "version", "sha256")),
                )
                .take(),
        )
        .await?;
    manager
        .create_index(Index::create().name("assignments_by_app").table("assignments").col("app").take())
        .await
}
