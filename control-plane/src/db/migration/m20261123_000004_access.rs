//! Who may do what: users, their sessions, API tokens; and the certificate authorities.

use sea_orm_migration::prelude::{
    DbErr, DeriveMigrationName, ForeignKey, ForeignKeyAction, Index, MigrationTrait, SchemaManager, Table,
};
use sea_orm_migration::schema::{big_integer, big_integer_null, binary, text, uuid};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("users")
                    .col(text("name").primary_key())
                    .col(text("role"))
                    .col(text("password_hash"))
                    .col(big_integer("created_at"))
                    .take(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("sessions")
                    .col(uuid("id").primary_key())
                    .col(binary("hash").unique_key())
                    .col(text("user_name"))
                    .col(big_integer("created_at"))
                    .col(big_integer("last_used_at"))
                    .col(big_integer("expires_at"))
                    .col(text("address"))
                    .col(text("user_agent"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("sessions", "user_name")
                            .to("users", "name")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .take(),
            )
            .await?;
        for (name, column) in [("sessions_by_user", "user_name"), ("sessions_by_end", "expires_at")] {
            manager.create_index(Index::create().name(name).table("sessions").col(column).take()).await?;
        }
        manager
            .create_table(
                Table::create()
                    .table("api_tokens")
                    .col(uuid("id").primary_key())
                    .col(text("name").unique_key())
                    .col(binary("hash").unique_key())
                    .col(text("role"))
                    .col(big_integer("created_at"))
                    .col(big_integer_null("expires_at"))
                    .col(big_integer_null("last_used_at"))
                    .take(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("authorities")
                    .col(uuid("id").primary_key())
                    .col(text("kind"))
                    .col(text("certificate"))
                    .col(binary("encrypted_key"))
                    .col(big_integer("created_at"))
                    .col(big_integer_null("retired_at"))
                    .take(),
            )
            .await
    }
}
