//! `deployex release …`: what a release would do, before it does it.

use clap::Subcommand;
use proto::hot_upgrade::HotUpgradePolicy;
use proto::ids::{AppName, Version};
use proto::releases::{CheckedWay, ReleaseCheck};

use super::CliError;
use super::client::Client;
use super::output::{Out, place, wrap, wrap_below};

#[derive(Debug, Subcommand)]
pub(super) enum Release {
    /// Say what a deployment of a release would be on each replica that runs: hot, or full and why.
    ///
    /// Nothing is done. Exits with 1 where `deploy.hot_upgrade` is require and a replica would need a full deployment.
    #[command(after_help = "Example:\n  deployex release check myapp 2.6.0")]
    Check {
        /// The application's name.
        application: AppName,
        /// A version that is recorded.
        version: Version,
    },
}

impl Release {
    pub(super) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let Self::Check { application, version } = self;
        let check: ReleaseCheck =
            client.get(&format!("/applications/{application}/releases/{version}/check")).await?;
        out.show(&check, render)?;
        match refused(&check) {
            Some(why) => Err(CliError::Refused(why)),
            None => Ok(()),
        }
    }
}

fn refused(check: &ReleaseCheck) -> Option<String> {
    check.is_refused().then(|| {
        let ReleaseCheck { application, release, .. } = check;
        format!("deploy.hot_upgrade is require: {application} {} is not deployed like this", release.version)
    })
}

fn render(check: &ReleaseCheck) -> String {
    let ReleaseCheck { application, release, policy, summary, replicas } = check;
    let wished = match policy {
        HotUpgradePolicy::Auto => "",
        HotUpgradePolicy::Require => " (deploy.hot_upgrade: require)",
        HotUpgradePolicy::Never => " (deploy.hot_upgrade: never)",
    };
    let mut text = wrap(&format!("{application} {release}: {summary}{wished}"));
    let names: Vec<String> = replicas.iter().map(|it| place(&it.node, it.slot)).collect();
    let width = names.iter().map(String::len).max().unwrap_or_default();
    let indent = " ".repeat(width + 2);
    for (replica, name) in replicas.iter().zip(&names) {
        let moves = format!("{} → {}", replica.from, release.version);
        let said = match (replica.way, &replica.because) {
            (CheckedWay::Hot, None) => format!("{moves}  hot"),
            (CheckedWay::Hot, Some(waits)) => format!("{moves}  hot: {waits}"),
            (CheckedWay::Full, None) => format!("{moves}  full"),
            (CheckedWay::Full, Some(because)) => format!("{moves}  full: {because}"),
            (CheckedWay::None, _) => format!("{}  runs it already", replica.from),
        };
        let said = wrap_below(&indent, &said);
        text.push_str(name);
        text.push_str(&indent[name.len()..]);
        text.push_str(said.trim_start());
    }
    text
}

#[cfg(test)]
mod tests {
    use proto::releases::ReplicaCheck;

    use super::super::app::tests::release;
    use super::*;

    fn check(policy: HotUpgradePolicy, last: CheckedWay) -> ReleaseCheck {
        let replica = |node: &str, slot: &str, from: &str, way| {
            ReplicaCheck {
            node: node.parse().unwrap(),
            slot: slot.parse().unwrap(),
            from: from.parse().unwrap(),
            way,
            because: (way == CheckedWay::Full)
                .then(|| "lib demo has no appup from 1.1.0: it has one from 1.2.0, 1.1.9; 2 more libs have none either".to_owned()),
        }
        };
        ReleaseCheck {
            application: "myapp".parse().unwrap(),
            release: release("1.3.0"),
            policy,
            summary: "hot from 1.2.0 on 1 replica".to_owned(),
            replicas: vec![
                replica("web-1", "1", "1.2.0", CheckedWay::Hot),
                replica("web-1", "10", "1.3.0", CheckedWay::None),
                replica("web-2", "1", "1.1.0", last),
            ],
        }
    }

    #[test]
    fn each_replica_is_said_in_a_line() {
        insta::assert_snapshot!(render(&check(HotUpgradePolicy::Require, CheckedWay::Full)));
    }

    #[test]
    fn only_what_is_forbidden_is_a_failure() {
        use CheckedWay::{Full, Hot};
        use HotUpgradePolicy::{Auto, Require};
        let refused = |policy, way| refused(&check(policy, way)).is_some();
        assert!(refused(Require, Full));
        assert!(!refused(Require, Hot) && !refused(Auto, Full));
    }
}
