//! Who is at the other end of a request: address, scheme and host, through proxies that are trusted and no others.
//!
//! Pure. A forwarded header counts only when the connection itself comes from a trusted proxy; in a chain of them the last
//! address that is not a proxy of ours is the client, because everything before it was written by the client.

use std::net::IpAddr;

use axum::http::header::{FORWARDED, HOST, ORIGIN, VIA};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The other end of the connection itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp {
        address: IpAddr,
        tls: bool,
    },
    /// The local socket; `uid` as the kernel says.
    Socket {
        uid: u32,
    },
}

/// The other end of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// `None`: on this host, through the local socket.
    pub address: Option<IpAddr>,
    /// What the client speaks: HTTPS to us or to a trusted proxy.
    pub https: bool,
    /// As the client typed it, with its port if it gave one.
    pub host: Option<String>,
    /// Some header says that it came through a proxy, whether that is trusted or not.
    pub forwarded: bool,
}

impl Client {
    pub fn of(peer: Peer, headers: &HeaderMap, uri_host: Option<&str>, trusted: &[IpNet]) -> Self {
        // HTTP/2 has no Host header but an authority in the request's address.
        let host = text(headers, &HOST).or(uri_host).map(str::to_owned);
        let marks = [FORWARDED, VIA, X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, X_REAL_IP];
        let forwarded = marks.iter().any(|name| headers.contains_key(name));
        let (address, tls) = match peer {
            Peer::Socket { .. } => return Self { address: None, https: false, host, forwarded },
            Peer::Tcp { address, tls } => (address.to_canonical(), tls),
        };
        if !is_trusted(address, trusted) {
            return Self { address: Some(address), https: tls, host, forwarded };
        }
        let proto = text(headers, &X_FORWARDED_PROTO).and_then(last);
        Self {
            address: Some(forwarded_for(headers, trusted).unwrap_or(address)),
            https: proto.map_or(tls, |proto| proto.eq_ignore_ascii_case("https")),
            host: text(headers, &X_FORWARDED_HOST).and_then(last).map(str::to_owned).or(host),
            forwarded,
        }
    }

    /// Whether a page of ours sent this. A browser adds `Origin` to every change and every WebSocket; programs do not.
    pub fn origin(&self, headers: &HeaderMap) -> Origin {
        let Some(origin) = headers.get(ORIGIN) else { return Origin::Absent };
        let scheme = if self.https { "https" } else { "http" };
        let ours = self.host.as_ref().map(|host| format!("{scheme}://{host}"));
        match (origin.to_str(), ours) {
            (Ok(origin), Some(ours)) if origin.eq_ignore_ascii_case(&ours) => Origin::Ours,
            _ => Origin::Foreign,
        }
    }

    /// The host is this machine's own loopback, so no name of somebody else's leads here.
    pub fn host_is_loopback(&self) -> bool {
        let Some(authority) = self.host.as_ref().and_then(|host| host.parse::<Authority>().ok()) else {
            return false;
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Ours,
    Foreign,
    Absent,
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim).filter(|text| !text.is_empty())
}

/// Of a list, what the proxy next to us added.
fn last(list: &str) -> Option<&str> {
    list.rsplit(',').map(str::trim).next().filter(|item| !item.is_empty())
}

/// From the right: the first address that is no trusted proxy. A chain that cannot be read ends where it breaks.
fn forwarded_for(headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let lines: Vec<&str> =
        headers.get_all(&X_FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok()).collect();
    let mut client = None;
    for hop in lines.iter().flat_map(|line| line.split(',')).rev() {
        let Some(address) = hop_address(hop.trim()) else { break };
        client = Some(address);
        if !is_trusted(address, trusted) {
            break;
        }
    }
    client
}

/// `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]`, `[::1]:5`.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let bare = hop.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse().ok().or_else(|| Some(hop.parse::<std::net::SocketAddr>().ok()?.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn trusted() -> Vec<IpNet> {
        vec!["127.0.0.1/32".parse().unwrap(), "10.0.0.0/8".parse().unwrap()]
    }

    fn client(peer: &str, lines: &[(&'static str, &str)]) -> Client {
        let peer = Peer::Tcp { address: peer.parse().unwrap(), tls: false };
        Client::of(peer, &headers(lines), None, &trusted())
    }

    const NGINX: &[(&str, &str)] = &[
        ("host", "deployex.example.com"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "deployex.example.com"),
    ];

    #[test]
    fn a_trusted_proxy_says_who_the_client_is() {
        let client = client("127.0.0.1", NGINX);
        assert_eq!(client.address, Some("203.0.113.9".parse().unwrap()));
        assert!(client.https && client.forwarded);
        assert_eq!(client.host.as_deref(), Some("deployex.example.com"));
    }

    #[test]
    fn anybody_else_who_says_so_is_not_believed() {
        let client = client("198.51.100.1", NGINX);
        assert_eq!(client.address, Some("198.51.100.1".parse().unwrap()));
        assert!(!client.https && client.forwarded);
    }

    #[test]
    fn what_the_client_wrote_into_the_chain_does_not_count() {
        let chain = "127.0.0.1, 6.6.6.6, 203.0.113.9, 10.1.2.3";
        assert_eq!(
            client("127.0.0.1", &[("x-forwarded-for", chain)]).address,
            Some("203.0.113.9".parse().unwrap())
        );
        let broken = "203.0.113.9, nonsense, 10.1.2.3";
        assert_eq!(
            client("127.0.0.1", &[("x-forwarded-for", broken)]).address,
            Some("10.1.2.3".parse().unwrap())
        );
        let proto = client("127.0.0.1", &[("x-forwarded-proto", "https, http")]);
        assert!(!proto.https);
    }

    #[test]
    fn addresses_are_read_with_and_without_their_ports() {
        for hop in ["203.0.113.9", "203.0.113.9:4711", "::ffff:203.0.113.9", "[::ffff:203.0.113.9]:1"] {
            assert_eq!(hop_address(hop), Some("203.0.113.9".parse().unwrap()), "{hop}");
        }
        assert_eq!(hop_address("[2001:db8::1]"), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(hop_address("unknown"), None);
    }

    #[test]
    fn only_our_own_pages_have_our_origin() {
        let at = |origin: &str| {
            let mut lines = NGINX.to_vec();
            lines.push(("origin", origin));
            client("127.0.0.1", &lines).origin(&headers(&lines))
        };
        assert_eq!(at("https://deployex.example.com"), Origin::Ours);
        for foreign in [
            "http://deployex.example.com",
            "https://deployex.example.com.evil.test",
            "https://evil.test",
            "null",
        ] {
            assert_eq!(at(foreign), Origin::Foreign, "{foreign}");
        }
        assert_eq!(client("127.0.0.1", NGINX).origin(&headers(NGINX)), Origin::Absent);
    }

    #[test]
    fn a_loopback_host_is_known_by_every_way_to_write_it() {
        let is = |host: &str| client("127.0.0.1", &[("host", host)]).host_is_loopback();
        for host in ["localhost", "LOCALHOST:5001", "127.0.0.1:5001", "127.1.2.3", "[::1]:5001"] {
            assert!(is(host), "{host}");
        }
        for host in
            ["localhost.evil.test", "example.com", "127.0.0.1.evil.test", "0.0.0.0", "10.0.0.1", "a b"]
        {
            assert!(!is(host), "{host}");
        }
    }
}
