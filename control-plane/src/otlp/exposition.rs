//! Prometheus' text form, as this program writes it itself, read line by line. Pure.
//!
//! Not a reader of everybody's: time stamps and exemplars are not written, and not read.

/// A line that says something.
#[derive(Debug, PartialEq)]
pub(super) enum Line<'a> {
    Help { name: &'a str, text: String },
    Type { name: &'a str, kind: &'a str },
    Sample(Sample<'a>),
}

#[derive(Debug, PartialEq)]
pub(super) struct Sample<'a> {
    pub name: &'a str,
    /// In their order.
    pub labels: Vec<(&'a str, String)>,
    pub value: f64,
}

/// `Ok(None)`: an empty line, or somebody's remark. `Err`: no line of this form.
pub(super) fn read(line: &str) -> Result<Option<Line<'_>>, &str> {
    let line = line.trim();
    if let Some(rest) = line.strip_prefix("# HELP ") {
        let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
        return Ok(Some(Line::Help { name, text: unescaped(text) }));
    }
    if let Some(rest) = line.strip_prefix("# TYPE ") {
        let (name, kind) = rest.split_once(' ').ok_or(line)?;
        return Ok(Some(Line::Type { name, kind: kind.trim() }));
    }
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    sample(line).map(|it| Some(Line::Sample(it))).ok_or(line)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (key, after) = rest.split_once("=\"")?;
            let end = closing_quote(after)?;
            let (value, after) = after.split_at_checked(end)?;
            labels.push((key, unescaped(value)));
            let after = after.strip_prefix('"')?;
            rest = after.strip_prefix(',').unwrap_or(after);
        }
    }
    let value = match rest.trim() {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        text => text.parse().ok()?,
    };
    (!name.is_empty()).then_some(Sample { name, labels, value })
}

/// The first quote that is not escaped.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let is_end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        is_end.then_some(at)
    })
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use metrics::Label;
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn each_kind_of_line_is_read() {
        let help = Line::Help { name: "a_total", text: "How\nmany \\.".to_owned() };
        assert_eq!(read("# HELP a_total How\\nmany \\\\."), Ok(Some(help)));
        assert_eq!(read("# TYPE a_total counter"), Ok(Some(Line::Type { name: "a_total", kind: "counter" })));
        let labels = vec![("le", "+Inf".to_owned()), ("b", "x\"},\\ y".to_owned())];
        let sample = Sample { name: "a", labels, value: 1.5 };
        assert_eq!(read(r#"a{le="+Inf",b="x\"},\\ y"} 1.5"#), Ok(Some(Line::Sample(sample))));
        assert_eq!(
            read("a -Inf"),
            Ok(Some(Line::Sample(Sample { name: "a", labels: vec![], value: f64::NEG_INFINITY })))
        );
        for nothing in ["", "  ", "# a remark"] {
            assert_eq!(read(nothing), Ok(None));
        }
        for bad in ["a", "{} 1", "a{b} 1", "a{b=\"c} 1", "a{b=\"c\"", "a one", "# TYPE a"] {
            assert_eq!(read(bad), Err(bad));
        }
    }

    proptest! {
        /// But for backslashes: metrics-exporter-prometheus takes one for the beginning of an escape that was made already.
        #[test]
        fn what_is_written_is_read_again(text in "\\PC{0,20}", odd in "[\"\n{},= ]{0,8}", value in -1e12..1e12_f64) {
            let metrics = Metrics::default();
            let label = format!("{text}{odd}").replace('\\', "");
            metrics.gauge("g", vec![Label::new("first", "1"), Label::new("second", label.clone())]).set(value);
            let rendered = metrics.render();
            let found: Vec<Sample<'_>> = rendered
                .lines()
                .filter_map(|line| match read(line) {
                    Ok(Some(Line::Sample(sample))) => Some(sample),
                    Ok(_) => None,
                    Err(line) => panic!("{line}"),
                })
                .collect();
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(&found[0].labels[1].1, &label);
            prop_assert!((found[0].value - value).abs() <= value.abs() * 1e-9);
        }

        #[test]
        fn no_line_is_too_odd(line in "\\PC*") {
            let _ = read(&line);
        }
    }
}
