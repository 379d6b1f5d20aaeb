//! The first word of a session: who this is, what it speaks, and every slot that it holds.
//!
//! All of it is one message, so what may be long is left out: the first reports of the session bring it.

use std::collections::BTreeMap;

use proto::agent::PROTOCOL;
use proto::ids::{AppName, Slot};
use proto::pb;

use super::{Observed, Wiring};
use crate::clock;

/// Of a sentence, in characters.
const SHORT: usize = 200;

pub(super) fn hello(wiring: &Wiring, generation: u64, slots: Vec<pb::SlotReport>) -> pb::Hello {
    pb::Hello {
        protocol_min: *PROTOCOL.start(),
        protocol_max: *PROTOCOL.end(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: wiring.boot_id.clone(),
        inventory: Some(wiring.inventory.clone()),
        clock_unix_ms: clock::unix_ms(),
        generation,
        started_unix_ms: wiring.started_unix_ms,
        slots,
    }
}

/// Every slot as a hello tells it.
pub(super) fn in_short(observed: &Observed) -> BTreeMap<(AppName, Slot), pb::SlotReport> {
    observed.slots.iter().map(|(place, report)| (place.clone(), shortened(report.clone()))).collect()
}

fn shortened(mut report: pb::SlotReport) -> pb::SlotReport {
    if let Some(exit) = &mut report.last_exit {
        exit.log_tail.clear();
        shorten(&mut exit.slogan);
    }
    // That they are over is told together with what they printed, or it would be taken for all there is to know.
    report.pre_commands.take_if(|run| !run.output_tail.is_empty());
    if let Some(run) = &mut report.pre_commands {
        shorten(&mut run.error);
    }
    if let Some(check) = &mut report.failed_check {
        check.body.clear();
        check.log_tail.clear();
        shorten(&mut check.asked);
        shorten(&mut check.outcome);
    }
    if let Some(staging) = &mut report.staging {
        shorten(&mut staging.error);
    }
    shorten(&mut report.fault);
    report
}

fn shorten(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(SHORT) {
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::agent::{MAX_MESSAGE, MAX_SLOTS};

    use super::*;

    #[test]
    fn the_largest_hello_fits_a_message() {
        let long = "\u{e4}".repeat(8 << 10);
        let key = pb::ReleaseKey { version: "9".repeat(128), sha256: vec![7; 32].into() };
        let report = pb::SlotReport {
            app: "a".repeat(64),
            slot: 9_999,
            generation: u64::MAX,
            running: Some(key.clone()),
            fault: long.clone(),
            staging: Some(pb::Staging { release: Some(key), error: long.clone(), ..Default::default() }),
            last_exit: Some(pb::LastExit { log_tail: long.clone(), ..Default::default() }),
            failed_check: Some(pb::FailedCheck {
                asked: long.clone(),
                outcome: long.clone(),
                body: long.clone(),
                log_tail: long.clone(),
                ..Default::default()
            }),
            pre_commands: Some(pb::PreCommandsReport {
                run_id: "r".repeat(64),
                error: long.clone(),
                output_tail: long,
                ..Default::default()
            }),
            ports: vec![pb::PortInUse { key: "P".repeat(64), port: 65_535 }; 16],
            ..Default::default()
        };
        let mut silent = report.clone();
        silent.pre_commands.as_mut().unwrap().output_tail.clear();
        assert!(shortened(report.clone()).pre_commands.is_none(), "told whole or not at all");
        assert!(shortened(silent.clone()).pre_commands.is_some());
        let slots = vec![shortened(silent); MAX_SLOTS];
        let hello = pb::Hello { slots, ..Default::default() };
        assert!(hello.encoded_len() < MAX_MESSAGE - (64 << 10), "{}", hello.encoded_len());
    }
}
