//! A YAML document as a tree of located values: the text as it was written, with its line and column.
//!
//! Built from the parser's events rather than from a ready tree, so that duplicate keys are seen, scalars keep their text
//! (`no`, `1e3` and `007` mean what the key they stand under makes of them), and no alias or nesting can grow without bound.
//! What keys mean is not known here.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use super::fault::{Origin, Sink, shown};

/// A configuration of a thousand applications is under half of this.
pub(super) const MAX_BYTES: usize = 1024 * 1024;
/// Our deepest key lies 6 deep.
const MAX_DEPTH: usize = 32;
/// Aliases are expanded; this bounds what they can grow to.
const MAX_NODES: usize = 200_000;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub at: Origin,
    pub value: Value,
    /// Itself and everything below it.
    size: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Nothing after the colon, `~` or `null`.
    Null,
    Scalar {
        text: String,
        quoted: bool,
    },
    List(Vec<Node>),
    /// In the order of the file. A key may stand twice: who reads it says so.
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub key_at: Origin,
    pub value: Node,
}

impl Value {
    /// As a noun, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar { .. } => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "keys and values",
        }
    }
}

impl Node {
    fn new(at: Origin, value: Value) -> Self {
        let size = match &value {
            Value::Null | Value::Scalar { .. } => 1,
            Value::List(items) => 1 + items.iter().map(|it| it.size).sum::<usize>(),
            Value::Map(entries) => 1 + entries.iter().map(|it| 1 + it.value.size).sum::<usize>(),
        };
        Self { at, value, size }
    }

    /// With plain numbers and booleans as such, and everything else as text.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Scalar { text, quoted: false } if text == "true" || text == "false" => {
                (text == "true").into()
            }
            Value::Scalar { text, quoted } => match text.parse::<u64>() {
                // `007` and `+7` stay text: they would not come back as they were written.
                Ok(number) if !quoted && number.to_string() == *text => number.into(),
                _ => text.as_str().into(),
            },
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries.iter().map(|it| (it.key.clone(), it.value.to_json())).collect(),
        }
    }
}

/// Reads one document. `None`: there is none (an empty file), or it is not YAML, which is then among the faults.
pub(super) fn parse(bytes: &[u8], sink: &Sink<'_>) -> Option<Node> {
    let text = readable(bytes, sink)?;
    let mut builder = Builder { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0, sink };
    // A fault was put into the sink wherever this is an error.
    builder.document().ok().flatten()
}

/// UTF-8 without control characters. The parser takes NUL for the end: what follows would be lost without a word.
fn readable<'a>(bytes: &'a [u8], sink: &Sink<'_>) -> Option<&'a str> {
    if bytes.len() > MAX_BYTES {
        sink.fault(
            Origin::WholeFile,
            "",
            format!("{} bytes", bytes.len()),
            format!("a configuration may have {MAX_BYTES}"),
        );
        return None;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let (before, rest) = bytes.split_at(error.valid_up_to());
            let at = position(&String::from_utf8_lossy(before));
            let byte = rest.first().copied().unwrap_or_default();
            sink.fault(at, "", format!("byte 0x{byte:02x}, which is not UTF-8"), "save the file as UTF-8");
            return None;
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    if let Some((index, character)) = text.char_indices().find(|(_, c)| control(*c)) {
        let found = format!("the control character U+{:04X}", u32::from(character));
        sink.fault(
            position(&text[..index]),
            "",
            found,
            "remove it, or write it as an escape in double quotes",
        );
        return None;
    }
    Some(text)
}

/// Just behind `before`.
fn position(before: &str) -> Origin {
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Origin::File { line, column }
}

/// The parser counts columns from 0.
fn at(marker: Marker) -> Origin {
    Origin::File { line: marker.line(), column: marker.col() + 1 }
}

/// A fault was recorded: there is no tree.
struct Stop;

struct Builder<'s, 'a> {
    parser: Parser<'s, saphyr_parser::StrInput<'s>>,
    /// Only finished ones: a value that holds an alias of itself finds nothing here.
    anchors: HashMap<usize, Node>,
    nodes: usize,
    sink: &'a Sink<'a>,
}

impl<'s> Builder<'s, '_> {
    fn document(&mut self) -> Result<Option<Node>, Stop> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(self.stop(
                        span,
                        "a second document (---)",
                        "a configuration is one document",
                    ));
                }
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                event => root = Some(self.node(event, span, 0)?),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'s>, Span), Stop> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let found = format!("text that is not YAML ({})", error.info());
                self.sink.fault(
                    at(*error.marker()),
                    "",
                    found,
                    "mend the indentation, quotes or brackets here",
                );
                Err(Stop)
            }
            None => Err(Stop),
        }
    }

    fn node(&mut self, event: Event<'s>, span: Span, depth: usize) -> Result<Node, Stop> {
        self.count(1, span)?;
        if depth > MAX_DEPTH {
            return Err(self.stop(span, format!("values nested {depth} deep"), "no key lies so deep"));
        }
        let (value, anchor) = match event {
            Event::Alias(anchor) => return self.alias(anchor, span),
            Event::Scalar(text, style, anchor, tag) => {
                let text_tag = self.tag(tag.as_ref(), span)?;
                let quoted = style != ScalarStyle::Plain || text_tag;
                (scalar(text, quoted), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.tag(tag.as_ref(), span)?;
                (self.list(depth)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.tag(tag.as_ref(), span)?;
                (self.map(depth)?, anchor)
            }
            _ => return Err(self.stop(span, "text that is not YAML", "mend it here")),
        };
        let node = Node::new(at(span.start), value);
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node, Stop> {
        let Some(size) = self.anchors.get(&anchor).map(|it| it.size) else {
            return Err(self.stop(span, "an alias inside of what it names", "write the value out"));
        };
        self.count(size, span)?;
        self.anchors.get(&anchor).cloned().ok_or(Stop)
    }

    fn list(&mut self, depth: usize) -> Result<Value, Stop> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Value::Map(entries));
            }
            let key = self.node(event, span, depth + 1)?;
            let Value::Scalar { text, .. } = key.value else {
                return Err(self.stop(span, format!("{} for a key", key.value.kind()), "a key is one word"));
            };
            let (event, value_span) = self.next()?;
            let value = self.node(event, value_span, depth + 1)?;
            entries.push(Entry { key: text, key_at: at(span.start), value });
        }
    }

    /// Whether the tag makes a text of the value. Tags that would make something else of it are refused.
    fn tag(&self, tag: Option<&Cow<'_, Tag>>, span: Span) -> Result<bool, Stop> {
        const KNOWN: [&str; 3] = ["str", "map", "seq"];
        match tag {
            None => Ok(false),
            Some(tag) if tag.is_yaml_core_schema() && KNOWN.contains(&tag.suffix.as_str()) => {
                Ok(tag.suffix == "str")
            }
            Some(tag) => {
                let advice = "tags are not understood here; write the value without it";
                Err(self.stop(span, format!("the tag {}", shown(&tag.to_string())), advice))
            }
        }
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            let found = format!("more than {MAX_NODES} values, aliases expanded");
            return Err(self.stop(span, found, "use fewer aliases"));
        }
        Ok(())
    }

    fn stop(&self, span: Span, found: impl Into<String>, advice: &str) -> Stop {
        self.sink.fault(at(span.start), "", found, advice);
        Stop
    }
}

fn scalar(text: Cow<'_, str>, quoted: bool) -> Value {
    if !quoted && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    Value::Scalar { text: text.into_owned(), quoted }
}
