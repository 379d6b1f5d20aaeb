//! The last hour of a replica's VM, drawn.

use proto::metrics::{VmBound, VmHistory, VmPoint};
use yew::{Html, Properties, component, html, use_memo};

use crate::components::chart::shape::Unit;
use crate::components::chart::{Chart, Figure, Limit, Series};
use crate::components::notice::Empty;
use crate::format;
use crate::shared::Shared;

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    pub(super) history: Shared<VmHistory>,
}

#[component]
pub(super) fn VmCharts(props: &Props) -> Html {
    let figures = use_memo(props.history.clone(), |history| {
        figures(history).into_iter().map(Shared::new).collect::<Vec<_>>()
    });
    if props.history.points.is_empty() {
        return html! { <Empty title="Memory, processes, ports, atoms, ETS tables, schedulers and I/O appear here once its agent is connected to its Erlang node; it looks every two seconds." /> };
    }
    html! { <div class="charts">{ for figures.iter().map(|it| html! { <Chart figure={it.clone()} /> }) }</div> }
}

type Line = (&'static str, fn(&VmPoint) -> Option<f64>);

#[expect(clippy::cast_precision_loss, reason = "sizes for a chart")]
fn figures(history: &VmHistory) -> Vec<Figure> {
    let VmHistory { points, bounds, every_ms, .. } = history;
    let figure = |title, unit, lines: &[Line]| {
        let times = points.iter().map(|it| it.at).collect();
        let series =
            lines.iter().map(|(name, value)| Series { name, values: points.iter().map(value).collect() });
        Figure { series: series.collect(), ..Figure::of_the_hour(title, unit, times, *every_ms) }
    };
    let bounded = |title, unit, value: fn(&VmPoint) -> Option<f64>, bound: Option<VmBound>| {
        let mut figure = figure(title, unit, &[("now", value)]);
        if let (Some(bound), Some(newest)) = (bound, points.last().and_then(value)) {
            figure.note = Some(share(newest, bound.limit, unit));
            figure.limits = Limit::thresholds(bound.limit, bound.warning_percent, bound.restart_percent);
        }
        figure
    };
    let mut schedulers =
        figure("Schedulers", Unit::Percent, &[("in use", |it| it.schedulers.map(f64::from))]);
    schedulers.ceiling = Some(100.0);
    vec![
        bounded("VM memory", Unit::Bytes, |it| Some(it.memory as f64), bounds.memory),
        figure(
            "Memory by kind",
            Unit::Bytes,
            &[
                ("processes", |it| Some(it.memory_processes as f64)),
                ("binary", |it| Some(it.memory_binary as f64)),
                ("ETS", |it| Some(it.memory_ets as f64)),
                ("code", |it| Some(it.memory_code as f64)),
                ("atom", |it| Some(it.memory_atom as f64)),
            ],
        ),
        bounded("Processes", Unit::Count, |it| Some(it.processes.into()), bounds.processes),
        bounded("Ports", Unit::Count, |it| Some(it.ports.into()), bounds.ports),
        bounded("Atoms", Unit::Count, |it| Some(it.atoms.into()), bounds.atoms),
        bounded("ETS tables", Unit::Count, |it| Some(it.ets_tables.into()), bounds.ets_tables),
        schedulers,
        figure(
            "Run queue",
            Unit::Count,
            &[("all", |it| Some(it.run_queue.into())), ("longest", |it| Some(it.longest_run_queue.into()))],
        ),
        figure("Reductions", Unit::CountPerSecond, &[("", |it| Some(it.reductions.into()))]),
        figure("Garbage collections", Unit::CountPerSecond, &[("", |it| Some(it.collections.into()))]),
        figure("Reclaimed by them", Unit::BytesPerSecond, &[("", |it| Some(it.reclaimed.into()))]),
        figure(
            "I/O",
            Unit::BytesPerSecond,
            &[("in", |it| Some(it.input.into())), ("out", |it| Some(it.output.into()))],
        ),
    ]
}

/// `6 % of 1,024`.
#[expect(clippy::cast_precision_loss, reason = "a share in words")]
fn share(value: f64, limit: u64, unit: Unit) -> String {
    let (limit, percent) = (limit as f64, value * 100.0 / limit as f64);
    let said =
        if percent > 0.0 && percent < 0.1 { "under 0.1 %".to_owned() } else { format::percent(percent) };
    format!("{said} of {}", unit.text(limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn figure(history: &VmHistory, title: &str) -> Figure {
        figures(history).into_iter().find(|it| it.title == title).unwrap()
    }

    #[test]
    fn what_is_watched_is_drawn_with_its_thresholds_and_its_share() {
        let history = sample::vm_history();
        let names = |it: &Figure| it.limits.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
        let processes = figure(&history, "Processes");
        assert_eq!(names(&processes), ["warns 20 %", "restarts 40 %"]);
        assert!((processes.limits[0].value - 204.8).abs() < 0.01);
        assert_eq!(processes.note.as_deref(), Some("30 % of 1,024"));
        // Not watched, and not known.
        let atoms = figure(&history, "Atoms");
        assert_eq!((names(&atoms).len(), atoms.note.as_deref()), (0, Some("0.9 % of 1,048,576")));
        let ports = figure(&history, "Ports");
        assert_eq!((names(&ports).len(), ports.note), (0, None));
    }

    #[test]
    fn every_line_has_a_value_or_none_for_each_moment() {
        let history = sample::vm_history();
        for figure in figures(&history) {
            assert!(figure.series.iter().all(|it| it.values.len() == history.points.len()), "{figure:?}");
            assert!((figure.end.0 - figure.start.0, figure.gap) == (3_600_000, 5_000));
        }
        assert_eq!(figure(&history, "Memory by kind").series.len(), 5);
    }

    #[test]
    fn a_share_says_something_however_small_it_is() {
        for (value, limit, text) in [
            (0.0, 1_024, "0 % of 1,024"),
            (61.0, 262_144, "under 0.1 % of 262,144"),
            (307.0, 1_024, "30 % of 1,024"),
            (2_000.0, 1_024, "195 % of 1,024"),
        ] {
            assert_eq!(share(value, limit, Unit::Count), text);
        }
        assert_eq!(share(1_048_576.0 * 512.0, 1 << 30, Unit::Bytes), "50 % of 1.0 GiB");
    }
}
