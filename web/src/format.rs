//! How numbers and moments are written for people. Pure.

use proto::timestamp::Timestamp;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// `12 s`, `3 min`, `2 h 5 min`, `4 d 3 h`: at most two units.
pub fn duration(millis: u64) -> String {
    let two = |large: (u64, &str), small: (u64, &str)| match small.0 {
        0 => format!("{} {}", large.0, large.1),
        _ => format!("{} {} {} {}", large.0, large.1, small.0, small.1),
    };
    match millis {
        0..SECOND => format!("{millis} ms"),
        SECOND..MINUTE => format!("{} s", millis / SECOND),
        MINUTE..HOUR => format!("{} min", millis / MINUTE),
        HOUR..DAY => two((millis / HOUR, "h"), (millis % HOUR / MINUTE, "min")),
        _ => two((millis / DAY, "d"), (millis % DAY / HOUR, "h")),
    }
}

/// How long something has been going on: in whole seconds, `0 s` at first.
pub fn elapsed(since: Timestamp, now: Timestamp) -> String {
    match now.0.saturating_sub(since.0) {
        0..SECOND => "0 s".to_owned(),
        millis => duration(millis),
    }
}

/// `3 min ago`, `in 5 s`, `now`.
pub fn relative(at: Timestamp, now: Timestamp) -> String {
    // Clocks of hosts differ by a little; the future of a second is not worth a word.
    if at.0 > now.0 + SECOND {
        format!("in {}", rounded(at.0 - now.0))
    } else {
        match now.0.saturating_sub(at.0) {
            0..SECOND => "now".to_owned(),
            millis => format!("{} ago", rounded(millis)),
        }
    }
}

/// One unit alone: more would be noise beside `ago`.
fn rounded(millis: u64) -> String {
    match millis {
        0..MINUTE => format!("{} s", millis / SECOND),
        MINUTE..HOUR => format!("{} min", millis / MINUTE),
        HOUR..DAY => format!("{} h", millis / HOUR),
        _ => format!("{} d", millis / DAY),
    }
}

/// `2026-11-23 05:17:44 +01:00`: to the second, with its zone.
pub fn exact(at: Timestamp, zone_minutes: i32) -> String {
    let local = shifted(at, zone_minutes).to_string();
    let (date, time) = local.split_once('T').unwrap_or((&local, ""));
    let time = time.split('.').next().unwrap_or_default();
    let sign = if zone_minutes < 0 { '-' } else { '+' };
    let (hours, minutes) = (zone_minutes.unsigned_abs() / 60, zone_minutes.unsigned_abs() % 60);
    format!("{date} {time} {sign}{hours:02}:{minutes:02}")
}

/// `14:02`, and with its date where that is not today's.
pub fn time_of_day(at: Timestamp, now: Timestamp, zone_minutes: i32) -> String {
    let (at, now) = (exact(at, zone_minutes), exact(now, zone_minutes));
    let minutes = at.get(11..16).unwrap_or_default();
    match at.get(..10) == now.get(..10) {
        true => minutes.to_owned(),
        false => format!("{} {minutes}", at.get(..10).unwrap_or_default()),
    }
}

fn shifted(at: Timestamp, zone_minutes: i32) -> Timestamp {
    let shift = i64::from(zone_minutes) * 60_000;
    Timestamp(at.0.saturating_add_signed(shift))
}

/// `512 B`, `12.3 MiB`, `118 GiB`: three digits at most.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if value < 1_000.0 {
            break;
        }
        value /= 1_024.0;
        unit = next;
    }
    match unit {
        "B" => format!("{count} B"),
        _ if value < 10.0 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

/// `7 %`, and `0.4 %` where whole numbers would say nothing.
pub fn percent(value: f64) -> String {
    match value {
        value if value > 0.0 && value < 0.95 => format!("{value:.1} %"),
        value => format!("{value:.0} %"),
    }
}

/// A part of a whole in percent; 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "a bar's length")]
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// `1 replica`, `3 replicas`, `1,234 replicas`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// `15,000`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_at_most_two_units() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (12_400, "12 s"),
            (3 * MINUTE + 20 * SECOND, "3 min"),
            (2 * HOUR, "2 h"),
            (2 * HOUR + 5 * MINUTE, "2 h 5 min"),
            (4 * DAY + 3 * HOUR + MINUTE, "4 d 3 h"),
        ] {
            assert_eq!(duration(millis), text);
        }
    }

    #[test]
    fn ages_count_from_now_and_a_clock_that_is_ahead_a_little_says_nothing_odd() {
        let now = Timestamp(10 * DAY);
        for (at, text) in [
            (now.0, "now"),
            (now.0 + 900, "now"),
            (now.0 + 5 * SECOND, "in 5 s"),
            (now.0 - 12 * SECOND, "12 s ago"),
            (now.0 - 3 * MINUTE, "3 min ago"),
            (now.0 - 26 * HOUR, "1 d ago"),
        ] {
            assert_eq!(relative(Timestamp(at), now), text);
        }
        assert_eq!(elapsed(now, Timestamp(now.0 - 5)), "0 s");
    }

    #[test]
    fn exact_times_name_their_zone() {
        let at: Timestamp = "2026-11-23T23:30:05.123Z".parse().unwrap();
        assert_eq!(exact(at, 0), "2026-11-23 23:30:05 +00:00");
        assert_eq!(exact(at, 60), "2026-11-24 00:30:05 +01:00");
        assert_eq!(exact(at, -210), "2026-11-23 20:00:05 -03:30");
    }

    #[test]
    fn the_time_of_day_has_its_date_unless_it_is_today() {
        let at: Timestamp = "2026-11-23T14:02:05.123Z".parse().unwrap();
        assert_eq!(time_of_day(at, Timestamp(at.0 + HOUR), 0), "14:02");
        assert_eq!(time_of_day(at, Timestamp(at.0 + DAY), 0), "2026-11-23 14:02");
    }

    #[test]
    fn sizes_have_three_digits_at_most() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 KiB"),
            (12_900_000, "12 MiB"),
            (126_701_535_232, "118 GiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn shares_and_counts_read_well() {
        assert_eq!(
            (percent(0.0), percent(0.04), percent(99.6)),
            ("0 %".into(), "0.0 %".into(), "100 %".into())
        );
        assert!((share(1, 4) - 25.0).abs() < 1e-9 && share(3, 0).abs() < 1e-9);
        assert_eq!(count(1, "replica", "replicas"), "1 replica");
        assert_eq!(count(15_000, "replica", "replicas"), "15,000 replicas");
        assert_eq!(grouped(999), "999");
    }
}
