//! Configuration templates of relx, rendered as its start script does: `${VAR}` and `${VAR:-default}`, line by line. Pure.

/// What a value holds is looked at again; one that holds itself would never end.
const MOST: usize = 1_000;

pub(super) fn render<'e>(template: &str, value: impl Fn(&str) -> Option<&'e str>) -> String {
    let mut rendered = String::new();
    for line in template.lines() {
        rendered.push_str(&render_line(line, &value));
        rendered.push('\n');
    }
    rendered
}

fn render_line<'e>(line: &str, value: impl Fn(&str) -> Option<&'e str>) -> String {
    let mut line = line.to_owned();
    for _ in 0..MOST {
        let Some(start) = line.find("${") else { break };
        let Some(length) = line[start..].find('}') else { break };
        let inner = &line[start + 2..start + length];
        let (name, default) = inner.split_once(":-").unwrap_or((inner, ""));
        let found = value(name).filter(|it| !it.is_empty()).unwrap_or(default).to_owned();
        line.replace_range(start..=start + length, &found);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> Option<&'static str> {
        match name {
            "PORT" => Some("4000"),
            "EMPTY" => Some(""),
            "NESTED" => Some("${PORT}"),
            "ITSELF" => Some("${ITSELF}"),
            "AND" => Some("a & \\1 b"),
            _ => None,
        }
    }

    #[test]
    fn variables_are_put_in_with_their_defaults() {
        for (template, rendered) in [
            ("[{demo, [{port, ${PORT}}]}].", "[{demo, [{port, 4000}]}]."),
            ("${PORT}${PORT:-1} ${NONE:-1} ${EMPTY:-a b} ${EMPTY}|${NONE}", "40004000 1 a b |"),
            ("${NONE:-a:-b} ${NESTED} ${AND}", "a:-b 4000 a & \\1 b"),
            ("$PORT ${PORT", "$PORT ${PORT"),
            ("-sname ${PORT}@x\n${NONE}\n", "-sname 4000@x\n\n"),
        ] {
            assert_eq!(
                render(template, value).trim_end_matches('\n'),
                rendered.trim_end_matches('\n'),
                "{template}"
            );
        }
    }

    #[test]
    fn a_value_that_holds_itself_ends() {
        assert_eq!(render("${ITSELF}", value), "${ITSELF}\n");
    }
}
