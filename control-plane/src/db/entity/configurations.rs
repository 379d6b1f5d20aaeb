//! Versions of the configuration.

pub mod configuration {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "configurations")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub number: i64,
        pub text: Vec<u8>,
        pub sha256: Vec<u8>,
        pub file_sha256: Option<Vec<u8>>,
        pub by: String,
        pub at: i64,
        pub origin: String,
        pub changes: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
