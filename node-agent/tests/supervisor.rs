//! The supervisor on a real disk with real keepers and processes; the releases are small shell scripts.

mod supervisor {
    pub(crate) mod damage;
    pub(crate) mod fallback;
    pub(crate) mod full_disk;
    pub(crate) mod health;
    pub(crate) mod host;
    pub(crate) mod host_watch;
    pub(crate) mod limits;
    pub(crate) mod logs;
    pub(crate) mod power_cut;
    pub(crate) mod probes;
    pub(crate) mod refusal;
    pub(crate) mod remains;
    pub(crate) mod settings;
    pub(crate) mod traffic;
    pub(crate) mod world;
}
