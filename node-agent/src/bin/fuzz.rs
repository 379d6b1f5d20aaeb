//! What `cargo xtask fuzz dist` runs: LLVM's fuzzer around one of the targets of `node_agent::dist::fuzz`, which its last word
//! names. Built with the feature `fuzz` only; no part of an installation.

#![no_main]
#![allow(clippy::print_stderr, reason = "its output is a fuzzer's")]

use std::sync::OnceLock;

use node_agent::dist::fuzz::{TARGETS, Target};

static TARGET: OnceLock<Target> = OnceLock::new();

fn target() -> Target {
    *TARGET.get_or_init(|| {
        let name = std::env::args().next_back().unwrap_or_default();
        TARGETS.into_iter().find(|it| it.name == name).unwrap_or_else(|| {
            let names = TARGETS.map(|it| it.name).join(", ");
            eprintln!("{name} is nothing to be fuzzed; these are: {names}");
            std::process::exit(2)
        })
    })
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (target().run)(bytes));
