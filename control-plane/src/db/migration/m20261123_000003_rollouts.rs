//! Rollouts, the releases that failed in one, and what was deployed where and when.

use sea_orm_migration::prelude::{
    ConditionalStatement, DbErr, DeriveMigrationName, Expr, ExprTrait, ForeignKey, ForeignKeyAction, Index,
    IndexCreateStatement, MigrationTrait, SchemaManager, Table,
};
use sea_orm_migration::schema::{
    big_integer, big_integer_null, binary, binary_null, integer, text, text_null, uuid, uuid_null,
};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        rollouts(manager).await?;
        ghosted(manager).await?;
        history(manager).await
    }
}

fn index(table: &'static str, name: &'static str) -> IndexCreateStatement {
    Index::create().name(name).table(table).take()
}

async fn rollouts(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("rollouts")
                .col(uuid("id").primary_key())
                .col(text("app"))
                .col(text("version"))
                .col(binary("sha256"))
                .col(text_null("from_version"))
                .col(binary_null("from_sha256"))
                .col(text("phase"))
                .col(text_null("reason"))
                .col(text("pre_commands"))
                .col(text("progress"))
                .col(text("by"))
                .col(big_integer("wished_at"))
                .col(big_integer("started_at"))
                .col(big_integer("phase_since"))
                .col(big_integer_null("finished_at"))
                .foreign_key(
                    ForeignKey::create()
                        .from("rollouts", "app")
                        .to("applications", "name")
                        .on_delete(ForeignKeyAction::Cascade),
                )
                .take(),
        )
        .await?;
    manager.create_index(index("rollouts", "rollouts_by_app").col("app").col("id").take()).await?;
    // At most one rollout of an application is under way, whoever plans.
    manager
        .create_index(
            index("rollouts", "rollouts_under_way")
                .col("app")
                .unique()
                .and_where(Expr::col("finished_at").is_null())
                .take(),
        )
        .await
}

async fn ghosted(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("ghosted_releases")
                .col(text("app"))
                .col(text("version"))
                .col(binary("sha256"))
                .col(text("reason"))
                .col(text("evidence"))
                .col(uuid_null("rollout"))
                .col(big_integer("at"))
                .primary_key(Index::create().col("app").col("version").col("sha256"))
                .foreign_key(
                    ForeignKey::create()
                        .from("ghosted_releases", "app")
                        .to("applications", "name")
                        .on_delete(ForeignKeyAction::Cascade),
                )
                .take(),
        )
        .await
}

async fn history(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("history")
                .col(uuid("id").primary_key())
                .col(text("app"))
                .col(uuid("node"))
                .col(integer("slot"))
                .col(text("version"))
                .col(binary("sha256"))
                .col(text("kind"))
                .col(uuid_null("rollout"))
                .col(big_integer("since"))
                .col(big_integer_null("until"))
                .foreign_key(
                    ForeignKey::create()
                        .from("history", "app")
                        .to("applications", "name")
                        .on_delete(ForeignKeyAction::Cascade),
                )
                .take(),
        )
        .await?;
    manager
        .create_index(
            index("history", "history_by_place").col("app").col("node").col("slot").col("id").take(),
        )
        .await
}
