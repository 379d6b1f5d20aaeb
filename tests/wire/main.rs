//! Both ends of the agents' wire against each other, over mutual TLS on loopback, with nothing in between but what a test puts
//! there. No program is started: the supervisor's ends are held by the test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests, helpers included"
)]

mod connections;
mod enrolment;
mod evaluations;
mod fleet;
mod peers;
mod proxy;
mod renewal;
mod sessions;
mod siblings;
mod transfers;
