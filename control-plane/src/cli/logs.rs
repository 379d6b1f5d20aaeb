//! `deployex logs`: the output of one replica, from its host, as it comes.

use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _};
use proto::ids::{AppName, NodeName, Slot};
use proto::replicas::{LogLine, LogStream, Replica};
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;

use super::CliError;
use super::client::Client;
use super::output::{Out, pass_on_error};

/// Of one JSON line; a log line itself is cut well below by the control plane.
const LONGEST_LINE: usize = 1 << 20;

/// Print the output of a replica.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  deployex logs myapp --slot 1 -f")]
pub(super) struct Logs {
    /// The application's name.
    application: AppName,
    /// The replica's slot.
    #[arg(long, value_name = "K")]
    slot: Slot,
    /// Its node, where more than one has that slot.
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// Standard output, standard error or both.
    #[arg(long, value_enum, default_value_t = Stream::Both)]
    stream: Stream,
    /// How many lines from before now.
    #[arg(short = 'n', long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    lines: u32,
    /// Go on as they come.
    #[arg(short, long)]
    follow: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Stream {
    Both,
    Stdout,
    Stderr,
}

impl Logs {
    pub(super) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let Self { application, slot, lines, follow, .. } = &self;
        let node = match &self.node {
            Some(node) => node.clone(),
            None => {
                let path = format!("/replicas?app={application}");
                the_node(&client.get_all::<Replica>(&path).await?, application, *slot)?
            }
        };
        let stream = match self.stream {
            Stream::Both => "both",
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        let path = format!(
            "/replicas/{node}/{application}/{slot}/logs?lines={lines}&follow={follow}&stream={stream}"
        );
        let body = client.stream(&path).await?.bytes_stream().map_err(std::io::Error::other);
        let codec = LinesCodec::new_with_max_length(LONGEST_LINE);
        let mut lines = FramedRead::new(StreamReader::new(Box::pin(body)), codec);
        while let Some(line) = lines.next().await {
            let line = line.map_err(|error| client.unreadable(error))?;
            // Nothing came for a while, and it goes on.
            if line.is_empty() {
                continue;
            }
            let line: LogLine = serde_json::from_str(&line).map_err(|error| client.unreadable(error))?;
            match &line {
                LogLine::Line { stream: LogStream::Stderr, text } if !out.json() => pass_on_error(text)?,
                LogLine::Line { text, .. } => out.show_line(&line, |_| format!("{text}\n"))?,
                LogLine::Ended { reason } => return Err(CliError::Refused(reason.clone())),
            }
        }
        Ok(())
    }
}

fn the_node(replicas: &[Replica], application: &AppName, slot: Slot) -> Result<NodeName, CliError> {
    let nodes: Vec<&NodeName> =
        replicas.iter().filter(|replica| replica.slot == slot).map(|replica| &replica.node).collect();
    match nodes.as_slice() {
        [node] => Ok((*node).clone()),
        [] => Err(CliError::Refused(format!(
            "no node has slot {slot} of {application}; what it printed where it was withdrawn is read with --node"
        ))),
        many => {
            let names: Vec<&str> = many.iter().take(10).map(|node| node.as_str()).collect();
            let message = format!(
                "slot {slot} of {application} is on {} nodes: add --node, one of {}",
                many.len(),
                names.join(", ")
            );
            Err(CliError::WrongUse(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::app::tests::replica;
    use super::*;

    #[test]
    fn the_node_need_not_be_named_where_there_is_one() {
        let (app, slot) = ("myapp".parse().unwrap(), "1".parse().unwrap());
        let one = replica();
        let mut other = replica();
        other.node = "web-2".parse().unwrap();
        assert_eq!(the_node(std::slice::from_ref(&one), &app, slot).unwrap().as_str(), "web-1");
        assert_eq!(the_node(&[], &app, slot).unwrap_err().status(), 1);
        let error = the_node(&[one, other], &app, slot).unwrap_err();
        assert_eq!(error.status(), 2);
        assert!(error.to_string().contains("web-1, web-2"));
    }
}
