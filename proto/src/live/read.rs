//! Reading a [`Message`]: its kind comes before its data, as we write it, so that the data is read as what it is at once.
//!
//! What serde derives would first keep everything as it came and then read it again, with code of its own for every type that a
//! page shows: a twentieth of what the console loads first.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::{Message, News, Topic};
use crate::events::Event;

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

#[derive(Deserialize)]
struct Events {
    restart: bool,
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Failed {
    topic: Topic,
    detail: String,
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Message;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message with its time, its type and behind it its data")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Message, A::Error> {
        let (mut at, mut kind, mut news) = (None, None::<String>, None);
        while let Some(key) = map.next_key::<String>()? {
            match (key.as_str(), kind.as_deref()) {
                ("at", _) => at = Some(map.next_value()?),
                ("type", _) => kind = Some(map.next_value()?),
                ("data", None) => return Err(Error::missing_field("type")),
                ("data", Some(kind)) => news = Some(data(kind, &mut map)?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let at = at.ok_or_else(|| Error::missing_field("at"))?;
        let news = match (news, kind.as_deref()) {
            (Some(news), _) => news,
            (None, Some("idle")) => News::Idle,
            (None, Some(_)) => return Err(Error::missing_field("data")),
            (None, None) => return Err(Error::missing_field("type")),
        };
        Ok(Message { at, news })
    }
}

fn data<'de, A: MapAccess<'de>>(kind: &str, map: &mut A) -> Result<News, A::Error> {
    Ok(match kind {
        "fleet" => News::Fleet(map.next_value()?),
        "fleet-change" => News::FleetChange(map.next_value()?),
        "application" => News::Application(map.next_value()?),
        "node" => News::Node(map.next_value()?),
        "host-history" => News::HostHistory(map.next_value()?),
        // The console reads it by HTTP while somebody looks: to be able to read it here too would cost every first load.
        #[cfg(not(target_arch = "wasm32"))]
        "vm-history" => News::VmHistory(map.next_value()?),
        "rollout" => News::Rollout(map.next_value()?),
        "events" => {
            let Events { restart, events } = map.next_value()?;
            News::Events { restart, events }
        }
        "gone" => News::Gone(map.next_value()?),
        "failed" => {
            let Failed { topic, detail } = map.next_value()?;
            News::Failed { topic, detail }
        }
        _ => {
            map.next_value::<IgnoredAny>()?;
            return Err(Error::custom(format_args!("{kind:?} is no kind of message that is known here")));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp::Timestamp;

    #[test]
    fn what_is_written_is_read() {
        let topic = || Topic::Application { name: "myapp".parse().unwrap() };
        let history = serde_json::from_str(r#"{"node":"web-1","every_ms":1000,"points":[]}"#).unwrap();
        let all = [
            News::Idle,
            News::Gone(topic()),
            News::Failed { topic: topic(), detail: "the database".to_owned() },
            News::Events { restart: true, events: Vec::new() },
            News::HostHistory(history),
        ];
        for news in all {
            let message = Message { at: Timestamp(7), news };
            let json = serde_json::to_string(&message).unwrap();
            assert_eq!(serde_json::from_str::<Message>(&json).unwrap(), message, "{json}");
        }
    }

    #[test]
    fn what_says_too_little_or_something_else_is_an_error() {
        for json in [
            r#"{"at":1}"#,
            r#"{"type":"idle"}"#,
            r#"{"at":1,"type":"fleet"}"#,
            r#"{"at":1,"data":{},"type":"fleet"}"#,
            r#"{"at":1,"type":"weather","data":{}}"#,
        ] {
            assert!(serde_json::from_str::<Message>(json).is_err(), "{json}");
        }
    }
}
