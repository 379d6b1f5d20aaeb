//! How often one may try to sign in. Pure: `now` comes in.
//!
//! Two buckets have to hold a drop: that of the address, and that of the account. The second would let a stranger lock the
//! owner out by failing on purpose, so an address that has signed in to the account before is not asked for it.
//! Memory is bounded: a bucket that is full again is forgotten, and beyond [`MAX_ENTRIES`] the fullest are.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};

use crate::clock::Time;

/// Failures in a row from one address before it has to wait.
const ADDRESS_BURST: u64 = 10;
/// One more each so many milliseconds.
const ADDRESS_REFILL: u64 = 10_000;
/// Failures in a row on one account from addresses that it does not know.
const ACCOUNT_BURST: u64 = 20;
const ACCOUNT_REFILL: u64 = 5_000;
/// How long an address is known to an account.
const KNOWN_FOR: u64 = 30 * 24 * 3_600_000;
/// Entries of each kind.
pub const MAX_ENTRIES: usize = 10_000;

/// A bucket as the time at which it will be full again: one number, and nothing to refill by hand.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    full_at: Time,
}

#[derive(Debug, Default)]
pub struct Throttle {
    by_address: HashMap<IpAddr, Bucket>,
    by_account: HashMap<String, Bucket>,
    known: HashMap<(String, IpAddr), Time>,
}

/// Come back after so many milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait(pub u64);

impl Throttle {
    /// Takes a drop for an attempt, before it is known how it ends: attempts that run side by side are each counted.
    #[must_use = "an attempt that has to wait must not be made"]
    pub fn attempt(&mut self, account: &str, address: IpAddr, now: Time) -> Result<(), Wait> {
        let address = of_network(address);
        let by_address = wait(self.by_address.get(&address), ADDRESS_BURST, ADDRESS_REFILL, now);
        let known = self.known.get(&(account.to_owned(), address)).is_some_and(|until| *until > now);
        let by_account = match known {
            true => None,
            false => wait(self.by_account.get(account), ACCOUNT_BURST, ACCOUNT_REFILL, now),
        };
        if let Some(wait) = by_address.max(by_account) {
            return Err(Wait(wait));
        }
        take(&mut self.by_address, address, ADDRESS_REFILL, now);
        if !known {
            take(&mut self.by_account, account.to_owned(), ACCOUNT_REFILL, now);
        }
        Ok(())
    }

    /// The attempt was the owner's: it costs nothing, and the address is known from now on.
    pub fn succeeded(&mut self, account: &str, address: IpAddr, now: Time) {
        let address = of_network(address);
        self.by_address.remove(&address);
        give_back(&mut self.by_account, &account.to_owned(), ACCOUNT_REFILL);
        if self.known.len() >= MAX_ENTRIES {
            forget(&mut self.known, |until| *until, now);
        }
        self.known.insert((account.to_owned(), address), now.plus(KNOWN_FOR));
    }
}

/// One subscriber has a whole IPv6 network of 64 bits; an IPv4 address in IPv6 clothes is that IPv4 address.
fn of_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// How long until the bucket has a drop; `None`: it has one.
fn wait(bucket: Option<&Bucket>, burst: u64, refill: u64, now: Time) -> Option<u64> {
    let missing = bucket?.full_at.since(now);
    (missing > (burst - 1) * refill).then(|| missing - (burst - 1) * refill)
}

fn take<K: Eq + Hash + Clone>(buckets: &mut HashMap<K, Bucket>, key: K, refill: u64, now: Time) {
    if buckets.len() >= MAX_ENTRIES && !buckets.contains_key(&key) {
        forget(buckets, |bucket| bucket.full_at, now);
    }
    let bucket = buckets.entry(key).or_insert(Bucket { full_at: now });
    bucket.full_at = bucket.full_at.max(now).plus(refill);
}

fn give_back<K: Eq + Hash>(buckets: &mut HashMap<K, Bucket>, key: &K, refill: u64) {
    if let Some(bucket) = buckets.get_mut(key) {
        bucket.full_at = Time(bucket.full_at.0.saturating_sub(refill));
    }
}

/// Makes room: what says nothing any more goes, and where all still says something, the half that says least.
fn forget<K: Eq + Hash + Clone, V>(entries: &mut HashMap<K, V>, until: impl Fn(&V) -> Time, now: Time) {
    entries.retain(|_, value| until(value) > now);
    if entries.len() >= MAX_ENTRIES {
        let mut times: Vec<Time> = entries.values().map(&until).collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let (median, mut surplus) = (*median, middle);
        entries.retain(|_, value| {
            let goes = surplus > 0 && until(value) <= median;
            surplus -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_000_000_000_000);

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn an_address_that_keeps_failing_has_to_wait_and_may_then_try_again() {
        let mut throttle = Throttle::default();
        for n in 0..ADDRESS_BURST {
            assert_eq!(throttle.attempt(&format!("user{n}"), address(1), NOW), Ok(()));
        }
        assert_eq!(throttle.attempt("user", address(1), NOW), Err(Wait(ADDRESS_REFILL)));
        assert_eq!(throttle.attempt("user", address(2), NOW), Ok(()));
        assert_eq!(throttle.attempt("user", address(1), NOW.plus(ADDRESS_REFILL)), Ok(()));
    }

    #[test]
    fn a_crowd_of_addresses_is_throttled_on_the_account() {
        let mut throttle = Throttle::default();
        let allowed = (0..1_000).filter(|n| throttle.attempt("admin", address(*n), NOW).is_ok()).count();
        assert_eq!(allowed as u64, ACCOUNT_BURST);
    }

    #[test]
    fn strangers_cannot_lock_the_owner_out() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.attempt("admin", address(7), NOW), Ok(()));
        throttle.succeeded("admin", address(7), NOW);
        for n in 100..1_000 {
            let _ = throttle.attempt("admin", address(n), NOW);
        }
        assert!(throttle.attempt("admin", address(8), NOW).is_err());
        assert_eq!(throttle.attempt("admin", address(7), NOW), Ok(()));
    }

    #[test]
    fn signing_in_costs_nothing() {
        let mut throttle = Throttle::default();
        for _ in 0..1_000 {
            assert_eq!(throttle.attempt("ci", address(1), NOW), Ok(()));
            throttle.succeeded("ci", address(1), NOW);
        }
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        let mut throttle = Throttle::default();
        let in_network = |n: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, n));
        let allowed = (0..100).filter(|n| throttle.attempt("a", in_network(*n), NOW).is_ok()).count();
        assert_eq!(allowed as u64, ADDRESS_BURST);
        assert_eq!(of_network("::ffff:1.2.3.4".parse().unwrap()), address(0x0102_0304));
    }

    #[test]
    fn memory_is_bounded_whatever_is_tried() {
        let mut throttle = Throttle::default();
        for n in 0..50_000u32 {
            let user = format!("user{n}");
            let _ = throttle.attempt(&user, address(n), NOW);
            throttle.succeeded(&user, address(n), NOW);
            let _ = throttle.attempt(&user, address(n + 1_000_000), NOW);
        }
        for len in [throttle.by_address.len(), throttle.by_account.len(), throttle.known.len()] {
            assert!(len <= MAX_ENTRIES, "{len}");
        }
    }
}
