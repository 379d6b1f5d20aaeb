//! `certificates`: checked as they are written. Ordering and renewing is not here, and not in force yet.

use crate::config::fields::Fields;
use crate::config::rules::{self, Allowed, Checked, Scalar};

const DAY_MS: u64 = 86_400_000;

pub(super) fn read(f: &mut Fields<'_>) {
    for item in f.items("certificates", "") {
        let Some(mut certificate) = Fields::open(f.sink, item.node, item.path) else { continue };
        one(&mut certificate);
        certificate.finish();
    }
}

fn one(f: &mut Fields<'_>) {
    let time = || rules::millis(1_000..=365 * DAY_MS);
    f.required("type", rules::word(&[("domains", ())]));
    f.values("domains", domain);
    if f.items("domains", "").is_empty() {
        f.fault("domains", "no domains", "write `domains: [example.com]` here");
    }
    f.read("certificate_check_interval_ms", time());
    f.read("dns_propagation_timeout_ms", time());
    f.read("dns_check_interval_ms", time());
    f.read("renew_before_days", rules::whole::<u16>(1..=365));
    f.required("dns_provider", rules::word(&[("cloudflare", ()), ("route53", ())]));
    f.read("acme_provider", rules::word(&[("lets_encrypt", ())]));
    f.read("importer", rules::word(&[("route53", ())]));
    if let Some(mut dns) = f.below("dns_options") {
        dns.read("ttl", rules::whole::<u32>(1..=86_400));
        dns.read("zone", rules::text);
        dns.secret("api_token", rules::text);
        dns.finish();
    }
    if let Some(mut acme) = f.below("acme_options") {
        acme.read("contact_email", email);
        acme.read("url", rules::url(&["https", "http"]));
        acme.read("key_size", rules::word(&[("2048", ()), ("3072", ()), ("4096", ())]));
        acme.read("propagation_timeout_ms", time());
        acme.read("check_interval_ms", rules::millis(100..=DAY_MS));
        acme.finish();
    }
    if let Some(mut importer) = f.below("importer_options") {
        importer.read("certificate_arn", rules::text);
        importer.finish();
    }
    if let Some(mut storage) = f.below("storage_options") {
        storage.read("certificate_path", rules::absolute_path);
        storage.read("private_key_path", rules::absolute_path);
        storage.finish();
    }
}

fn domain(scalar: Scalar<'_>) -> Checked<()> {
    let name = scalar.text.strip_prefix("*.").unwrap_or(scalar.text);
    let is_domain = name.contains('.') && rules::is_host(name) && name.parse::<std::net::IpAddr>().is_err();
    if is_domain { Ok(()) } else { Err(Allowed("a domain such as example.com or *.example.com".to_owned())) }
}

fn email(scalar: Scalar<'_>) -> Checked<()> {
    match scalar.text.split_once('@') {
        Some((who, host)) if !who.is_empty() && rules::is_host(host) && !who.contains(' ') => Ok(()),
        _ => Err(Allowed("an e-mail address".to_owned())),
    }
}
