//! Mistakes that the planner can be told to make, so that the simulations can be seen to catch them. Outside tests
//! `planted!` is `false` and nothing of this exists.

#[cfg(any(test, all(feature = "simulation", debug_assertions)))]
macro_rules! planted {
    ($fault:ident) => {
        crate::rollout::fault::is_planted(crate::rollout::fault::Fault::$fault)
    };
}

#[cfg(not(any(test, all(feature = "simulation", debug_assertions))))]
macro_rules! planted {
    ($fault:ident) => {
        false
    };
}

pub(super) use planted;
#[cfg(any(test, all(feature = "simulation", debug_assertions)))]
pub(super) use switches::is_planted;
#[cfg(test)]
pub(super) use switches::unplanted;
#[cfg(any(test, all(feature = "simulation", debug_assertions)))]
pub use switches::{Fault, plant};

#[cfg(any(test, all(feature = "simulation", debug_assertions)))]
mod switches {
    use std::cell::Cell;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Fault {
        /// Reports that speak of an earlier assignment are believed.
        BelieveOldReports,
        /// A ready slot is replaced whoever else is ready.
        ReplaceWithoutOthers,
        /// The next slot is told before the last one is stable.
        DoNotWaitForStable,
        /// The spare slot is withdrawn while others are still to be replaced.
        WithdrawSpareEarly,
        /// The spare slot stays for ever.
        KeepSpare,
        DeployGhosted,
        /// A trial counts while its node is away.
        CountLostTime,
        /// A slot may take for ever to become stable.
        NeverGiveUp,
        /// A release that fails in its watch stays in force.
        StayInForce,
        /// A revert tells slots anew that already run what it goes back to.
        RevertTouchesAll,
        /// A suspect leader of the pre-commands is replaced like a lost one.
        ReplaceSuspectLeader,
        /// Slots are told the release before its pre-commands have passed.
        DoNotWaitForPreCommands,
        /// Nothing says why it waits.
        SayNothing,
        /// A trial is written at every plan.
        WriteEveryTime,
        /// A lost node holds up the others.
        WaitForLostNodes,
        /// A new node gets the release that is being rolled out.
        NewNodesGetTheNewest,
        /// One crash in the watch is a crash loop.
        OneCrashIsALoop,
        /// Nothing is hot-upgraded.
        NeverHot,
        /// A slot is told to be upgraded once more, whatever failed.
        HotWhateverFailed,
        /// All slots of a node are upgraded side by side.
        UpgradeAllAtOnce,
        /// A full deployment is begun although nothing but a hot upgrade is allowed.
        FullThoughHotIsRequired,
        /// A rolling restart does not wait for what it has restarted.
        RestartAllAtOnce,
        /// Whatever was told a release counts as started anew by that.
        TakeAWordForAStart,
        /// A rollout that is paused goes on.
        IgnorePause,
        /// One slot's crash loop takes down all there is, with nothing to go back to.
        TakeAllDown,
        /// What is missing on other nodes is forgotten.
        ForgetTheOthers,
        /// A batch holds every node that is left.
        BatchTooLarge,
        /// The others follow a canary that is lost.
        TrustALostCanary,
        /// The others follow a canary as soon as it is stable.
        SkipTheSoak,
        /// However many nodes are lost in their move, the others follow.
        LoseThemAll,
        /// A rollout that was given up is begun again for the same wish.
        TryAbortedAgain,
        /// A node that drains is emptied all at once.
        DrainAtOnce,
        /// A cordoned node is given replicas.
        FillCordoned,
        /// A spread leaves a node before its successors elsewhere are ready.
        MoveWithoutSuccessor,
        /// A newer release begins while the one before it is being taken back.
        BreakOffReverts,
        /// A revert has the time of one slot, however many go back one after the other.
        HurryReverts,
        /// A node on which the release fails gives up what serves there all the same.
        CatchUpAtOnce,
        /// All of a spread is given to one node.
        DealUnevenly,
        /// A batch holds nodes of more than one value of the label that orders them.
        MixLabels,
        /// The next batch begins as soon as the one before it is stable.
        SkipThePause,
        /// Whoever promotes a canary is not heard.
        IgnorePromotion,
        /// Whoever gives a rollout up is not heard.
        IgnoreAbort,
        /// A release may fail on any number of nodes.
        TolerateAll,
        /// What is superseded in its watch is watched no more.
        ForgetPredecessors,
        /// What is gone back to is not watched for what is left of its watch.
        ForgetTheRestOfAWatch,
        /// The watch of what gave way goes on where nothing runs it.
        CountUnseen,
        /// What is gone back to runs its own pre-commands again.
        RunOnTheWayBack,
        /// A slot that was told nothing yet is missed like one that was told something.
        MissTheVacant,
        /// A stretch in which nobody planned uses up a span.
        CountTheGap,
        /// A replica that is above its limit is started anew as soon as the last restart is over.
        IgnoreCooldowns,
        /// One that is above its limit is started anew whoever else is away.
        HurryForLimits,
    }

    thread_local! {
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Plants one for the current thread.
    pub fn plant(fault: Option<Fault>) {
        PLANTED.set(fault);
    }

    pub(in crate::rollout) fn is_planted(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }

    /// Whoever judges makes no mistakes.
    #[cfg(test)]
    pub(in crate::rollout) fn unplanted<T>(judge: impl FnOnce() -> T) -> T {
        let planted = PLANTED.replace(None);
        let judged = judge();
        PLANTED.set(planted);
        judged
    }

    #[test]
    fn a_fault_is_planted_in_one_thread_alone() {
        plant(Some(Fault::KeepSpare));
        let elsewhere = std::thread::spawn(|| is_planted(Fault::KeepSpare)).join().unwrap();
        assert!(is_planted(Fault::KeepSpare) && !elsewhere);
        plant(None);
    }
}
