//! Applications, their releases and what their buckets last said.

pub mod application {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "applications")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub name: String,
        pub spec: String,
        pub configured: bool,
        pub source: String,
        pub wish_version: Option<String>,
        pub wish_sha256: Option<Vec<u8>>,
        pub wish_by: Option<String>,
        pub wish_pinned: bool,
        pub wish_at: Option<i64>,
        pub in_force_version: Option<String>,
        pub in_force_sha256: Option<Vec<u8>>,
        pub cookie: Vec<u8>,
        pub generation: i64,
        pub created_at: i64,
        pub updated_at: i64,
        pub placed: Option<String>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub mod release {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "releases")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub app: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub version: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub sha256: Vec<u8>,
        pub size: i64,
        pub declared_hash: Option<String>,
        pub pre_commands: String,
        pub etag: Option<String>,
        pub recorded_at: i64,
        pub package: Option<String>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub mod bucket {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "buckets")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub app: String,
        pub etag: Option<String>,
        pub wish_version: Option<String>,
        pub wish_sha256: Option<Vec<u8>>,
        pub wished_at: Option<i64>,
        pub fault: Option<String>,
        pub fault_kind: Option<String>,
        pub named_at: Option<i64>,
        pub since: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
