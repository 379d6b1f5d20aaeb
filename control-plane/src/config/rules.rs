//! What a single value may be: each rule turns text into a checked value, or says what would have been allowed.
//!
//! A rule knows neither its key nor its place; `fields` puts both into the fault. Names that mean something beyond the
//! configuration (`AppName`, …) have their own parsers and are only called here.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::IpNet;

use super::fault::one_of;
use super::quantity;
use crate::config::PublicAddress;
use crate::spec::{Amount, Millis, label};

/// A single value as it was written.
#[derive(Clone, Copy)]
pub(super) struct Scalar<'a> {
    pub text: &'a str,
    pub quoted: bool,
}

/// Why a value was refused: what is allowed, as a noun.
pub(super) struct Allowed(pub String);

pub(super) type Checked<T> = Result<T, Allowed>;

fn allowed<T>(what: impl Into<String>) -> Checked<T> {
    Err(Allowed(what.into()))
}

/// Any text, also an empty one. Plain numbers and booleans are taken as they were written.
pub(super) fn any_text(scalar: Scalar<'_>) -> Checked<String> {
    // The environment of a process cannot hold it.
    if scalar.text.contains('\0') { allowed("a text without NUL") } else { Ok(scalar.text.to_owned()) }
}

/// Text on one line, not empty.
pub(super) fn text(scalar: Scalar<'_>) -> Checked<String> {
    let text = scalar.text;
    if text.trim().is_empty() || text.len() > 1024 || text.contains(char::is_control) {
        return allowed("a text of one line, not empty");
    }
    Ok(text.to_owned())
}

pub(super) fn boolean(scalar: Scalar<'_>) -> Checked<bool> {
    match scalar.text {
        "true" | "True" | "TRUE" if !scalar.quoted => Ok(true),
        "false" | "False" | "FALSE" if !scalar.quoted => Ok(false),
        _ => allowed("true or false, without quotes"),
    }
}

pub(super) fn whole<T: TryFrom<u64>>(range: RangeInclusive<u64>) -> impl Fn(Scalar<'_>) -> Checked<T> {
    move |scalar| {
        let number = if scalar.quoted { None } else { quantity::whole(scalar.text) };
        match number.filter(|it| range.contains(it)).and_then(|it| T::try_from(it).ok()) {
            Some(number) => Ok(number),
            None if scalar.quoted && quantity::whole(scalar.text).is_some() => {
                allowed(format!("a whole number from {} to {}, without quotes", range.start(), range.end()))
            }
            None => allowed(format!(
                "a whole number from {} to {} in plain decimal digits",
                range.start(),
                range.end()
            )),
        }
    }
}

pub(super) fn port(scalar: Scalar<'_>) -> Checked<u16> {
    whole(1..=65_535)(scalar).map_err(|_| Allowed("a port from 1 to 65535, without quotes".to_owned()))
}

/// For keys that end in `_ms`: a bare number counts milliseconds.
pub(super) fn millis(range: RangeInclusive<u64>) -> impl Fn(Scalar<'_>) -> Checked<Millis> {
    duration(range, true)
}

/// For keys that do not: the unit is written.
pub(super) fn duration(
    range: RangeInclusive<u64>,
    bare_is_ms: bool,
) -> impl Fn(Scalar<'_>) -> Checked<Millis> {
    move |scalar| match quantity::duration(scalar.text, bare_is_ms) {
        Some(millis) if range.contains(&millis) => Ok(Millis(millis)),
        _ => {
            let bare = if bare_is_ms { "milliseconds, or " } else { "" };
            let (from, to) = (quantity::duration_text(*range.start()), quantity::duration_text(*range.end()));
            allowed(format!("{bare}a duration such as 30s or 10m, from {from} to {to}"))
        }
    }
}

pub(super) fn size(scalar: Scalar<'_>) -> Checked<u64> {
    match quantity::size(scalar.text) {
        Some(size) if size > 0 => Ok(size),
        _ => allowed("a size such as 512KiB, 20MiB or 1GiB"),
    }
}

/// `25%` of all, or a count.
pub(super) fn amount(least: u32) -> impl Fn(Scalar<'_>) -> Checked<Amount> {
    move |scalar| {
        let percent = quantity::percent(scalar.text).and_then(|it| u8::try_from(it).ok());
        if let Some(percent) = percent.filter(|it| (1..=100).contains(it)) {
            return Ok(Amount::Percent(percent));
        }
        match quantity::whole(scalar.text).and_then(|it| u32::try_from(it).ok()) {
            Some(count) if count >= least => Ok(Amount::Count(count)),
            _ => allowed(format!("a count from {least}, or a share from 1% to 100%")),
        }
    }
}

/// `200%`: two cores.
pub(super) fn cpu(scalar: Scalar<'_>) -> Checked<u32> {
    match quantity::percent(scalar.text) {
        Some(percent) if (1..=100_000).contains(&percent) => Ok(percent),
        _ => allowed("a share of one core such as 50%, or of several such as 200%"),
    }
}

/// One of a few words, each with what it means.
pub(super) fn word<'w, T: Copy>(words: &'w [(&'w str, T)]) -> impl Fn(Scalar<'_>) -> Checked<T> + 'w {
    move |scalar| match words.iter().find(|(word, _)| *word == scalar.text) {
        Some((_, meaning)) => Ok(*meaning),
        None => allowed(one_of(words.iter().map(|(word, _)| *word))),
    }
}

pub(super) fn absolute_path(scalar: Scalar<'_>) -> Checked<PathBuf> {
    let path = PathBuf::from(scalar.text);
    let climbs = path.components().any(|it| matches!(it, std::path::Component::ParentDir));
    if path.is_absolute() && !climbs && !scalar.text.contains(char::is_control) {
        return Ok(path);
    }
    allowed("an absolute path without ..")
}

pub(super) fn ip(scalar: Scalar<'_>) -> Checked<IpAddr> {
    match scalar.text.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(address) => Ok(address),
        Err(_) => allowed("an IP address to listen on, such as 127.0.0.1, 0.0.0.0 or ::"),
    }
}

pub(super) fn network(scalar: Scalar<'_>) -> Checked<IpNet> {
    let text = scalar.text;
    match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
        Ok(network) => Ok(network),
        Err(_) => allowed("an IP address or a network such as 10.0.0.0/8"),
    }
}

/// A host's name or address, without scheme, port or path.
pub(super) fn host(scalar: Scalar<'_>) -> Checked<String> {
    if is_host(scalar.text) {
        return Ok(scalar.text.to_owned());
    }
    allowed("a host's name or address, without scheme, port or path")
}

pub(super) fn is_host(text: &str) -> bool {
    let label = |it: &str| {
        (1..=63).contains(&it.len())
            && it.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !it.starts_with('-')
    };
    text.parse::<IpAddr>().is_ok() || (text.len() <= 253 && text.split('.').all(label))
}

/// `HOST:PORT`, `[::1]:5002`.
pub(super) fn host_and_port(scalar: Scalar<'_>) -> Checked<PublicAddress> {
    let parts = scalar.text.rsplit_once(':').and_then(|(host, port)| {
        let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let host = inner.unwrap_or(host);
        let fits = is_host(host) && inner.is_some() == host.contains(':');
        let port = quantity::whole(port).and_then(|it| u16::try_from(it).ok()).filter(|it| *it > 0);
        port.filter(|_| fits).map(|port| PublicAddress { host: host.to_owned(), port })
    });
    parts.ok_or_else(|| Allowed("HOST:PORT as agents dial it, without scheme".to_owned()))
}

pub(super) fn url<'w>(schemes: &'w [&'w str]) -> impl Fn(Scalar<'_>) -> Checked<String> + 'w {
    move |scalar| {
        let rest = schemes.iter().find_map(|it| scalar.text.strip_prefix(it)?.strip_prefix("://"));
        let plain = !scalar.text.contains(|c: char| c.is_whitespace() || c.is_control());
        match rest {
            Some(rest) if plain && !rest.is_empty() && !rest.starts_with('/') => Ok(scalar.text.to_owned()),
            _ => {
                let schemes: Vec<String> = schemes.iter().map(|it| format!("{it}://")).collect();
                allowed(format!("a URL that begins with {}", one_of(schemes.iter().map(String::as_str))))
            }
        }
    }
}

/// The name of an environment variable.
pub(super) fn variable_name(scalar: Scalar<'_>) -> Checked<String> {
    let text = scalar.text;
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if fits && text.len() <= 256 {
        return Ok(text.to_owned());
    }
    allowed("a variable's name: letters, digits and _, not beginning with a digit")
}

/// A label's key or value.
pub(super) fn label(scalar: Scalar<'_>) -> Checked<String> {
    match label::fits(scalar.text) {
        true => Ok(scalar.text.to_owned()),
        false => allowed(format!("a label: {}", label::ALLOWED)),
    }
}

/// One folder of a path.
pub(super) fn path_part(scalar: Scalar<'_>) -> Checked<String> {
    let text = scalar.text;
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if fits && text.len() <= 64 {
        return Ok(text.to_owned());
    }
    allowed("1 to 64 of a-z A-Z 0-9 . _ - that begin with a letter or digit")
}

/// A Unix user or group.
pub(super) fn account(scalar: Scalar<'_>) -> Checked<String> {
    let text = scalar.text;
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-$".contains(&b))
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    if fits && text.len() <= 32 {
        return Ok(text.to_owned());
    }
    allowed("the name of a user or group on the host")
}

/// `name/KEY` in the secrets adapter.
pub(super) fn secret_reference(scalar: Scalar<'_>) -> Checked<String> {
    match scalar.text.rsplit_once('/') {
        Some((name, key))
            if !name.is_empty() && !key.is_empty() && !scalar.text.contains(char::is_control) =>
        {
            Ok(scalar.text.to_owned())
        }
        _ => allowed("NAME/KEY: the secret's name and a key in it"),
    }
}
