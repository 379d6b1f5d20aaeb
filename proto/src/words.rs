//! Commands are lines of text: split into words as a POSIX shell would, without expanding anything, because no shell ever
//! sees them.

/// A quote that is not closed, or a lone backslash at the end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} in {line:?}")]
pub struct Unfinished {
    what: &'static str,
    line: String,
}

/// The words of `line`.
pub fn split(line: &str) -> Result<Vec<String>, Unfinished> {
    let unfinished = |what| Unfinished { what, line: line.chars().take(200).collect() };
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next().ok_or_else(|| unfinished("a quote (') is not closed"))? {
                        '\'' => break,
                        letter => word.push(letter),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next().ok_or_else(|| unfinished("a quote (\") is not closed"))? {
                        '"' => break,
                        '\\' => {
                            match letters.next().ok_or_else(|| unfinished("a quote (\") is not closed"))? {
                                // Within double quotes a backslash is one, save before these.
                                letter @ ('"' | '\\' | '$' | '`') => word.push(letter),
                                letter => word.extend(['\\', letter]),
                            }
                        }
                        letter => word.push(letter),
                    }
                }
            }
            '\\' => {
                let letter =
                    letters.next().ok_or_else(|| unfinished("a backslash stands alone at the end"))?;
                word.get_or_insert_default().push(letter);
            }
            letter if letter.is_whitespace() => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_would() {
        for (line, expected) in [
            ("rpc  foo", vec!["rpc", "foo"]),
            ("eval MyApp.Migrator.migrate", vec!["eval", "MyApp.Migrator.migrate"]),
            ("eval \"IO.puts(1)\"", vec!["eval", "IO.puts(1)"]),
            ("eval 'IO.puts(\"a\")'", vec!["eval", "IO.puts(\"a\")"]),
            ("a 'b c'd \"e\\\"f\" g\\ h \"\"", vec!["a", "b cd", "e\"f", "g h", ""]),
            ("a $HOME `id` *", vec!["a", "$HOME", "`id`", "*"]),
            ("\"a\\n\"", vec!["a\\n"]),
            ("", vec![]),
        ] {
            assert_eq!(split(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn what_is_not_finished_is_refused() {
        for line in ["a 'b", "a \"b", "a \\", "\"\\"] {
            assert!(split(line).is_err(), "{line}");
        }
    }
}
