//! How an application's releases take over, in one sentence for people. Pure.

use proto::state::Strategy;

use super::{Amount, CanarySpec, DeploySpec, HotUpgradePolicy, PreCommandsRun, Promote};

impl DeploySpec {
    /// `batches of 2 nodes by zone, canary of 1 node promoted by hand, at most 1 replica missing`
    pub fn sentence(&self) -> String {
        let Self {
            strategy,
            batch,
            max_unavailable,
            canary,
            order_by,
            pause_between,
            tolerate_failed_nodes,
            pre_commands_run,
            hot_upgrade,
            stable_after: _,
            watch: _,
            stop_grace: _,
            pre_commands_timeout: _,
            drain: _,
        } = self;
        let mut parts = vec![strategy.to_string()];
        let by = order_by.as_ref().map(|label| format!(" by {label}")).unwrap_or_default();
        parts.push(match batch {
            Amount::Count(1) => format!("one node at a time{by}"),
            batch => format!("batches of {}{by}", counted(*batch, "node")),
        });
        parts.extend(canary.map(said_of_canary));
        parts.push(match (max_unavailable, strategy) {
            (Amount::Count(0), Strategy::StartFirst) => "no replica missing".to_owned(),
            (Amount::Count(0), Strategy::StopFirst) => "at most 1 replica missing".to_owned(),
            (most, _) => format!("at most {} missing", counted(*most, "replica")),
        });
        if pause_between.0 > 0 {
            parts.push(format!("{} between batches", span(pause_between.0)));
        }
        match tolerate_failed_nodes {
            0 => {}
            nodes => parts.push(format!("{} may fail", counted(Amount::Count(*nodes), "node"))),
        }
        if *pre_commands_run == PreCommandsRun::EveryReplica {
            parts.push("pre-commands by every replica".to_owned());
        }
        match hot_upgrade {
            HotUpgradePolicy::Auto => {}
            HotUpgradePolicy::Require => parts.push("by hot upgrade alone".to_owned()),
            HotUpgradePolicy::Never => parts.push("never by hot upgrade".to_owned()),
        }
        parts.join(", ")
    }
}

fn said_of_canary(canary: CanarySpec) -> String {
    let CanarySpec { nodes, promote, soak } = canary;
    let nodes = counted(nodes, "node");
    match promote {
        Promote::Manual => format!("canary of {nodes} promoted by hand"),
        Promote::Auto => format!("canary of {nodes} for {}", span(soak.0)),
    }
}

/// `2 nodes`, `10% of the nodes`.
fn counted(amount: Amount, thing: &str) -> String {
    match amount {
        Amount::Count(1) => format!("1 {thing}"),
        Amount::Count(many) => format!("{many} {thing}s"),
        Amount::Percent(share) => format!("{share}% of the {thing}s"),
    }
}

/// In the largest unit that says it exactly.
fn span(millis: u64) -> String {
    match millis {
        0 => "0 s".to_owned(),
        it if it.is_multiple_of(3_600_000) => format!("{} h", it / 3_600_000),
        it if it.is_multiple_of(60_000) => format!("{} min", it / 60_000),
        it if it.is_multiple_of(1_000) => format!("{} s", it / 1_000),
        it => format!("{it} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Millis;

    #[test]
    fn what_nobody_changed_is_said_shortly() {
        assert_eq!(DeploySpec::default().sentence(), "start_first, one node at a time, no replica missing");
        let stop_first = DeploySpec { strategy: Strategy::StopFirst, ..DeploySpec::default() };
        assert!(stop_first.sentence().ends_with("at most 1 replica missing"));
    }

    #[test]
    fn everything_that_was_chosen_is_said() {
        let canary = CanarySpec { nodes: Amount::Count(1), promote: Promote::Manual, soak: Millis(60_000) };
        let mut spec = DeploySpec {
            batch: Amount::Count(2),
            max_unavailable: Amount::Count(1),
            canary: Some(canary),
            order_by: Some("zone".to_owned()),
            pause_between: Millis(90_000),
            tolerate_failed_nodes: 1,
            ..DeploySpec::default()
        };
        assert_eq!(
            spec.sentence(),
            "start_first, batches of 2 nodes by zone, canary of 1 node promoted by hand, at most 1 replica missing, \
             90 s between batches, 1 node may fail"
        );
        spec.batch = Amount::Percent(10);
        spec.max_unavailable = Amount::Percent(25);
        spec.canary = Some(CanarySpec { promote: Promote::Auto, ..canary });
        let said = spec.sentence();
        assert!(said.contains("batches of 10% of the nodes by zone, canary of 1 node for 1 min,"), "{said}");
        assert!(said.contains("at most 25% of the replicas missing"), "{said}");
        assert!(!said.contains("hot upgrade"), "{said}");
        spec.hot_upgrade = HotUpgradePolicy::Require;
        assert!(spec.sentence().ends_with(", by hot upgrade alone"));
        spec.hot_upgrade = HotUpgradePolicy::Never;
        assert!(spec.sentence().ends_with(", never by hot upgrade"));
    }
}
