//! Reading a [`VmPoint`]: all but its time are numbers, and what is not told is 0.
//!
//! What serde derives for nineteen fields is several times as much code, which the console would load first.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::VmPoint;

impl<'de> Deserialize<'de> for VmPoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = VmPoint;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the figures of a VM")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<VmPoint, A::Error> {
        let mut point = VmPoint::default();
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "at" => point.at = map.next_value()?,
                name => set(&mut point, name, map.next_value()?),
            }
        }
        Ok(point)
    }
}

/// A newer control plane may tell what is not known here.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts, far below 2^53; a cast saturates"
)]
fn set(point: &mut VmPoint, name: &str, number: f64) {
    let (size, count, rate) = (number as u64, number as u32, number as f32);
    match name {
        "memory" => point.memory = size,
        "memory_processes" => point.memory_processes = size,
        "memory_atom" => point.memory_atom = size,
        "memory_binary" => point.memory_binary = size,
        "memory_code" => point.memory_code = size,
        "memory_ets" => point.memory_ets = size,
        "processes" => point.processes = count,
        "ports" => point.ports = count,
        "atoms" => point.atoms = count,
        "ets_tables" => point.ets_tables = count,
        "run_queue" => point.run_queue = count,
        "longest_run_queue" => point.longest_run_queue = count,
        "schedulers" => point.schedulers = Some(rate),
        "reductions" => point.reductions = rate,
        "collections" => point.collections = rate,
        "reclaimed" => point.reclaimed = rate,
        "input" => point.input = rate,
        "output" => point.output = rate,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp::Timestamp;

    #[test]
    fn every_figure_that_is_written_is_read() {
        let mut json = serde_json::to_value(VmPoint { schedulers: Some(0.0), ..VmPoint::default() }).unwrap();
        for (at, value) in json.as_object_mut().unwrap().values_mut().filter(|it| it.is_number()).enumerate()
        {
            *value = (at + 1).into();
        }
        let point: VmPoint = serde_json::from_value(json.clone()).unwrap();
        let numbers = |json: &serde_json::Value| {
            let object = json.as_object().unwrap();
            object.iter().filter_map(|(name, it)| Some((name.clone(), it.as_f64()?))).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&serde_json::to_value(point).unwrap()), numbers(&json));
        assert_eq!(numbers(&json).len(), 18);
    }

    #[test]
    fn what_is_not_known_is_left_out_and_what_is_no_number_is_a_fault() {
        let read = |json: &str| serde_json::from_str::<VmPoint>(json);
        let point = read(r#"{"at":"1970-01-01T00:00:00.007Z","atoms":9,"weather":3}"#).unwrap();
        assert_eq!(point, VmPoint { at: Timestamp(7), atoms: 9, ..VmPoint::default() });
        assert!(read(r#"{"atoms":"many"}"#).is_err() && read("[]").is_err());
    }
}
