//! `deployex scale`: another number of replicas.

use std::num::NonZeroU16;

use clap::Args;
use proto::apps::Scale as Wish;
use proto::configuration::{Applied, Configuration, FileState};
use proto::ids::AppName;

use super::CliError;
use super::client::Client;
use super::output::{Out, note};

/// Change how many replicas an application has: on each node, or of its spread.
///
/// The number is written into the configuration in force, as a new version of it; the watched file stays as it is, and is said
/// to be overridden until it says the same.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  deployex scale myapp 4")]
pub(super) struct Scale {
    /// The application's name.
    application: AppName,
    /// Replicas: over all nodes where the application is spread, else on each node.
    count: NonZeroU16,
}

impl Scale {
    pub(super) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let path = format!("/applications/{}/scale", self.application);
        let applied: Applied = client.post(&path, &Wish { count: self.count }).await?;
        out.show(&applied, |applied| format!("{}\n", applied.sentence))?;
        // It is done, whether or not the file can be asked about.
        let shown = client.get::<Configuration>("/configuration").await.ok();
        let says_otherwise =
            |state: &FileState| matches!(state, FileState::Pending { .. } | FileState::Overridden { .. });
        if let Some(file) = shown.and_then(|it| it.file).filter(|it| says_otherwise(&it.state)) {
            note(&format!("{} says otherwise: whoever applies it takes this back", file.path));
        }
        Ok(())
    }
}
