//! `current.json`: which version an application should run. Pure.
//!
//! `{"version": "1.0.0", "hash": "…", "pre_commands": ["eval MyApp.Migrator.migrate"]}`. Only `version` must be there; keys
//! that are not known are passed over, because people's CI writes them.

use std::fmt;

use proto::ids::{BadName, Digest, Version};
use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    pub version: Version,
    /// As written. Where it is a SHA-256 the tarball must have it; any other text is kept and shown.
    pub hash: Option<String>,
    pub pre_commands: Vec<String>,
}

impl Current {
    /// More makes no sense and would be carried to every agent.
    pub const MAX_PRE_COMMANDS: usize = 64;
    pub const MAX_COMMAND_BYTES: usize = 4_096;
    pub const MAX_HASH_BYTES: usize = 256;

    /// The digest that the tarball must have.
    pub fn digest(&self) -> Option<Digest> {
        self.hash.as_deref()?.parse().ok()
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, BadCurrent> {
        if bytes.trim_ascii().is_empty() {
            return Err(BadCurrent::Empty);
        }
        let text =
            std::str::from_utf8(bytes).map_err(|error| BadCurrent::NotUtf8 { at: error.valid_up_to() })?;
        if text.starts_with('\u{feff}') {
            return Err(BadCurrent::ByteOrderMark);
        }
        let fields: Fields = serde_json::from_str(text)?;
        let version = fields.version.ok_or(BadCurrent::Missing("version"))?;
        let version = string("version", version)?.parse()?;
        Ok(Self {
            version,
            hash: fields.hash.map(hash).transpose()?.flatten(),
            pre_commands: fields.pre_commands.map(pre_commands).transpose()?.unwrap_or_default(),
        })
    }
}

/// Why a `current.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadCurrent {
    #[error("is empty")]
    Empty,
    #[error("is not UTF-8 (byte {at})")]
    NotUtf8 { at: usize },
    #[error("starts with a byte order mark; write it as plain UTF-8")]
    ByteOrderMark,
    /// Its message has line and column.
    #[error("is not the JSON that is expected: {0}")]
    Json(#[from] serde_json::Error),
    #[error("has no key {0:?}")]
    Missing(&'static str),
    #[error("has {found} as {key:?}; it must be {expected}")]
    WrongType { key: String, expected: &'static str, found: &'static str },
    #[error("has a {key:?} of more than {max} {unit}")]
    TooMuch { key: String, max: usize, unit: &'static str },
    #[error("has a control character in {key:?}")]
    Control { key: String },
    #[error("has an empty {key:?}")]
    Blank { key: String },
    #[error("names no usable version: {0}")]
    Version(#[from] BadName),
}

fn hash(value: Value) -> Result<Option<String>, BadCurrent> {
    if value.is_null() {
        return Ok(None);
    }
    let hash = string("hash", value)?;
    if hash.len() > Current::MAX_HASH_BYTES {
        return Err(BadCurrent::TooMuch { key: "hash".into(), max: Current::MAX_HASH_BYTES, unit: "bytes" });
    }
    check_text("hash", &hash)?;
    Ok(Some(hash).filter(|hash| !hash.is_empty()))
}

fn pre_commands(value: Value) -> Result<Vec<String>, BadCurrent> {
    let commands = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(commands) => commands,
        other => return Err(wrong_type("pre_commands", "a list of strings", &other)),
    };
    if commands.len() > Current::MAX_PRE_COMMANDS {
        let max = Current::MAX_PRE_COMMANDS;
        return Err(BadCurrent::TooMuch { key: "pre_commands".into(), max, unit: "commands" });
    }
    commands.into_iter().enumerate().map(|(nth, command)| pre_command(nth, command)).collect()
}

fn pre_command(nth: usize, value: Value) -> Result<String, BadCurrent> {
    let key = format!("pre_commands[{nth}]");
    let command = string(&key, value)?;
    check_text(&key, &command)?;
    if command.trim().is_empty() {
        return Err(BadCurrent::Blank { key });
    }
    if command.len() > Current::MAX_COMMAND_BYTES {
        return Err(BadCurrent::TooMuch { key, max: Current::MAX_COMMAND_BYTES, unit: "bytes" });
    }
    Ok(command)
}

fn check_text(key: &str, text: &str) -> Result<(), BadCurrent> {
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(BadCurrent::Control { key: key.to_owned() });
    }
    Ok(())
}

fn string(key: &str, value: Value) -> Result<String, BadCurrent> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(wrong_type(key, "a string", &other)),
    }
}

fn wrong_type(key: &str, expected: &'static str, value: &Value) -> BadCurrent {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    BadCurrent::WrongType { key: key.to_owned(), expected, found }
}

/// The keys that we know, each at most once: of two, nobody could say which was meant.
#[derive(Default)]
struct Fields {
    version: Option<Value>,
    hash: Option<Value>,
    pre_commands: Option<Value>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;

        impl<'de> Visitor<'de> for Keys {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the key \"version\"")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Fields::default();
                while let Some(key) = map.next_key::<String>()? {
                    let field = match key.as_str() {
                        "version" => &mut fields.version,
                        "hash" => &mut fields.hash,
                        "pre_commands" => &mut fields.pre_commands,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    if field.replace(map.next_value()?).is_some() {
                        return Err(A::Error::custom(format_args!("the key {key:?} is there twice")));
                    }
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_today_is_read() {
        let hex = "ab".repeat(32);
        let full = format!(
            "\n{{\"version\": \"1.0.0\", \"hash\": \"sha256:{hex}\", \"pre_commands\": [\"eval A.b()\"], \"by\": [1]}}\n"
        );
        let current = Current::parse(full.as_bytes()).unwrap();
        assert_eq!(current.version.as_str(), "1.0.0");
        assert_eq!(current.digest().unwrap().to_string(), hex);
        assert_eq!(current.pre_commands, ["eval A.b()"]);
        for (text, hash) in [
            (r#"{"version":"1"}"#, None),
            (r#"{"version":"1","hash":null,"pre_commands":null}"#, None),
            (r#"{"version":"1","hash":""}"#, None),
            (r#"{"version":"1","hash":"local"}"#, Some("local")),
        ] {
            let current = Current::parse(text.as_bytes()).unwrap();
            assert_eq!((current.hash.as_deref(), current.digest()), (hash, None), "{text}");
            assert!(current.pre_commands.is_empty());
        }
    }

    #[test]
    fn every_malformed_file_is_told_what_is_wrong_and_where() {
        let deep = format!("{{\"version\":{}{}}}", "[".repeat(500), "]".repeat(500));
        let long_command = format!("{{\"version\":\"1\",\"pre_commands\":[\"{}\"]}}", "x".repeat(5_000));
        let many = format!("{{\"version\":\"1\",\"pre_commands\":[{}]}}", vec!["\"x\""; 65].join(","));
        let long_hash = format!("{{\"version\":\"1\",\"hash\":\"{}\"}}", "x".repeat(300));
        let long_version = format!("{{\"version\":\"{}\"}}", "1".repeat(200));
        let cases: Vec<(&[u8], &str)> = vec![
            (b"", "empty"),
            (b" \n\t", "empty"),
            (b"\xff\xfe{\0}\0", "not UTF-8 (byte 0)"),
            (b"{\"version\":\"\xc3\"}", "not UTF-8 (byte 12)"),
            (b"\xef\xbb\xbf{\"version\":\"1\"}", "byte order mark"),
            (b"\0\0\0\0", "line 1 column 1"),
            (b"1.0.0", "expected an object"),
            (b"version: 1.0.0", "line 1 column 1"),
            (b"<html>", "line 1 column 1"),
            (b"null", "expected an object"),
            (b"true", "expected an object"),
            (b"42", "expected an object"),
            (b"\"1.0.0\"", "expected an object"),
            (b"[]", "expected an object"),
            (b"[{\"version\":\"1\"}]", "expected an object"),
            (b"{", "EOF while parsing an object at line 1 column 1"),
            (b"{\"version\"", "line 1 column 10"),
            (b"{\"version\":", "line 1 column 11"),
            (b"{\"version\":\"1.0", "EOF while parsing a string"),
            (b"{\"version\":\"1\"", "EOF while parsing an object"),
            (b"{\n\"version\":\"1\",\n}", "trailing comma at line 3 column 1"),
            (b"{\"version\":\"1\"}}", "trailing characters at line 1 column 16"),
            (b"{\"version\":\"1\"}{\"version\":\"2\"}", "trailing characters"),
            (b"{'version':'1'}", "key must be a string at line 1 column 2"),
            (b"{version:\"1\"}", "key must be a string"),
            (b"{\"version\":\"1\" \"hash\":\"\"}", "line 1 column 16"),
            (b"{\"version\":\"1\" /* x */}", "line 1 column 16"),
            (b"{\"version\":\"\\x\"}", "invalid escape"),
            (b"{\"version\":\"\\ud800\"}", "line 1"),
            (b"{\"version\":\"1\n2\"}", "control character"),
            (b"{\"version\":1.0}", "a number as \"version\""),
            (b"{\"version\":NaN}", "line 1"),
            (b"{\"version\":null}", "null as \"version\""),
            (b"{\"version\":[\"1\"]}", "a list as \"version\""),
            (b"{\"version\":{\"major\":1}}", "an object as \"version\""),
            (b"{\"version\":true}", "true or false as \"version\""),
            (b"{\"version\":\"\"}", "names no usable version"),
            (b"{\"version\":\"../../etc\"}", "names no usable version"),
            (b"{\"version\":\"1/2\"}", "names no usable version"),
            (b"{\"version\":\"1 2\"}", "names no usable version"),
            (b"{\"version\":\"1\\u0000\"}", "names no usable version"),
            (b"{\"version\":\"-rf\"}", "names no usable version"),
            (b"{}", "no key \"version\""),
            (b"{\"Version\":\"1\"}", "no key \"version\""),
            (b"{\"version\":\"1\",\"version\":\"2\"}", "\"version\" is there twice at line 1"),
            (b"{\"version\":\"1\",\"hash\":\"a\",\"hash\":\"b\"}", "\"hash\" is there twice"),
            (b"{\"version\":\"1\",\"hash\":12}", "a number as \"hash\""),
            (b"{\"version\":\"1\",\"hash\":[]}", "a list as \"hash\""),
            (b"{\"version\":\"1\",\"hash\":\"a\\nb\"}", "control character in \"hash\""),
            (b"{\"version\":\"1\",\"pre_commands\":\"eval x\"}", "a string as \"pre_commands\""),
            (b"{\"version\":\"1\",\"pre_commands\":{}}", "an object as \"pre_commands\""),
            (b"{\"version\":\"1\",\"pre_commands\":[\"a\",1]}", "a number as \"pre_commands[1]\""),
            (b"{\"version\":\"1\",\"pre_commands\":[[\"a\"]]}", "a list as \"pre_commands[0]\""),
            (b"{\"version\":\"1\",\"pre_commands\":[\" \"]}", "empty \"pre_commands[0]\""),
            (
                b"{\"version\":\"1\",\"pre_commands\":[\"a\\u0000b\"]}",
                "control character in \"pre_commands[0]\"",
            ),
            (deep.as_bytes(), "recursion limit"),
            (long_command.as_bytes(), "more than 4096 bytes"),
            (many.as_bytes(), "more than 64 commands"),
            (long_hash.as_bytes(), "\"hash\" of more than 256 bytes"),
            (long_version.as_bytes(), "names no usable version"),
        ];
        assert!(cases.len() >= 55);
        for (bytes, words) in cases {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
            let text = Current::parse(bytes).expect_err(&shown).to_string();
            assert!(text.contains(words), "{shown}: {text}");
            assert!(text.len() < 400 && !text.contains('\n'), "{shown}: {text:?}");
        }
    }
}
