//! The last hour of a replica's VM, drawn.

use proto::live::Topic;
use proto::metrics::{KEPT_MS, VmHistory, VmPoint};
use proto::replicas::{Replica, VmLimits};
use proto::state::Tone;
use proto::timestamp::Timestamp;
use yew::{Html, Properties, component, html, use_memo};

use crate::components::chart::shape::Unit;
use crate::components::chart::{Chart, Figure, Limit, Series};
use crate::components::notice::Empty;
use crate::live::{use_store, use_topic};
use crate::shared::Shared;

type Line = (&'static str, fn(&VmPoint) -> Option<f64>);

/// A chart: its lines, and of what is limited how much there may be.
struct Drawing(&'static str, Unit, &'static [Line], fn(&VmLimits) -> u64);

#[expect(clippy::cast_precision_loss, reason = "sizes for a chart")]
const DRAWINGS: [Drawing; 9] = [
    Drawing(
        "Memory",
        Unit::Bytes,
        &[
            ("all", |it| Some(it.memory as f64)),
            ("processes", |it| Some(it.memory_processes as f64)),
            ("binaries", |it| Some(it.memory_binary as f64)),
        ],
        |_| 0,
    ),
    Drawing("Schedulers", Unit::Percent, &[("busy", |it| it.schedulers.map(f64::from))], |_| 0),
    Drawing(
        "Run queues",
        Unit::Count,
        &[("all", |it| Some(it.run_queue.into())), ("longest", |it| Some(it.longest_run_queue.into()))],
        |_| 0,
    ),
    Drawing("Processes", Unit::Count, &[("there are", |it| Some(it.processes.into()))], |it| it.processes),
    Drawing("Atoms", Unit::Count, &[("there are", |it| Some(it.atoms.into()))], |it| it.atoms),
    Drawing("Ports", Unit::Count, &[("there are", |it| Some(it.ports.into()))], |it| it.ports),
    Drawing("Reductions per second", Unit::Count, &[("done", |it| Some(it.reductions.into()))], |_| 0),
    Drawing("Garbage", Unit::BytesPerSecond, &[("collected", |it| Some(it.reclaimed.into()))], |_| 0),
    Drawing(
        "Input and output",
        Unit::BytesPerSecond,
        &[("in", |it| Some(it.input.into())), ("out", |it| Some(it.output.into()))],
        |_| 0,
    ),
];

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    pub(super) replica: Shared<Replica>,
}

#[component]
pub(super) fn VmCharts(props: &Props) -> Html {
    let it = &props.replica;
    let (application, node, slot) = (it.application.clone(), it.node.clone(), it.slot);
    let topic = Topic::VmHistory { application, node, slot };
    use_topic(topic.clone());
    let look = use_store().vm_history(&topic);
    let limits = it.vm.as_ref().and_then(|it| it.limits).unwrap_or_default();
    let drawn = use_memo((look.value().cloned(), limits), |(history, limits)| {
        let history = history.as_ref().filter(|it| !it.points.is_empty());
        history.map(|it| figures(it, limits).into_iter().map(Shared::new).collect::<Vec<_>>())
    });
    match &*drawn {
        Some(figures) => {
            html! { <div class="charts">{ for figures.iter().map(|it| html! { <Chart figure={it.clone()} /> }) }</div> }
        }
        None => {
            html! { <Empty title="Its figures appear here once the agent is connected to its Erlang node." /> }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts for a chart")]
fn figures(history: &VmHistory, limits: &VmLimits) -> Vec<Figure> {
    let points = &history.points;
    let end = points.last().map_or(Timestamp(0), |it| it.at);
    let figure = |Drawing(title, unit, lines, limit): Drawing| {
        let line = |(name, value): &Line| Series { name, values: points.iter().map(value).collect() };
        let limit = Some(limit(limits)).filter(|it| *it > 0);
        let limit =
            limit.map(|it| Limit { value: it as f64, name: format!("at most {it}"), tone: Tone::Bad });
        Figure {
            title,
            unit,
            times: points.iter().map(|it| it.at).collect(),
            series: lines.iter().map(line).collect(),
            faint: Vec::new(),
            limits: limit.into_iter().collect(),
            ceiling: Some(100.0).filter(|_| unit == Unit::Percent),
            start: Timestamp(end.0.saturating_sub(KEPT_MS)),
            end,
            gap: history.every_ms * 5 / 2,
        }
    };
    DRAWINGS.into_iter().map(figure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_of_a_vm_is_drawn_and_what_is_limited_says_how_much_there_may_be() {
        let point = |at| VmPoint { at: Timestamp(at), atoms: 9_600, memory: 90 << 20, ..VmPoint::default() };
        let history = VmHistory {
            node: "web-1".parse().unwrap(),
            application: "shop".parse().unwrap(),
            slot: "1".parse().unwrap(),
            since: None,
            every_ms: 2_000,
            points: vec![point(2_000), point(4_000)],
        };
        let limits = VmLimits { processes: 262_144, ports: 65_536, atoms: 1_048_576, ..VmLimits::default() };
        let drawn = figures(&history, &limits);
        assert!(drawn.iter().all(|it| it.series.iter().all(|line| line.values.len() == it.times.len())));
        let limited: Vec<_> = drawn.iter().filter(|it| !it.limits.is_empty()).map(|it| it.title).collect();
        assert_eq!(limited, ["Processes", "Atoms", "Ports"]);
        assert_eq!(drawn[4].limits[0].name, "at most 1048576");
        assert_eq!(drawn[4].series[0].values, [Some(9_600.0); 2]);
        assert!(figures(&history, &VmLimits::default()).iter().all(|it| it.limits.is_empty()));
    }
}
