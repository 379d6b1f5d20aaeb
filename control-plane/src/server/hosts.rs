//! What an agent says of its host, in the API's words. Pure.

use proto::nodes::{HostDetail, HostLimit, HostUsage, Pressure};
use proto::pb;
use proto::state::HostLevel;

use crate::clock::Time;

pub(super) fn usage(sample: &pb::HostSample) -> HostUsage {
    HostUsage {
        cpu_percent: sample.cpu_percent,
        memory_used_bytes: sample.memory_used_bytes,
        memory_total_bytes: sample.memory_total_bytes,
        disk_used_bytes: sample.disk_used_bytes,
        disk_total_bytes: sample.disk_total_bytes,
        load: [sample.load1, sample.load5, sample.load15],
        uptime_ms: sample.uptime_ms,
    }
}

/// `None`: an older agent, which says nothing of it.
pub(super) fn detail(sample: &pb::HostSample) -> Option<HostDetail> {
    let says_more = sample.memory_available_bytes > 0 || !sample.core_percent.is_empty();
    says_more.then(|| HostDetail {
        cores_percent: sample.core_percent.clone(),
        memory_available_bytes: sample.memory_available_bytes,
        swap_used_bytes: sample.swap_used_bytes,
        swap_total_bytes: sample.swap_total_bytes,
        disk_available_bytes: sample.disk_available_bytes,
        disk_read: sample.disk_read_per_second,
        disk_write: sample.disk_write_per_second,
        network_received: sample.network_received_per_second,
        network_sent: sample.network_sent_per_second,
        pressure: sample.pressure.as_ref().map(pressure),
    })
}

fn pressure(pressure: &pb::Pressure) -> Pressure {
    let pb::Pressure { cpu_some, memory_some, memory_full, io_some, io_full } = *pressure;
    Pressure { cpu_some, memory_some, memory_full, io_some, io_full }
}

/// `at`: when it was said, by the clock that people see.
pub(super) fn limit(limit: pb::HostLimit, at: Time) -> HostLimit {
    let level = limit.level().word().unwrap_or(HostLevel::Normal);
    let pb::HostLimit {
        r#type: kind,
        percent,
        warning_percent,
        restart_percent,
        level: _,
        level_for_ms,
        sentence,
    } = limit;
    HostLimit {
        kind,
        percent,
        warning_percent,
        restart_percent: Some(restart_percent).filter(|it| *it > 0),
        level,
        since: Time(at.0.saturating_sub(level_for_ms)).into(),
        sentence: Some(sentence).filter(|it| !it.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_agent_has_no_details_and_a_newer_ones_level_is_none_of_ours() {
        assert_eq!(detail(&pb::HostSample { cpu_percent: 3.0, ..Default::default() }), None);
        let odd = pb::HostLimit { level: 99, restart_percent: 0, level_for_ms: 400, ..Default::default() };
        let read = limit(odd, Time(1_000));
        assert_eq!((read.level, read.restart_percent, read.since.0), (HostLevel::Normal, None, 600));
        assert_eq!(read.sentence, None);
    }
}
