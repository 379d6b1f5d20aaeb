//! The last hour of a host, drawn.

use proto::ids::NodeName;
use proto::live::Topic;
use proto::metrics::{HostHistory, HostPoint};
use proto::nodes::{HostLimit, HostUsage, Pressure};
use proto::state::Tone;
use yew::{Html, Properties, component, html, use_memo};

use crate::components::chart::shape::Unit;
use crate::components::chart::{Chart, Figure, Limit, Series};
use crate::components::notice::Empty;
use crate::live::{use_store, use_topic};
use crate::shared::Shared;

#[derive(Properties, PartialEq)]
pub struct Props {
    pub name: NodeName,
    pub usage: Option<HostUsage>,
    pub cpus: Option<u32>,
    pub limits: Vec<HostLimit>,
}

#[component]
pub fn HostCharts(props: &Props) -> Html {
    let Props { name, usage, cpus, limits } = props;
    use_topic(Topic::HostHistory { name: name.clone() });
    let store = use_store();
    let look = store.host_history(name);
    let wholes = Wholes {
        memory: usage.map_or(0, |it| it.memory_total_bytes),
        disk: usage.map_or(0, |it| it.disk_total_bytes),
        cpus: *cpus,
        limits: limits.iter().map(|it| (it.kind.clone(), it.warning_percent, it.restart_percent)).collect(),
    };
    html! {
        <section aria-label="The last hour">
            <header class="section-head"><h2>{ "The last hour" }</h2></header>
            if let Some(history) = look.value() {
                <Drawn history={history.clone()} {wholes} />
            }
        </section>
    }
}

/// What the lines are compared with; does not change with every sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wholes {
    pub memory: u64,
    pub disk: u64,
    pub cpus: Option<u32>,
    /// Of which figure, where it is warned of, where a replica is restarted.
    pub limits: Vec<(String, u32, Option<u32>)>,
}

#[derive(Properties, PartialEq)]
pub struct DrawnProps {
    pub history: Shared<HostHistory>,
    pub wholes: Wholes,
}

#[component]
pub fn Drawn(props: &DrawnProps) -> Html {
    let key = (props.history.clone(), props.wholes.clone());
    let figures = use_memo(key, |(history, wholes)| {
        figures(history, wholes).into_iter().map(Shared::new).collect::<Vec<_>>()
    });
    if props.history.points.is_empty() {
        return html! { <Empty title="CPU, memory, load, pressure, disk and network appear here once this node's agent has measured them; it does so every few seconds." /> };
    }
    html! { <div class="charts">{ for figures.iter().map(|it| html! { <Chart figure={it.clone()} /> }) }</div> }
}

#[expect(clippy::cast_precision_loss, reason = "sizes for a chart")]
fn figures(history: &HostHistory, wholes: &Wholes) -> Vec<Figure> {
    let points = &history.points;
    let figure = |title, unit, series: Vec<Series>| {
        let times = points.iter().map(|it| it.at).collect();
        Figure { series, ..Figure::of_the_hour(title, unit, times, history.every_ms) }
    };
    let one = |name, value: fn(&HostPoint) -> Option<f64>| Series {
        name,
        values: points.iter().map(value).collect(),
    };
    let mut cpu = figure("CPU", Unit::Percent, vec![one("all cores", |it| Some(it.cpu.into()))]);
    cpu.ceiling = Some(100.0);
    cpu.faint = cores(points);

    let mut memory = figure("Memory", Unit::Bytes, vec![one("used", |it| Some(it.memory_used as f64))]);
    if points.iter().any(|it| it.swap_used > 0) {
        memory.series.push(one("swap", |it| Some(it.swap_used as f64)));
    }
    memory.ceiling = Some(wholes.memory as f64).filter(|it| *it > 0.0);
    memory.limits = limits(wholes, "memory", wholes.memory);

    let mut load = figure("Load", Unit::Plain, vec![one("over a minute", |it| Some(it.load.into()))]);
    if let Some(cpus) = wholes.cpus {
        load.limits.push(Limit { value: f64::from(cpus), name: format!("{cpus} CPUs"), tone: Tone::Off });
    }

    let waits = |name, value: fn(&Pressure) -> f32| {
        let values = points.iter().map(|it| it.pressure.as_ref().map(|it| f64::from(value(it)))).collect();
        Series { name, values }
    };
    let pressure = figure(
        "Pressure",
        Unit::Percent,
        vec![
            waits("CPU", |it| it.cpu_some),
            waits("memory", |it| it.memory_some),
            waits("I/O", |it| it.io_some),
        ],
    );

    let mut disk = figure("Disk used", Unit::Bytes, vec![one("used", |it| Some(it.disk_used as f64))]);
    disk.ceiling = Some(wholes.disk as f64).filter(|it| *it > 0.0);
    disk.limits = limits(wholes, "disk", wholes.disk);

    let io = figure(
        "Disk",
        Unit::BytesPerSecond,
        vec![one("read", |it| Some(it.disk_read.into())), one("written", |it| Some(it.disk_write.into()))],
    );
    let network = figure(
        "Network",
        Unit::BytesPerSecond,
        vec![
            one("received", |it| Some(it.network_received.into())),
            one("sent", |it| Some(it.network_sent.into())),
        ],
    );
    vec![cpu, memory, load, pressure, disk, io, network]
}

/// Each core's line.
fn cores(points: &[HostPoint]) -> Vec<Vec<Option<f64>>> {
    let count = points.iter().map(|it| it.cores.len()).max().unwrap_or(0);
    let core = |core: usize| points.iter().map(|it| it.cores.get(core).map(|it| f64::from(*it))).collect();
    // One core alone is all of them.
    if count > 1 { (0..count).map(core).collect() } else { Vec::new() }
}

fn limits(wholes: &Wholes, kind: &str, whole: u64) -> Vec<Limit> {
    let limits = wholes.limits.iter().find(|it| it.0 == kind);
    limits.map_or_else(Vec::new, |(_, warning, restart)| Limit::thresholds(whole, Some(*warning), *restart))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn wholes() -> Wholes {
        Wholes {
            memory: 8 << 30,
            disk: 100 << 30,
            cpus: Some(4),
            limits: vec![("memory".to_owned(), 75, Some(90)), ("disk".to_owned(), 90, None)],
        }
    }

    #[test]
    fn every_figure_of_a_host_is_drawn_with_what_it_is_compared_with() {
        let drawn = figures(&sample::host_history(), &wholes());
        let titles: Vec<_> = drawn.iter().map(|it| it.title).collect();
        assert_eq!(titles, ["CPU", "Memory", "Load", "Pressure", "Disk used", "Disk", "Network"]);
        assert_eq!(drawn[0].faint.len(), 4);
        let limits = |at: usize| drawn[at].limits.iter().map(|it| it.name.as_str()).collect::<Vec<_>>();
        assert_eq!(
            (limits(1), limits(2), limits(4)),
            (vec!["warns 75 %", "restarts 90 %"], vec!["4 CPUs"], vec!["warns 90 %"])
        );
        assert!((drawn[1].limits[0].value - f64::from(6 << 10) * f64::from(1 << 20)).abs() < 1.0);
        assert!(drawn.iter().all(|it| it.series.iter().all(|line| line.values.len() == it.times.len())));
    }

    #[test]
    fn a_kernel_that_does_not_say_how_it_is_pressed_has_an_empty_line() {
        let mut history = sample::host_history();
        history.points.iter_mut().for_each(|it| it.pressure = None);
        assert!(
            figures(&history, &wholes())[3].series.iter().all(|it| it.values.iter().all(Option::is_none))
        );
    }
}
