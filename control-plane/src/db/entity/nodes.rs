//! Nodes, their certificates, what they are to run, and the tokens with which they join.

pub mod node {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "nodes")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub name: String,
        pub labels: String,
        pub agent_version: String,
        pub boot_id: String,
        pub inventory: Option<String>,
        pub generation: i64,
        pub enrolled_at: i64,
        pub last_seen_at: Option<i64>,
        pub removed_at: Option<i64>,
        pub service: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub mod certificate {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "certificates")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub serial: String,
        pub node: Uuid,
        pub issued_at: i64,
        pub not_after: i64,
        pub revoked_at: Option<i64>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub mod assignment {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "assignments")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub node: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub app: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub slot: i32,
        pub version: Option<String>,
        pub sha256: Option<Vec<u8>>,
        pub pre_commands_run: Option<String>,
        pub generation: i64,
        pub since: i64,
        pub rollout: Option<Uuid>,
        pub begun_at: i64,
        pub restart: Option<Uuid>,
        pub restart_at: Option<i64>,
        pub hot: Option<String>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub mod join_token {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "join_tokens")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub hash: Vec<u8>,
        pub uses_left: i32,
        pub labels: String,
        pub created_by: String,
        pub created_at: i64,
        pub expires_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
