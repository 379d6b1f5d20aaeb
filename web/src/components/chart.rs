//! How figures went over the last hour: lines with their scale, the limits that they are watched for, and what each was at
//! the moment that is pointed at. Drawn as SVG, so that its colours are those of the page.

pub mod shape;

use proto::metrics::KEPT_MS;
use proto::state::Tone;
use proto::timestamp::Timestamp;
use yew::{
    AttrValue, Callback, Html, KeyboardEvent, MouseEvent, Properties, component, html, use_memo,
    use_node_ref, use_state_eq,
};

use crate::clock::zone_minutes;
use crate::format;
use crate::shared::Shared;
use shape::{Frame, HEIGHT, Unit, WIDTH, area, in_words, line, nearest};

/// More lines than these are one band from the lowest to the highest.
const MOST_FAINT: usize = 16;

/// What is drawn of the hour while only the end of it is known.
const SPANS_MS: [u64; 3] = [KEPT_MS / 12, KEPT_MS / 4, KEPT_MS];

/// All that one chart shows.
#[derive(Debug)]
pub struct Figure {
    pub title: &'static str,
    pub unit: Unit,
    pub times: Vec<Timestamp>,
    pub series: Vec<Series>,
    /// In the background: each core.
    pub faint: Vec<Vec<Option<f64>>>,
    pub limits: Vec<Limit>,
    /// In a few words, beside its lines' names: how much of what there may be.
    pub note: Option<String>,
    /// Where the scale ends; absent: above the highest value.
    pub ceiling: Option<f64>,
    pub start: Timestamp,
    pub end: Timestamp,
    /// Two points further apart are not connected, in milliseconds.
    pub gap: u64,
}

/// One line: a value for each of the times. `None`: it was not measured.
#[derive(Debug)]
pub struct Series {
    pub name: &'static str,
    pub values: Vec<Option<f64>>,
}

/// A line across.
#[derive(Debug)]
pub struct Limit {
    pub value: f64,
    pub name: String,
    pub tone: Tone,
}

impl Limit {
    /// The shares of a whole at which somebody is warned and a replica restarted.
    #[expect(clippy::cast_precision_loss, reason = "sizes for a chart")]
    pub fn thresholds(whole: u64, warning: Option<u32>, restart: Option<u32>) -> Vec<Self> {
        let limit = |percent: u32, what: &str, tone| Self {
            value: whole as f64 * f64::from(percent) / 100.0,
            name: format!("{what} {percent} %"),
            tone,
        };
        let warning = warning.map(|percent| limit(percent, "warns", Tone::Waiting));
        let restart = restart.map(|percent| limit(percent, "restarts", Tone::Bad));
        warning.into_iter().chain(restart).collect()
    }
}

impl Figure {
    /// Of the hour that ends with the last of the times, or of as much of it as is known, between which lie so many milliseconds where none is missing.
    pub fn of_the_hour(title: &'static str, unit: Unit, times: Vec<Timestamp>, every_ms: u64) -> Self {
        let end = times.last().copied().unwrap_or_default();
        let known = times.first().map_or(0, |first| end.0.saturating_sub(first.0));
        let span = SPANS_MS.into_iter().find(|span| *span >= known).unwrap_or(KEPT_MS);
        Self {
            title,
            unit,
            times,
            series: Vec::new(),
            faint: Vec::new(),
            limits: Vec::new(),
            note: None,
            ceiling: None,
            start: Timestamp(end.0.saturating_sub(span)),
            end,
            gap: every_ms * 5 / 2,
        }
    }

    fn frame(&self) -> Frame {
        let values = self.series.iter().flat_map(|it| it.values.iter().copied().flatten());
        let ceiling = self.ceiling.unwrap_or_else(|| self.unit.ceiling(values.fold(0.0, f64::max)));
        Frame { start: self.start, end: self.end, ceiling, gap: self.gap }
    }

    /// For those who do not see it.
    fn in_words(&self) -> String {
        let series = self.series.iter().map(|it| format!("{}: {}", it.name, in_words(self.unit, &it.values)));
        let limits = self.limits.iter().map(|it| it.name.clone());
        series.chain(self.note.clone()).chain(limits).collect::<Vec<_>>().join("; ")
    }
}

#[derive(Properties, PartialEq)]
pub struct Props {
    pub figure: Shared<Figure>,
}

#[component]
pub fn Chart(props: &Props) -> Html {
    let figure = &props.figure;
    let plot = use_node_ref();
    let pointed = use_state_eq(|| None::<usize>);
    let drawn = use_memo(figure.clone(), |figure| draw(figure));
    let frame = figure.frame();
    // What was pointed at may have been forgotten since.
    let at = (*pointed).filter(|at| *at < figure.times.len());

    let onmousemove = {
        let (figure, pointed, plot) = (figure.clone(), pointed.clone(), plot.clone());
        Callback::from(move |event: MouseEvent| {
            let Some(place) = plot.cast::<web_sys::Element>().map(|it| it.get_bounding_client_rect()) else {
                return;
            };
            let share = (f64::from(event.client_x()) - place.left()) / place.width().max(1.0);
            pointed.set(nearest(&figure.times, figure.frame().at(share), figure.gap));
        })
    };
    let leave = {
        let pointed = pointed.setter();
        move || pointed.set(None)
    };
    let onmouseleave = Callback::from({
        let leave = leave.clone();
        move |_: MouseEvent| leave()
    });
    let onblur = Callback::from(move |_: yew::FocusEvent| leave());
    let onkeydown = {
        let (last, pointed) = (figure.times.len().checked_sub(1), pointed);
        Callback::from(move |event: KeyboardEvent| {
            let next = match (event.key().as_str(), *pointed, last) {
                ("ArrowLeft", at, Some(last)) => Some(at.map_or(last, |at| at.saturating_sub(1))),
                ("ArrowRight", Some(at), Some(last)) => Some((at + 1).min(last)),
                ("Escape", Some(_), _) => None,
                _ => return,
            };
            event.prevent_default();
            pointed.set(next);
        })
    };
    let said = figure.in_words();
    let limits: Vec<&Limit> = figure.limits.iter().filter(|it| it.value <= frame.ceiling).collect();
    html! {
        <figure class="chart" data-chart={figure.title}>
            <figcaption>
                <strong>{ figure.title }</strong>
                { for figure.series.iter().enumerate().map(|(number, series)| legend(figure, number, series, at)) }
                if let Some(note) = &figure.note { <span class="dim" data-note=true>{ note }</span> }
                <span class="when">{ at.map(|at| time(figure.times[at])).unwrap_or_default() }</span>
            </figcaption>
            <div class="plot" ref={plot} tabindex="0" role="img" aria-label={format!("{}. {said}", figure.title)} {onmousemove} {onmouseleave} {onblur} {onkeydown}>
                <svg viewBox={format!("0 0 {WIDTH} {HEIGHT}")} preserveAspectRatio="none" aria-hidden="true">
                    { for [0.25, 0.5, 0.75].into_iter().map(|share| across("grid", HEIGHT * share)) }
                    { (*drawn).clone() }
                    { for limits.iter().map(|limit| html! {
                        <g data-tone={limit.tone.word()}>{ across("limit", frame.y(limit.value)) }</g>
                    }) }
                    if let Some(x) = at.map(|at| frame.x(figure.times[at])) {
                        <line class="pointer" x1={x.to_string()} x2={x.to_string()} y1="0" y2={HEIGHT.to_string()} />
                    }
                </svg>
                <span class="scale" style="top:0">{ figure.unit.text(frame.ceiling) }</span>
                <span class="scale" style="top:50%">{ figure.unit.text(frame.ceiling / 2.0) }</span>
                { for limits.iter().map(|limit| html! {
                    <span class="limit-name" data-tone={limit.tone.word()} style={format!("top:{:.1}%", 100.0 * frame.y(limit.value) / HEIGHT)}>{ &limit.name }</span>
                }) }
            </div>
            <p class="times" aria-hidden="true"><span>{ time(figure.start) }</span><span>{ time(figure.end) }</span></p>
        </figure>
    }
}

fn legend(figure: &Figure, number: usize, series: &Series, at: Option<usize>) -> Html {
    let value = match at {
        Some(at) => series.values.get(at).copied().flatten(),
        None => series.values.iter().rev().find_map(|it| *it),
    };
    let value: AttrValue = value.map_or_else(|| "–".into(), |it| figure.unit.text(it).into());
    html! {
        <span class="legend-item" data-series={number.to_string()}>
            <i aria-hidden="true" />
            if figure.series.len() > 1 { <span class="dim">{ series.name }</span> }
            <b>{ value }</b>
        </span>
    }
}

fn across(class: &'static str, y: f64) -> Html {
    let y = format!("{y:.1}");
    html! { <line {class} x1="0" x2={WIDTH.to_string()} y1={y.clone()} y2={y} /> }
}

fn draw(figure: &Figure) -> Html {
    let frame = figure.frame();
    let pieces = |values: &[Option<f64>]| frame.pieces(&figure.times, values);
    let faint = match figure.faint.len() {
        0..=MOST_FAINT => figure.faint.iter().map(|values| line(&pieces(values))).collect(),
        _ => [f64::min, f64::max].map(|which| line(&pieces(&outline(&figure.faint, which)))).to_vec(),
    };
    html! {
        <>
            { for figure.series.first().filter(|_| figure.faint.is_empty()).map(|first| html! { <path class="area" d={area(&pieces(&first.values))} /> }) }
            { for faint.into_iter().map(|d| html! { <path class="faint" {d} /> }) }
            { for figure.series.iter().enumerate().map(|(number, series)| html! {
                <path class="series" data-series={number.to_string()} d={line(&pieces(&series.values))} />
            }) }
        </>
    }
}

/// The lowest, or the highest, of all at each time.
fn outline(all: &[Vec<Option<f64>>], which: fn(f64, f64) -> f64) -> Vec<Option<f64>> {
    let length = all.iter().map(Vec::len).max().unwrap_or(0);
    (0..length).map(|at| all.iter().filter_map(|it| it.get(at).copied().flatten()).reduce(which)).collect()
}

/// `14:02:35`.
fn time(at: Timestamp) -> String {
    format::exact(at, zone_minutes()).get(11..19).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_hour_that_has_just_begun_the_last_minutes_are_drawn() {
        let minutes = |known: u64| {
            let times = vec![Timestamp(10_000_000 - known), Timestamp(10_000_000)];
            let figure = Figure::of_the_hour("", Unit::Plain, times, 2_000);
            (figure.end.0 - figure.start.0) / 60_000
        };
        assert_eq!([0, 300_000, 300_001, 900_001, KEPT_MS].map(minutes), [5, 5, 15, 60, 60]);
        assert_eq!(Figure::of_the_hour("", Unit::Plain, Vec::new(), 2_000).end, Timestamp(0));
    }

    #[test]
    fn very_many_cores_are_the_lowest_and_the_highest() {
        let all = vec![vec![Some(1.0), None, Some(9.0)], vec![Some(5.0), None], vec![None, None, Some(2.0)]];
        assert_eq!(outline(&all, f64::min), [Some(1.0), None, Some(2.0)]);
        assert_eq!(outline(&all, f64::max), [Some(5.0), None, Some(9.0)]);
    }
}
