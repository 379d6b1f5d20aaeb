//! Restarts that were asked for.

pub mod restart {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "restarts")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub app: String,
        pub generation: i64,
        pub node: Option<Uuid>,
        pub slot: Option<i32>,
        pub by: String,
        pub at: i64,
        pub finished_at: Option<i64>,
        pub failure: Option<String>,
        pub because: Option<String>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
