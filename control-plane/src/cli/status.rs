//! `deployex status`: the fleet in one look. Is anything wrong, is anything moving, does anything wait for a person?

use clap::Args;
use proto::configuration::Configuration;
use proto::overview::Fleet;
use proto::timestamp::Timestamp;
use serde::Serialize;

use super::client::Client;
use super::output::{Out, Paint, wrap};
use super::{CliError, app, node, rollout};

/// Show what runs, what moves and what needs somebody.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  deployex status")]
pub(super) struct Status;

/// As JSON: the fleet, and beside it the configuration.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    fleet: Fleet,
    configuration: Configuration,
}

impl Status {
    pub(super) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let fleet: Fleet = client.get("/fleet").await?;
        let configuration: Configuration = client.get("/configuration").await?;
        let (paint, now) = (out.paint, out.now());
        out.show(&Shown { fleet, configuration }, |Shown { fleet, configuration }| {
            render(fleet, &configuration.waiting(), paint, now)
        })
    }
}

fn render(fleet: &Fleet, waiting: &[String], paint: Paint, now: Timestamp) -> String {
    let Fleet { headline, applications, nodes, rollouts } = fleet;
    let mut text = format!("{}\n", paint.headline(headline.tone, wrap(&headline.text).trim_end()));
    for sentence in waiting {
        text.push_str(&wrap(&format!("Configuration: {sentence}.")));
    }
    if !applications.is_empty() {
        text.push('\n');
        text.push_str(&app::table(applications, paint));
    }
    if !rollouts.is_empty() {
        text.push('\n');
        text.push_str(&rollout::table(rollouts, paint, now));
    }
    for rollout in rollouts {
        for waiting in &rollout.waiting {
            text.push_str(&wrap(&format!("  {}: {waiting}", rollout.application)));
        }
    }
    if !nodes.is_empty() {
        text.push('\n');
        text.push_str(&node::table(nodes, paint, now));
    }
    text
}

#[cfg(test)]
mod tests {
    use proto::overview::Headline;
    use proto::state::Tone;

    use super::*;
    use crate::cli::{app, node, rollout};

    #[test]
    fn the_fleet_fits_on_one_screen() {
        let fleet = Fleet {
            headline: Headline {
                tone: Tone::Moving,
                text: "1 application is being deployed, 1 needs you.".to_owned(),
                environment: "prod".to_owned(),
            },
            applications: vec![app::tests::healthy(), app::tests::failing()],
            nodes: vec![node::tests::summary()],
            rollouts: vec![rollout::tests::running()],
        };
        let waiting = ["port waits for a restart of the control plane".to_owned()];
        insta::assert_snapshot!(render(&fleet, &waiting, Paint { on: false }, Timestamp(200_000)));
    }

    #[test]
    fn an_empty_fleet_is_one_sentence() {
        let text = "Nothing is configured yet.".to_owned();
        let headline = Headline { tone: Tone::Off, text, environment: "local".to_owned() };
        let fleet = Fleet { headline, applications: vec![], nodes: vec![], rollouts: vec![] };
        assert_eq!(render(&fleet, &[], Paint { on: false }, Timestamp(0)), "○ Nothing is configured yet.\n");
    }
}
