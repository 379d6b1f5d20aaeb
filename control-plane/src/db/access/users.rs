//! Users: a name, a role and the hash of a password.

use proto::state::Role;
use sea_orm::sea_query::Expr;
use sea_orm::{ActiveModelTrait, ColumnTrait, EntityTrait, IntoActiveModel, PaginatorTrait, QueryFilter};
use uuid::Uuid;

use crate::clock::Time;
use crate::db::connection::Db;
use crate::db::entity::access::{session, user};
use crate::db::entity::row::{Row, millis};
use crate::db::error::{DbError, Fault, doing, missing, taken};
use crate::db::events::{self, AuditEntry, NewEvent};

#[derive(Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub role: Role,
    pub password_hash: String,
    pub created_at: Time,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "User({} {})", self.name, self.role)
    }
}

impl Db {
    /// By name.
    pub async fn users(&self) -> Result<Vec<User>, DbError> {
        doing("list the users", async {
            let rows = user::Entity::find().all(self.reader()).await?;
            let mut users = rows.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
            users.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(users)
        })
        .await
    }

    pub async fn user(&self, name: &str) -> Result<Option<User>, DbError> {
        doing("read a user", async {
            user::Entity::find_by_id(name).one(self.reader()).await?.map(parse).transpose()
        })
        .await
    }

    pub async fn has_users(&self) -> Result<bool, DbError> {
        doing("count the users", async { Ok(user::Entity::find().count(self.reader()).await? > 0) }).await
    }

    pub async fn add_user(&self, user: &User) -> Result<(), DbError> {
        doing("add a user", async {
            let User { name, role, password_hash, created_at } = user.clone();
            let what = format!("a user named {name}");
            let row = user::Model {
                name,
                role: role.word().to_owned(),
                password_hash,
                created_at: millis(created_at),
            };
            row.into_active_model().insert(self.writer()).await.map_err(taken(what))?;
            Ok(())
        })
        .await
    }

    pub async fn set_role(&self, name: &str, role: Role) -> Result<(), DbError> {
        doing("change a user's role", async {
            let changed = user::Entity::update_many()
                .col_expr(user::Column::Role, Expr::value(role.word()))
                .filter(user::Column::Name.eq(name))
                .exec(self.writer())
                .await?;
            if changed.rows_affected == 0 { Err(missing(format!("user {name}"))) } else { Ok(()) }
        })
        .await
    }

    /// A new password also ends every session of the user but `keep`, so that whoever had the old one is out. Returns how
    /// many ended.
    pub async fn set_password(
        &self,
        name: &str,
        password_hash: &str,
        keep: Option<Uuid>,
        events: &[NewEvent],
        audit: Option<&AuditEntry>,
    ) -> Result<u64, DbError> {
        doing("change a user's password", async {
            let tx = self.write().await?;
            let changed = user::Entity::update_many()
                .col_expr(user::Column::PasswordHash, Expr::value(password_hash))
                .filter(user::Column::Name.eq(name))
                .exec(&tx)
                .await?;
            if changed.rows_affected == 0 {
                return Err(missing(format!("user {name}")));
            }
            let mut others = session::Entity::delete_many().filter(session::Column::UserName.eq(name));
            if let Some(keep) = keep {
                others = others.filter(session::Column::Id.ne(keep));
            }
            let ended = others.exec(&tx).await?.rows_affected;
            events::insert(&tx, events).await?;
            events::insert_audit(&tx, audit).await?;
            tx.commit().await?;
            Ok(ended)
        })
        .await
    }

    /// With all their sessions.
    pub async fn remove_user(&self, name: &str) -> Result<(), DbError> {
        doing("remove a user", async {
            let deleted = user::Entity::delete_by_id(name).exec(self.writer()).await?;
            if deleted.rows_affected == 0 { Err(missing(format!("user {name}"))) } else { Ok(()) }
        })
        .await
    }
}

pub(super) fn parse(model: user::Model) -> Result<User, Fault> {
    let user::Model { name, role, password_hash, created_at } = model;
    let row = Row::new("users", &name);
    Ok(User {
        role: row.word("role", &role, Role::from_word)?,
        created_at: row.time("created_at", created_at)?,
        name,
        password_hash,
    })
}
