//! Free ports for programs that cannot take port 0.

use std::net::TcpListener;
use std::sync::Mutex;

/// Where the search goes on, so that two tests of one process never get the same.
static NEXT: Mutex<Option<u16>> = Mutex::new(None);

/// The first of `count` consecutive ports that nobody listens on. Below the range from which the kernel takes the ports of
/// outgoing connections, so that none of those takes one in between; each process starts elsewhere.
pub fn free(count: u16) -> u16 {
    const FIRST: u16 = 20_000;
    const LAST: u16 = 32_000;
    let mut next = NEXT.lock().expect("no test panicked while it held the lock");
    let spread = u16::try_from(std::process::id() * 97 % u32::from(LAST - FIRST)).unwrap_or_default();
    let mut port = next.unwrap_or(FIRST + spread);
    for _ in 0..LAST - FIRST {
        if port + count >= LAST {
            port = FIRST;
        }
        if (port..port + count).all(is_free) {
            *next = Some(port + count);
            return port;
        }
        port += 1;
    }
    panic!("no {count} consecutive ports are free between {FIRST} and {LAST}");
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_searches_do_not_overlap() {
        let first = free(3);
        let second = free(3);
        assert!(second >= first + 3 || second + 3 <= first);
    }
}
