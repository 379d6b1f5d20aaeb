//! The distribution protocol with real Erlang nodes, of whatever OTP release is installed.

mod dist {
    pub(crate) mod answers;
    pub(crate) mod bounds;
    pub(crate) mod certificates;
    pub(crate) mod evaluate;
    pub(crate) mod hot;
    pub(crate) mod life;
    pub(crate) mod link;
    pub(crate) mod looks;
    pub(crate) mod names;
    pub(crate) mod recorded;
    pub(crate) mod refusals;
    pub(crate) mod telemetry;
    pub(crate) mod tls;
    pub(crate) mod world;
}
