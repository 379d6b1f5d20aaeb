//! `deployex deploy`: asks for a release, and with `--wait` follows the rollout to its end.

use std::time::Duration;

use clap::Args;
use proto::apps::{Application, Deploy as Wish, Deployment, Unpinned};
use proto::ids::{AppName, Digest, ReleaseKey, RolloutId, Version};
use proto::rollouts::{Rollout, RolloutSummary};
use proto::state::RolloutPhase;
use tokio::time::Instant;

use super::CliError;
use super::client::Client;
use super::output::{News, Out, note};
use super::rollout::watch::{self, Screen};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Deploy a version of an application. It stays wanted until the bucket names another.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  deployex deploy myapp 2.5.0 --wait")]
pub(super) struct Deploy {
    #[command(flatten)]
    version: OfVersion,
    #[command(flatten)]
    waiting: ToWait,
}

/// Hold an application to a version, whatever the bucket names, until it is unpinned.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  deployex pin myapp 2.4.1")]
pub(super) struct Pin {
    #[command(flatten)]
    version: OfVersion,
    #[command(flatten)]
    waiting: ToWait,
}

/// Let the bucket decide again what an application runs.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  deployex unpin myapp")]
pub(super) struct Unpin {
    /// The application's name.
    application: AppName,
}

/// Go back to the release that was good before. It stays wanted until the bucket names another than now.
///
/// A rollout that moves goes back to where it came from; where none moves, what was in force before comes again. Said once more
/// after that, it returns to the release that was just left, unless that one is ghosted: `deploy` names any other.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  deployex rollback myapp --wait")]
pub(super) struct Rollback {
    /// The application's name.
    application: AppName,
    #[command(flatten)]
    waiting: ToWait,
}

#[derive(Debug, Args)]
struct OfVersion {
    /// The application's name.
    application: AppName,
    /// The version, as in the bucket.
    version: Version,
    /// Which tarball, where the version was published more than once.
    #[arg(long, value_name = "HEX")]
    sha256: Option<Digest>,
}

#[derive(Debug, Args)]
struct ToWait {
    /// Return when every replica is stable, or when it has failed.
    #[arg(long)]
    wait: bool,
    /// With --wait: give up waiting (the rollout goes on) and exit with 5.
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    timeout: u64,
}

impl Deploy {
    pub(super) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let deployment = self.version.ask(client, "deploy").await?;
        self.waiting.follow(client, out, &deployment).await
    }
}

impl Pin {
    pub(super) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let deployment = self.version.ask(client, "pin").await?;
        self.waiting.follow(client, out, &deployment).await
    }
}

impl Unpin {
    pub(super) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let unpinned: Unpinned = client.delete(&format!("/applications/{}/pin", self.application)).await?;
        out.show(&unpinned, |unpinned| format!("{}\n", unpinned.sentence))
    }
}

impl Rollback {
    pub(super) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let path = format!("/applications/{}/rollback", self.application);
        let deployment: Deployment = client.post(&path, &serde_json::Value::Null).await?;
        self.waiting.follow(client, out, &deployment).await
    }
}

impl OfVersion {
    async fn ask(self, client: &Client, what: &str) -> Result<Deployment, CliError> {
        let wish = Wish { version: self.version, sha256: self.sha256 };
        client.post(&format!("/applications/{}/{what}", self.application), &wish).await
    }
}

impl ToWait {
    async fn follow(&self, client: &Client, out: &mut Out, deployment: &Deployment) -> Result<(), CliError> {
        if !self.wait {
            return out.show(deployment, |deployment| format!("{}\n", deployment.sentence));
        }
        note(&deployment.sentence);
        let until = Instant::now() + Duration::from_secs(self.timeout);
        let Some(id) = begun(client, deployment, until).await? else {
            return out.show(deployment, |it| format!("{} {} runs already.\n", it.application, it.release));
        };
        let mut screen = Screen::beside_the_answer(out);
        let is_over = |rollout: &Rollout| ending(rollout, &deployment.release).is_some();
        let rollout = watch::follow(client, id, Some(until), |rollout| screen.show(rollout), is_over).await?;
        match ending(&rollout, &deployment.release) {
            Some(Ok(sentence)) => out.show(&rollout, |_| format!("{sentence}\n")),
            Some(Err(sentence)) => Err(CliError::Refused(sentence)),
            None => Err(CliError::TimedOut(format!(
                "rollout {id} goes on; `deployex rollout show {id}` shows it"
            ))),
        }
    }
}

/// The rollout, once it has begun; `None`: there is nothing to roll out.
async fn begun(
    client: &Client,
    deployment: &Deployment,
    until: Instant,
) -> Result<Option<RolloutId>, CliError> {
    let Deployment { application, release, rollout, sentence: _ } = deployment;
    if rollout.is_some() {
        return Ok(*rollout);
    }
    let mut said = News::default();
    loop {
        let app: Application = client.get(&format!("/applications/{application}")).await?;
        match app.current_rollout {
            Some(rollout) if leads_to(&rollout, release) => return Ok(Some(rollout.summary.id)),
            None if app.summary.in_force.as_ref() == Some(release) => return Ok(None),
            Some(rollout) => said.say(&rollout.summary.waiting),
            None => said.say(std::slice::from_ref(&app.summary.sentence)),
        }
        if Instant::now() >= until {
            return Err(CliError::TimedOut(format!("the rollout of {release} has not begun")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether it brings this release: it rolls it out, or goes back to it.
fn leads_to(rollout: &Rollout, release: &ReleaseKey) -> bool {
    let RolloutSummary { phase, release: moves_to, from, .. } = &rollout.summary;
    match phase {
        RolloutPhase::Reverting | RolloutPhase::Reverted => from.as_ref() == Some(release),
        _ => moves_to == release,
    }
}

/// How it went with the release that was asked for; `None`: it has not gone yet.
fn ending(rollout: &Rollout, asked: &ReleaseKey) -> Option<Result<String, String>> {
    let summary = &rollout.summary;
    let (app, release) = (&summary.application, &summary.release);
    let because = summary.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let failed = if summary.aborted_by.is_some() { "was aborted" } else { "failed" };
    let goes_back_to_it = release != asked && summary.from.as_ref() == Some(asked);
    match summary.phase {
        RolloutPhase::Pending | RolloutPhase::Running => None,
        RolloutPhase::Reverting if goes_back_to_it => None,
        RolloutPhase::Reverted if goes_back_to_it && summary.left.is_some() => {
            Some(Err(format!("{app} {asked} is not back everywhere{because}")))
        }
        RolloutPhase::Reverted if goes_back_to_it => {
            Some(Ok(format!("{app} {asked} is back: the rollout of {} was taken back.", release.version)))
        }
        // Of one that is over its slots are not counted any more.
        RolloutPhase::Watching | RolloutPhase::Done => Some(Ok(match summary.progress.total {
            0 => format!("{app} {release} is stable."),
            slots => format!("{app} {release} is stable on {slots} slots."),
        })),
        RolloutPhase::Reverting | RolloutPhase::Reverted => {
            Some(Err(format!("{app} {release} {failed} and is reverted{because}")))
        }
        RolloutPhase::Failed => Some(Err(format!("{app} {release} {failed}{because}"))),
        RolloutPhase::Superseded => Some(Err(format!("a newer wish took the place of {app} {release}"))),
    }
}

#[cfg(test)]
mod tests {
    use proto::rollouts::RolloutPreCommands;

    use super::super::rollout::tests::running;
    use super::*;

    fn of(summary: RolloutSummary) -> Rollout {
        let pre_commands = RolloutPreCommands::NotNeeded;
        Rollout { summary, pre_commands, strategy: None, batch: None, ghost: None, nodes: vec![] }
    }

    #[test]
    fn what_is_not_back_everywhere_is_no_success() {
        let mut summary = running();
        summary.phase = RolloutPhase::Reverted;
        let asked = summary.from.clone().unwrap();
        assert!(ending(&of(summary.clone()), &asked).unwrap().is_ok());
        summary.reason = Some("ann aborted it; not all of it is back: web-1 is lost".to_owned());
        summary.left = Some("web-1 is lost".to_owned());
        let said = ending(&of(summary), &asked).unwrap().unwrap_err();
        assert!(said.contains("is not back everywhere: ann aborted it"), "{said}");
    }

    #[test]
    fn a_rollout_that_is_watched_is_done_and_one_that_reverts_has_failed() {
        for (phase, ended) in [
            (RolloutPhase::Pending, None),
            (RolloutPhase::Running, None),
            (RolloutPhase::Watching, Some(true)),
            (RolloutPhase::Done, Some(true)),
            (RolloutPhase::Reverting, Some(false)),
            (RolloutPhase::Reverted, Some(false)),
            (RolloutPhase::Failed, Some(false)),
            (RolloutPhase::Superseded, Some(false)),
        ] {
            let mut summary = running();
            summary.phase = phase;
            let rollout = of(summary);
            let asked = rollout.summary.release.clone();
            assert_eq!(ending(&rollout, &asked).map(|it| it.is_ok()), ended, "{phase}");
        }
    }

    #[test]
    fn one_that_was_aborted_is_not_said_to_have_failed() {
        let mut summary = running();
        summary.phase = RolloutPhase::Reverted;
        summary.aborted_by = Some("ann".to_owned());
        summary.reason = Some("ann aborted it".to_owned());
        let rollout = of(summary);
        let said = ending(&rollout, &rollout.summary.release).unwrap().unwrap_err();
        assert!(said.ends_with(" was aborted and is reverted: ann aborted it"), "{said}");
    }

    #[test]
    fn a_rollback_has_gone_well_once_the_rollout_that_it_turned_is_reverted() {
        let mut summary = running();
        let back = summary.from.clone().unwrap();
        for (phase, ended) in [(RolloutPhase::Reverting, None), (RolloutPhase::Reverted, Some(true))] {
            summary.phase = phase;
            let rollout = of(summary.clone());
            assert!(leads_to(&rollout, &back));
            assert_eq!(ending(&rollout, &back).map(|it| it.is_ok()), ended, "{phase}");
        }
        summary.phase = RolloutPhase::Running;
        let rollout = of(summary);
        assert!(!leads_to(&rollout, &back), "it has not turned yet");
    }
}
