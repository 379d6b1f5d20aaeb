//! Rollouts, what is kept of them, the releases that failed in one, and what was deployed where and when.

pub mod rollout {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "rollouts")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub app: String,
        pub version: String,
        pub sha256: Vec<u8>,
        pub from_version: Option<String>,
        pub from_sha256: Option<Vec<u8>>,
        pub phase: String,
        pub reason: Option<String>,
        pub pre_commands: String,
        pub progress: String,
        pub by: String,
        pub wished_at: i64,
        pub started_at: i64,
        pub phase_since: i64,
        pub finished_at: Option<i64>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub mod rollout_batch {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "rollout_batches")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub rollout: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub number: i32,
        pub canary: bool,
        pub nodes: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub mod rollout_record {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "rollout_records")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub rollout: Uuid,
        pub ran: Option<String>,
        pub ended: Option<String>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub mod ghosted {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "ghosted_releases")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub app: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub version: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub sha256: Vec<u8>,
        pub reason: String,
        pub evidence: String,
        pub rollout: Option<Uuid>,
        pub at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub mod history {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "history")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub app: String,
        pub node: Uuid,
        pub slot: i32,
        pub version: String,
        pub sha256: Vec<u8>,
        pub kind: String,
        pub rollout: Option<Uuid>,
        pub since: i64,
        pub until: Option<i64>,
        pub from_version: Option<String>,
        pub from_sha256: Option<Vec<u8>>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
