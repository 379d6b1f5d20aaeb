//! Applications, their releases, and what their buckets last said.

use sea_orm_migration::prelude::{
    DbErr, DeriveMigrationName, ForeignKey, ForeignKeyAction, Index, MigrationTrait, SchemaManager, Table,
};
use sea_orm_migration::schema::{
    big_integer, big_integer_null, binary, binary_null, boolean, text, text_null,
};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("applications")
                    .col(text("name").primary_key())
                    .col(text("spec"))
                    .col(boolean("configured"))
                    .col(text("source"))
                    .col(text_null("wish_version"))
                    .col(binary_null("wish_sha256"))
                    .col(text_null("wish_by"))
                    .col(boolean("wish_pinned"))
                    .col(big_integer_null("wish_at"))
                    .col(text_null("in_force_version"))
                    .col(binary_null("in_force_sha256"))
                    .col(binary("cookie"))
                    .col(big_integer("generation"))
                    .col(big_integer("created_at"))
                    .col(big_integer("updated_at"))
                    .take(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("releases")
                    .col(text("app"))
                    .col(text("version"))
                    .col(binary("sha256"))
                    .col(big_integer("size"))
                    .col(text_null("declared_hash"))
                    .col(text("pre_commands"))
                    .col(text_null("etag"))
                    .col(big_integer("recorded_at"))
                    .primary_key(Index::create().col("app").col("version").col("sha256"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("releases", "app")
                            .to("applications", "name")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("releases_by_time")
                    .table("releases")
                    .col("app")
                    .col("recorded_at")
                    .take(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("buckets")
                    .col(text("app").primary_key())
                    .col(text_null("etag"))
                    .col(text_null("wish_version"))
                    .col(binary_null("wish_sha256"))
                    .col(big_integer_null("wished_at"))
                    .col(text_null("fault"))
                    .col(big_integer("since"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("buckets", "app")
                            .to("applications", "name")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .take(),
            )
            .await
    }
}
