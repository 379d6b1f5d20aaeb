//! `deployex app telemetry`: what an application's replicas have counted of its events, all of them together.

use std::collections::BTreeMap;

use proto::apps::Application;
use proto::ids::AppName;
use proto::telemetry::{ReplicaTelemetry, TelemetryRow, Took};

use super::super::CliError;
use super::super::client::Client;
use super::super::output::{Out, Table, one_line, place, wrap};

pub(super) async fn run(application: &AppName, client: &Client, out: &mut Out) -> Result<(), CliError> {
    let app: Application = client.get(&format!("/applications/{application}")).await?;
    let mut replicas: Vec<ReplicaTelemetry> = Vec::new();
    for slot in &app.slots {
        let of = format!("/replicas/{}/{application}/{}/telemetry", slot.node, slot.slot);
        // One that has gone since the list was made has nothing to say.
        replicas.extend(client.find(&of).await?);
    }
    out.show(&replicas, |replicas| render(application, replicas))
}

/// As one event with one label, of all replicas.
#[derive(Default)]
struct Line {
    count: u64,
    per_second: f64,
    took: Option<Took>,
}

impl Line {
    fn absorb(&mut self, row: &TelemetryRow) {
        self.count = self.count.saturating_add(row.count);
        self.per_second += row.per_second;
        if let Some(took) = &row.took {
            self.took.get_or_insert_default().absorb(took);
        }
    }
}

fn render(application: &AppName, replicas: &[ReplicaTelemetry]) -> String {
    if replicas.is_empty() {
        return wrap(&format!("{application} has no replicas."));
    }
    if replicas.iter().all(|it| it.events.is_empty()) {
        return wrap(&format!(
            "No event of {application} is counted: name some under telemetry.events of the application, such as phoenix, ecto or vm."
        ));
    }
    let mut lines: BTreeMap<(String, String), Line> = BTreeMap::new();
    for row in replicas.iter().flat_map(|it| &it.rows) {
        lines.entry((row.event.clone(), label(row))).or_default().absorb(row);
    }
    let mut text = String::new();
    if !lines.is_empty() {
        text.push_str(&table(&lines));
    }
    let values: usize = replicas.iter().map(|it| it.values.len()).sum();
    if values > 0 {
        text.push_str(&wrap(&format!("{values} last values are in `--json` and at /metrics.")));
    }
    for replica in replicas {
        let at = place(&replica.node, replica.slot);
        if let Some(fault) = &replica.fault {
            text.push_str(&wrap(&format!("{at}: {}", one_line(fault))));
        } else if replica.read_at.is_none() {
            text.push_str(&wrap(&format!("{at}: nothing was read of it lately")));
        }
        if !replica.unknown.is_empty() {
            let unknown = one_line(&replica.unknown.join(", "));
            text.push_str(&wrap(&format!("{at}: no code there names {unknown}")));
        }
        if replica.failures > 0 {
            text.push_str(&wrap(&format!("{at}: nothing could be made of {} events", replica.failures)));
        }
    }
    if text.is_empty() {
        text.push_str(&wrap("Nothing was counted yet."));
    }
    text
}

fn table(lines: &BTreeMap<(String, String), Line>) -> String {
    let mut table = Table::new(&["EVENT", "LABEL", "COUNT", "PER SECOND", "MEAN", "P95", "MAX"]);
    for ((event, label), line) in lines {
        let took = |of: fn(&Took) -> f64| line.took.as_ref().map_or("-".to_owned(), |it| time(of(it)));
        table.row(vec![
            one_line(event).into(),
            if label.is_empty() { "-".to_owned() } else { one_line(label) }.into(),
            line.count.into(),
            format!("{:.1}", line.per_second).into(),
            took(Took::mean_us).into(),
            took(|it| it.percentile_us(95.0)).into(),
            took(longest).into(),
        ]);
    }
    table.render()
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn longest(took: &Took) -> f64 {
    took.max_us as f64
}

fn label(row: &TelemetryRow) -> String {
    let parts = [&row.route, &row.source, &row.status];
    parts.into_iter().flatten().cloned().collect::<Vec<_>>().join(" ")
}

fn time(us: f64) -> String {
    match us {
        us if us >= 1_000_000.0 => format!("{:.2} s", us / 1_000_000.0),
        us if us >= 1_000.0 => format!("{:.1} ms", us / 1_000.0),
        us => format!("{us:.0} µs"),
    }
}

#[cfg(test)]
mod tests {
    use proto::telemetry::{BOUNDS_US, TelemetryValue};
    use proto::timestamp::Timestamp;

    use super::*;

    fn replica(slot: &str) -> ReplicaTelemetry {
        ReplicaTelemetry {
            node: "web-1".parse().unwrap(),
            application: "shop".parse().unwrap(),
            slot: slot.parse().unwrap(),
            events: vec!["phoenix".to_owned()],
            read_at: Some(Timestamp(1)),
            since: Some(Timestamp(1)),
            fault: None,
            unknown: Vec::new(),
            failures: 0,
            rows: Vec::new(),
            values: Vec::new(),
        }
    }

    fn row(route: &str, count: u64, max_us: u64) -> TelemetryRow {
        let mut buckets = vec![0; BOUNDS_US.len() + 1];
        buckets[1] = count;
        TelemetryRow {
            event: "phoenix.router_dispatch.stop".to_owned(),
            route: Some(route.to_owned()),
            source: None,
            status: Some("2xx".to_owned()),
            count,
            per_second: 1.25,
            took: Some(Took { sum_us: count * 2_000, max_us, buckets }),
        }
    }

    #[test]
    fn replicas_are_told_of_together_and_what_is_wrong_with_each() {
        let mut first = replica("1");
        first.rows = vec![row("/users/:id", 40, 4_500), row("/", 1, 1_200_000)];
        let mut second = replica("2");
        second.rows = vec![row("/users/:id", 60, 4_900)];
        let plain = TelemetryRow { event: "vm.memory".to_owned(), count: 3, ..TelemetryRow::default() };
        second.rows.push(plain);
        second.values = vec![TelemetryValue::default(); 4];
        second.unknown = vec!["shop.nothing".to_owned()];
        second.failures = 7;
        let fault = Some("telemetry is not in this release".to_owned());
        let third = ReplicaTelemetry { fault, ..replica("3") };
        let fourth = ReplicaTelemetry { read_at: None, ..replica("4") };
        let app = "shop".parse().unwrap();
        insta::assert_snapshot!(render(&app, &[first, second, third, fourth]));
    }

    #[test]
    fn where_it_is_off_it_is_said_how_to_turn_it_on() {
        let off = ReplicaTelemetry { events: Vec::new(), ..replica("1") };
        let app = "shop".parse().unwrap();
        assert!(render(&app, &[off]).contains("telemetry.events"));
        assert_eq!(render(&app, &[replica("1")]), "Nothing was counted yet.\n");
    }
}
