//! The simulation is only worth what it catches: each mistake, of either side, breaks the law that it should.

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
    }
}
