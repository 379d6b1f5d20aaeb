//! The keeper and the agent's side of it, with real processes and real signals.

mod keeper {
    pub(crate) mod beam;
    pub(crate) mod endings;
    pub(crate) mod groups;
    pub(crate) mod launch;
    pub(crate) mod logs;
    pub(crate) mod older;
    pub(crate) mod orphans;
    pub(crate) mod scopes;
    pub(crate) mod silent;
    pub(crate) mod stop;
    pub(crate) mod take_over;
    pub(crate) mod world;
}
