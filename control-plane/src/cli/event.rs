//! `deployex event …`: what changed, oldest first, so that the newest stands above the prompt.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Subcommand;
use proto::events::Event as EventView;
use proto::ids::{AppName, EventId, NodeName};
use proto::page::Page;
use proto::state::{Severity, Tone};
use proto::timestamp::Timestamp;

use super::CliError;
use super::client::Client;
use super::output::{Out, Paint, one_line, place};

/// Between two looks while following.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Fewer are shown twice or missed by a look that begins a little before the last one ended.
const OVERLAP_MILLIS: u64 = 5_000;

#[derive(Debug, Subcommand)]
pub(super) enum Event {
    /// List what happened.
    #[command(after_help = "Example:\n  deployex event list --app myapp -f")]
    List {
        /// Of this application alone.
        #[arg(long, value_name = "NAME")]
        app: Option<AppName>,
        /// Of this node alone.
        #[arg(long, value_name = "NAME")]
        node: Option<NodeName>,
        /// How many.
        #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
        /// Go on as they come.
        #[arg(short, long)]
        follow: bool,
    },
}

impl Event {
    pub(super) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let Self::List { app, node, limit, follow } = self;
        let of_app = app.as_ref().map(|app| format!("&app={app}")).unwrap_or_default();
        let of_node = node.as_ref().map(|node| format!("&node={node}")).unwrap_or_default();
        let path = format!("/events?limit={limit}{of_app}{of_node}");
        let page: Page<EventView> = client.get(&path).await?;
        if page.items.is_empty() {
            client.must_know(app.as_ref(), node.as_ref()).await?;
        }
        let mut events = page.items;
        events.reverse();
        let paint = out.paint;
        if !follow {
            return out.show(&events, |events| match events.is_empty() {
                true => "Nothing has happened yet.\n".to_owned(),
                false => events.iter().map(|event| line(event, paint)).collect(),
            });
        }
        let mut seen = Seen::default();
        loop {
            for event in events.iter().filter(|event| seen.is_new(event)) {
                out.show_line(event, |event| line(event, paint))?;
            }
            tokio::time::sleep(LOOK_EVERY).await;
            let since = seen.look_from();
            let found: Vec<EventView> =
                client.get_all(&format!("/events?since={since}{of_app}{of_node}")).await?;
            events = found.into_iter().rev().collect();
        }
    }
}

/// Which events were shown, of those that a next look could bring again.
#[derive(Default)]
struct Seen {
    newest: Timestamp,
    recent: BTreeSet<(Timestamp, EventId)>,
}

impl Seen {
    fn is_new(&mut self, event: &EventView) -> bool {
        self.newest = self.newest.max(event.at);
        let from = self.look_from();
        self.recent.retain(|(at, _)| *at >= from);
        self.recent.insert((event.at, event.id))
    }

    fn look_from(&self) -> Timestamp {
        Timestamp(self.newest.0.saturating_sub(OVERLAP_MILLIS))
    }
}

fn line(event: &EventView, paint: Paint) -> String {
    let (tone, word) = match event.severity {
        Severity::Info => (Tone::Off, "info"),
        Severity::Warning => (Tone::Waiting, "warning"),
        Severity::Error => (Tone::Bad, "error"),
    };
    let subject = match (&event.application, &event.node, event.slot) {
        (Some(app), Some(node), Some(slot)) => format!("{app} {}: ", place(node, slot)),
        (Some(app), _, _) => format!("{app}: "),
        (None, Some(node), _) => format!("{node}: "),
        (None, None, _) => String::new(),
    };
    let by = event.by.as_ref().map(|by| format!(" (by {by})")).unwrap_or_default();
    let severity = paint.state(tone, format!("{word:7}")).painted();
    // Not cut at 100 columns: it is a line of a log, and what was cut could not be asked for elsewhere.
    format!("{}  {severity}  {}\n", event.at, one_line(&format!("{subject}{}{by}", event.text)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn event(at: u64, id: u128) -> EventView {
        EventView {
            id: EventId(uuid::Uuid::from_u128(id)),
            at: Timestamp(at),
            severity: Severity::Warning,
            kind: "crash_restart".to_owned(),
            text: "crashed with signal 9 (SIGKILL)".to_owned(),
            application: Some("myapp".parse().unwrap()),
            node: Some("web-1".parse().unwrap()),
            slot: Some("2".parse().unwrap()),
            rollout: None,
            by: None,
            data: BTreeMap::new(),
        }
    }

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(
            line(&event(0, 1), Paint { on: false }),
            "1970-01-01T00:00:00.000Z  ◷ warning  myapp web-1/2: crashed with signal 9 (SIGKILL)\n"
        );
    }

    #[test]
    fn following_shows_each_event_once_and_forgets_old_ones() {
        let mut seen = Seen::default();
        assert!(seen.is_new(&event(10_000, 1)) && seen.is_new(&event(10_000, 2)));
        assert!(!seen.is_new(&event(10_000, 1)));
        assert!(seen.is_new(&event(9_000, 3)));
        assert!(seen.is_new(&event(60_000, 4)));
        assert_eq!(seen.recent.len(), 1);
    }
}
