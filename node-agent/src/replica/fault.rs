//! Faults planted in the machine to show that the simulations see them. Outside tests they do not exist.

/// Each breaks one rule of the machine; `simulate` names the invariant that catches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A staged release takes over while the old process runs.
    SwapUnderARunningProcess,
    /// A process that was told to stop counts as gone once its time is up.
    ForgetWhoIsStopping,
    /// An answer counts whatever was asked.
    TakeAnyAnswer,
    /// An older assignment replaces a newer one.
    TakeOlderAssignments,
    /// Pauses between starts grow without end.
    NoCapOnPauses,
    /// A crash loop is restarted at once, for ever.
    NoPauses,
    /// The end of a process goes unseen.
    MissExits,
    /// A release that could not be verified counts as staged.
    TrustAnyArchive,
    /// What is known of an earlier run of pre-commands is forgotten.
    ForgetPreCommands,
    /// A release takes over although its pre-commands failed.
    IgnorePreCommands,
    /// The old process is stopped as soon as a new release is wanted.
    StopBeforeStaged,
    /// A stop that nobody heard is not repeated.
    StopOnlyOnce,
    /// Counts start anew with every agent.
    ForgetCounts,
    /// A new agent does not look at what runs.
    IgnoreWhatRuns,
    /// Folders are removed under a running process.
    ClearUnderARunningProcess,
    /// A restart that was asked for is done anew with every assignment.
    RestartEveryTime,
    /// Whoever runs is ended, although it was its predecessor that was condemned.
    CondemnAnyProcess,
    /// A condemned process goes on.
    SpareTheCondemned,
    /// A process is told to stop while it is still sent requests.
    StopUndrained,
    /// Whoever sends requests may hold up a stop without end.
    DrainForEver,
    /// What lies in `current` counts as whole after a power cut.
    TrustAnyFolder,
    /// Without a ledger, also that is started of which it does not know.
    StartWhatIsNotWritten,
    /// Without a ledger nothing is started, also not what crashed.
    StartNothingUnwritten,
    /// Pre-commands are run although no ledger says so.
    RunPreCommandsUnwritten,
    /// A release takes over although no ledger says so.
    SwapUnwritten,
    /// A process is stopped although no ledger says so.
    StopUnwritten,
    /// That a pre-command was begun does not outlive a power cut.
    BeginPreCommandsInMemory,
    /// A stop that had to wait for the ledger is overtaken by the kill that follows it.
    KillWhatWasNotTold,
    /// A new agent kills what its predecessor had told to stop.
    KillAtOnceAfterwards,
    /// A slot goes back by itself although there is somebody to decide that.
    FallBackWhileLinked,
    /// A slot goes back before its release had its time.
    FallBackAtOnce,
    /// A slot goes back although its release was stable.
    FallBackThoughStable,
    /// A slot goes back although what it would go back to still serves.
    FallBackBeforeItMoved,
    /// A slot that nobody can help stays as it is.
    NeverFallBack,
    /// A slot that went back takes the same release up once more.
    FallBackTwice,
    /// What runs is stopped although it was to be upgraded.
    StopForAHotUpgrade,
    /// An upgrade goes on although another release is wanted, or none.
    UpgradeToWhatIsNotWanted,
    /// An upgrade that failed is tried again without end.
    UpgradeAgainAndAgain,
    /// An upgrade goes on although its process has ended.
    UpgradeTheDead,
    /// A process goes on although its upgrade failed in the middle.
    TrustTheSpoiled,
    /// What lies in `current` is believed although an upgrade was about to change it when the process ended.
    TrustAHalfUpgradedFolder,
}

#[cfg(any(test, all(feature = "simulation", debug_assertions)))]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Plants one for the current thread.
#[cfg(any(test, all(feature = "simulation", debug_assertions)))]
pub fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

#[cfg(any(test, all(feature = "simulation", debug_assertions)))]
pub(super) fn planted(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

#[cfg(not(any(test, all(feature = "simulation", debug_assertions))))]
pub(super) const fn planted(_: Fault) -> bool {
    false
}
