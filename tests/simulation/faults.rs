//! The simulation is only worth what it catches: each mistake, of either side, breaks the law that it should. Those that need
//! a rare chain of chances are caught in the planner's own simulation and in the machine's.

use control_plane::rollout::simulation as planner;
use node_agent::replica::fault as machine;

use crate::laws::{self, Law};
use crate::world::World;

/// So many fleets are gone through for one that shows a mistake.
const FLEETS: u64 = 600;

/// The law that fleets break: this one, where any does.
fn caught(law: Law) -> Option<Law> {
    let mut named = (0..FLEETS).filter_map(World::broken_by);
    let first = named.next();
    first.filter(|it| *it == law).or_else(|| named.find(|it| *it == law)).or(first)
}

macro_rules! caught {
    ($side:ident, $($name:ident: $fault:ident => $law:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                $side::plant(Some($side::Fault::$fault));
                let found = caught(laws::$law);
                $side::plant(None);
                assert_eq!(found, Some(laws::$law));
            }
        )+
    };
}

mod of_the_planner {
    use super::*;

    caught! {
        planner,
        replacing_a_ready_slot_without_others_is_caught: ReplaceWithoutOthers => ENOUGH_READY,
        believing_old_reports_is_caught: BelieveOldReports => ONCE,
        deploying_a_ghosted_release_is_caught: DeployGhosted => NO_GHOST,
        never_giving_up_is_caught: NeverGiveUp => ENDS,
        keeping_the_spare_is_caught: KeepSpare => ENDS,
        saying_nothing_is_caught: SayNothing => SAYS_WHY,
        writing_every_time_is_caught: WriteEveryTime => ONCE,
        counting_the_time_of_an_outage_is_caught: CountLostTime => GOOD_STAYS,
        not_waiting_for_stable_is_caught: DoNotWaitForStable => STABLE_IN_FORCE,
        withdrawing_the_spare_early_is_caught: WithdrawSpareEarly => ENOUGH_READY,
        a_failed_release_that_stays_in_force_is_caught: StayInForce => ENOUGH_READY,
        giving_new_nodes_the_newest_is_caught: NewNodesGetTheNewest => TWO_RELEASES,
        forgetting_what_is_missing_elsewhere_is_caught: ForgetTheOthers => ONE_DOWN,
        a_batch_that_is_too_large_is_caught: BatchTooLarge => BATCHES,
        mixing_the_labels_that_order_nodes_is_caught: MixLabels => BATCHES,
        not_waiting_between_batches_is_caught: SkipThePause => PAUSE,
        not_waiting_for_a_canary_is_caught: SkipTheSoak => CANARY,
        trusting_a_canary_that_is_lost_is_caught: TrustALostCanary => CANARY,
        not_hearing_whoever_promotes_is_caught: IgnorePromotion => ENDS,
        going_on_while_paused_is_caught: IgnorePause => PAUSED,
        not_hearing_whoever_gives_up_is_caught: IgnoreAbort => GIVEN_UP,
        beginning_again_what_was_given_up_is_caught: TryAbortedAgain => GIVEN_UP,
        tolerating_every_failure_is_caught: TolerateAll => TOLERATED,
        emptying_a_node_at_once_is_caught: DrainAtOnce => DRAINS,
        giving_to_a_cordoned_node_is_caught: FillCordoned => KEPT_AWAY,
        leaving_a_node_without_successors_is_caught: MoveWithoutSuccessor => SUCCESSORS,
        dealing_a_spread_unevenly_is_caught: DealUnevenly => ENDS,
        upgrading_again_whatever_failed_is_caught: HotWhateverFailed => HOT_ONCE,
        upgrading_all_of_a_node_at_once_is_caught: UpgradeAllAtOnce => HOT_IN_TURN,
        beginning_in_full_what_has_to_be_hot_is_caught: FullThoughHotIsRequired => REQUIRED,
    }
}

mod of_the_machine {
    use super::*;

    caught! {
        machine,
        ignoring_what_runs_is_caught: IgnoreWhatRuns => ONE_PROCESS,
        swapping_under_a_running_process_is_caught: SwapUnderARunningProcess => ONE_PROCESS,
        missing_exits_is_caught: MissExits => ENDS,
        forgetting_pre_commands_is_caught: ForgetPreCommands => PRE_COMMANDS_ONCE,
        restarting_every_time_is_caught: RestartEveryTime => RESTARTS_ONCE,
        stopping_before_staged_is_caught: StopBeforeStaged => SERVES_ON,
        falling_back_though_stable_is_caught: FallBackThoughStable => UNASKED,
        keeping_what_an_upgrade_has_spoiled_is_caught: TrustTheSpoiled => WHAT_RUNS,
    }
}
