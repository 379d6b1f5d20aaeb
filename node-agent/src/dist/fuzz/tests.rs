//! Each target with what was recorded, and with many changes of it: the same ones in every run.

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::*;

/// Of each target. Some seconds all together, without optimization.
const CHANGES: usize = 20_000;

/// No longer input is made, in bytes.
const LONGEST_INPUT: usize = 2_000;

fn recorded(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dist/recorded").join(target);
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|it| it.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{}", folder.display());
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Some of what goes wrong on a wire, and what somebody would do who knows the format.
fn change(bytes: &mut Vec<u8>, others: &[(PathBuf, Vec<u8>)], dice: &mut StdRng) {
    for _ in 0..dice.random_range(1..6) {
        let at = dice.random_range(0..=bytes.len());
        let end = dice.random_range(at..=bytes.len());
        match dice.random_range(0..8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = dice.random(),
            2 => bytes.insert(at, dice.random()),
            3 => drop(bytes.drain(at..end)),
            4 => bytes.truncate(at),
            5 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            // A length that is none.
            6 => {
                let length = [0, 1, 0x7fff_ffff, u32::MAX, dice.random_range(0..5_000)];
                let length = length.choose(dice).unwrap().to_be_bytes();
                bytes.splice(at..end.min(at + 4), length);
            }
            _ => {
                let other = &others.choose(dice).unwrap().1;
                let from = dice.random_range(0..=other.len());
                bytes.splice(at..end, other[from..].iter().copied());
            }
        }
        bytes.truncate(LONGEST_INPUT);
    }
}

fn holds(name: &str) {
    let target = TARGETS.iter().find(|it| it.name == name).unwrap();
    let corpus = recorded(name);
    for (_, bytes) in &corpus {
        (target.run)(bytes);
    }
    let mut dice = StdRng::seed_from_u64(7);
    for _ in 0..CHANGES {
        let mut bytes = corpus.choose(&mut dice).unwrap().1.clone();
        bytes.truncate(LONGEST_INPUT);
        change(&mut bytes, &corpus, &mut dice);
        let tried = std::panic::catch_unwind(|| (target.run)(&bytes));
        assert!(tried.is_ok(), "{name}: {bytes:?}");
    }
}

#[test]
fn frames_of_a_real_node_changed_at_random_are_cut_as_they_should_be() {
    holds("frames");
}

#[test]
fn terms_of_a_real_node_changed_at_random_are_read_and_written_as_the_same_or_refused() {
    holds("terms");
}

#[test]
fn messages_of_a_real_node_changed_at_random_are_read_or_refused() {
    holds("messages");
}

#[test]
fn whoever_changes_a_handshake_at_random_is_not_let_in() {
    holds("handshake");
}

#[test]
fn answers_of_a_name_server_changed_at_random_are_a_port_or_refused() {
    holds("epmd");
}

#[test]
fn every_term_that_was_recorded_is_one() {
    for (path, bytes) in recorded("terms") {
        let mut rest = Bytes::from(bytes);
        let term = decode(&mut rest, Limits::default());
        assert!(term.is_ok() && rest.is_empty(), "{}: {term:?}", path.display());
    }
}
