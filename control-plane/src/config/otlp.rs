//! Where metrics are pushed to by OpenTelemetry: the key `metrics.otlp_endpoint`, and OpenTelemetry's own variables for what a
//! file should not hold or a host decides.
//!
//! Sends nothing; that is `crate::otlp`.

use std::fmt;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::fault::Origin;
use super::fields::{Fields, read_variable};
use super::rules;
use super::rules::{Allowed, Scalar};

/// Of OpenTelemetry's specification, "SDK environment variables".
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";
const INTERVAL_MS: u64 = 60_000;

/// The path of metrics below an endpoint, by OpenTelemetry's specification of OTLP over HTTP.
const METRICS_PATH: &str = "v1/metrics";
/// By that specification gRPC's, which collectors answer beside HTTP's 4318.
const GRPC_PORT: u16 = 4317;

/// A receiver of metrics, and how often it is sent them. May hold secrets: `Debug` shows none.
#[derive(Clone)]
pub struct Otlp {
    url: Url,
    /// As it was written, for telling whether it changed.
    written: String,
    /// What lets us in.
    pub headers: HeaderMap,
    pub every: Duration,
}

impl Otlp {
    /// Where metrics go, with its password if it has one: for the one who sends.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// As it is in the file, so that it can be told whether it changed. With its password if it has one.
    pub(super) fn written(&self) -> &str {
        &self.written
    }

    /// The key, below `metrics`.
    pub(super) fn read(f: &mut Fields<'_>) -> Option<Self> {
        let (url, written) = f.secret("otlp_endpoint", endpoint)?;
        let every = read_variable(f.sink, INTERVAL, rules::whole(1_000..=3_600_000));
        let headers = match f.sink.variable(HEADERS).map(headers) {
            None => HeaderMap::new(),
            Some(Ok(headers)) => headers,
            Some(Err(advice)) => {
                let origin = Origin::Variable(HEADERS.to_owned());
                f.sink.fault(origin, "", "something else (not shown: it may be a secret)", advice);
                HeaderMap::new()
            }
        };
        Some(Self {
            url,
            written,
            headers,
            every: Duration::from_millis(every.map_or(INTERVAL_MS, |it| it.value)),
        })
    }
}

impl fmt::Display for Otlp {
    /// Without what may let somebody in: user and password, and with some receivers the path or the query.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url.origin().ascii_serialization())
    }
}

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Otlp({self})")
    }
}

fn endpoint(scalar: Scalar<'_>) -> Result<(Url, String), Allowed> {
    let text = rules::url(&["https", "http"])(Scalar { ..scalar })?;
    let allowed =
        |what: &str| Allowed(format!("a URL of an OTLP receiver, such as http://collector:4318{what}"));
    let mut url = Url::parse(&text).map_err(|_| allowed(""))?;
    if url.port() == Some(GRPC_PORT) {
        return Err(allowed("; 4317 is where it speaks gRPC, and metrics are sent over HTTP"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    match path.ends_with(METRICS_PATH) {
        true => url.set_path(&path),
        false => url.set_path(&format!("{path}/{METRICS_PATH}")),
    }
    url.set_fragment(None);
    Ok((url, text))
}

/// `name=value,name=value`, values percent-encoded.
fn headers(text: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for pair in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let advice = || "allowed: NAME=VALUE, several with commas between, values percent-encoded".to_owned();
        let (name, value) = pair.split_once('=').ok_or_else(advice)?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| advice())?;
        let value: Vec<u8> = percent_decode_str(value.trim()).collect();
        let mut value = HeaderValue::try_from(value).map_err(|_| advice())?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Faults, Flags};

    fn read(endpoint: &str, variables: &[(&str, &str)]) -> Result<Config, Faults> {
        let yaml = format!("metrics: {{ otlp_endpoint: \"{endpoint}\" }}\napplications: []\n");
        let variables: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::read(Some((Path::new("f.yaml"), yaml.as_bytes())), &Flags::default(), &variables)
    }

    fn otlp(endpoint: &str, variables: &[(&str, &str)]) -> Otlp {
        *read(endpoint, variables).unwrap().otlp.unwrap()
    }

    #[test]
    fn metrics_go_below_the_endpoint_unless_it_names_their_path() {
        for (endpoint, url) in [
            ("http://c:4318", "http://c:4318/v1/metrics"),
            ("http://c:4318/", "http://c:4318/v1/metrics"),
            ("https://c/otlp", "https://c/otlp/v1/metrics"),
            ("https://c/otlp/?tenant=1", "https://c/otlp/v1/metrics?tenant=1"),
            ("https://c/otlp/v1/metrics", "https://c/otlp/v1/metrics"),
            ("http://c:4318/v1/metrics/#x", "http://c:4318/v1/metrics"),
            ("http://[::1]:4318", "http://[::1]:4318/v1/metrics"),
        ] {
            assert_eq!(otlp(endpoint, &[]).url().as_str(), url);
        }
        assert!(Config::new(Path::new("/d")).otlp.is_none());
    }

    #[test]
    fn opentelemetrys_variables_say_the_rest() {
        assert_eq!(otlp("http://c", &[]).every, Duration::from_mins(1));
        let found = otlp(
            "http://c",
            &[(INTERVAL, "5000"), (HEADERS, "authorization=Bearer%20s3cret, x-scope=a,x-scope=b,")],
        );
        assert_eq!(found.every, Duration::from_secs(5));
        assert_eq!(found.headers["authorization"], "Bearer s3cret");
        assert_eq!(found.headers.get_all("x-scope").iter().count(), 2);
    }

    #[test]
    fn what_lets_somebody_in_is_never_shown() {
        let found = otlp("https://me:s3cret@c:8443/s3cret/x?key=s3cret", &[(HEADERS, "k=s3cret")]);
        assert_eq!(found.to_string(), "https://c:8443");
        assert!(!format!("{found:?} {:?}", found.headers).contains("s3cret"));
        for (endpoint, headers) in
            [("ftp://me:s3cret@c", "k=v"), ("http://c", "s3cret"), ("http://c", "ä=s3cret")]
        {
            let faults = read(endpoint, &[(HEADERS, headers)]).unwrap_err().to_string();
            assert!(!faults.contains("s3cret"), "{faults}");
        }
    }

    #[test]
    fn grpcs_port_is_refused_in_words() {
        let faults = read("http://c:4317", &[]).unwrap_err().to_string();
        assert!(faults.contains("http://collector:4318; 4317 is where it speaks gRPC"), "{faults}");
        let faults = read("http://c", &[(INTERVAL, "5")]).unwrap_err().to_string();
        assert!(faults.contains("OTEL_METRIC_EXPORT_INTERVAL"), "{faults}");
    }
}
