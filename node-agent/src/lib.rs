//! DeployEx's node agent: one program per host that runs replicas as it was told and says what is true of them.

pub mod keeper;
pub mod releases;
pub mod supervisor;
