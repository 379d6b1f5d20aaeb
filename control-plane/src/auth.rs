//! Who may do what: passwords, sessions, tokens, and whose word a request is.

pub mod client;
pub mod first;
pub mod password;
pub mod principal;
pub mod secret;
pub mod throttle;
