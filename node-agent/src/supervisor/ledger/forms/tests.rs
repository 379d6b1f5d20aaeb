//! Ledgers of other versions: recorded ones, and what a version that is to come may write.

use std::fs;

use super::super::{Ledger, LedgerError};
use super::*;

/// Written by the version before hot upgrades.
const BEFORE: &str = include_str!("before_hot_upgrades.json");
/// As this version writes it; the version before hot upgrades was seen to read it, without what it does not know.
const WITH: &str = include_str!("with_a_hot_upgrade.json");

/// A slot's ledger with this machine in it, in the frame of a version that did not say which it was.
fn slot(runtime: &str) -> (tempfile::TempDir, Paths, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path().to_owned(), folder.path().to_owned());
    let slot = paths.agent().join("slots/shop/1");
    fs::create_dir_all(&slot).unwrap();
    let framed = format!("deployex-ledger 1 {}\n{runtime}", checksum(runtime.as_bytes()));
    fs::write(slot.join("runtime"), framed).unwrap();
    (folder, paths, Ledger::at(slot))
}

#[test]
fn a_ledger_of_before_hot_upgrades_is_read() {
    let (_folder, paths, ledger) = slot(BEFORE);
    none_is_too_new(&paths).unwrap();
    let replica = ledger.runtime().unwrap().unwrap().replica;
    assert_eq!((replica.upgrade, replica.upgraded, replica.crash_restarts), (None, None, 2));
    assert!(replica.assignment.unwrap().wanted.unwrap().hot.is_none());
}

#[test]
fn what_this_version_writes_is_what_the_one_before_was_seen_to_read() {
    let (_folder, _, ledger) = slot(WITH);
    let runtime = ledger.runtime().unwrap().unwrap();
    assert!(runtime.replica.upgrade.is_some() && runtime.replica.upgraded.is_some());
    let recorded: Value = serde_json::from_str(WITH).unwrap();
    assert_eq!(serde_json::to_value(&runtime).unwrap(), recorded);
    // All that was added since is added to objects, where it is passed over.
    let mut without = recorded;
    for (path, field) in
        [("/replica", "upgrade"), ("/replica", "upgraded"), ("/replica/assignment/wanted", "hot")]
    {
        without.pointer_mut(path).unwrap().as_object_mut().unwrap().remove(field).unwrap();
    }
    assert_eq!(without, serde_json::from_str::<Value>(BEFORE).unwrap());
}

#[test]
fn the_frame_of_this_version_is_one_that_the_one_before_reads() {
    let (_folder, _, ledger) = slot(BEFORE);
    let runtime = ledger.runtime().unwrap().unwrap();
    ledger.store_runtime(&runtime, false).unwrap();
    let (written, writer) = ledger.read("runtime").unwrap().unwrap();
    assert_eq!(writer, format!("deployex-agent {VERSION}"));
    // It takes the first three words of the line, and passes over what follows them.
    let framed = frame(&written);
    let line = first_line(&framed).unwrap().0;
    assert!(line.starts_with(&format!("deployex-ledger 1 {} ", checksum(&written))), "{line}");
}

#[test]
fn fields_that_are_to_come_are_passed_over() {
    let mut later: Value = serde_json::from_str(WITH).unwrap();
    for path in
        ["", "/replica", "/replica/assignment", "/replica/upgrade", "/replica/process/Up", "/replica/trial"]
    {
        let object = later.pointer_mut(path).unwrap().as_object_mut().unwrap();
        object.insert("of_a_later_version".to_owned(), Value::from(1));
    }
    let (_folder, _, ledger) = slot(&later.to_string());
    let today: Runtime = serde_json::from_str(WITH).unwrap();
    assert_eq!(ledger.runtime().unwrap(), Some(today));
}

#[test]
fn words_that_are_to_come_lose_no_more_than_they_must() {
    let mut later: Value = serde_json::from_str(WITH).unwrap();
    *later.pointer_mut("/replica/condemned/1/charge").unwrap() = Value::from("Bewitched");
    *later.pointer_mut("/replica/last_exit/cause").unwrap() = Value::from("Bewitched");
    let (_folder, _, ledger) = slot(&later.to_string());
    let read = ledger.runtime().unwrap().unwrap().replica;
    let today: Runtime = serde_json::from_str(WITH).unwrap();
    let (ticket, condemned) = read.condemned.clone().unwrap();
    assert_eq!((ticket, condemned.because.as_str()), (crate::replica::Ticket(4), "it hangs"));
    assert_eq!((read.process, read.last_exit), (today.replica.process, None));
    assert_eq!(read.assignment, today.replica.assignment);

    // What is understood is kept.
    *later.pointer_mut("/replica/condemned/1/charge").unwrap() =
        serde_json::to_value(today.replica.condemned.as_ref().unwrap().1.charge).unwrap();
    let (_folder, _, ledger) = slot(&later.to_string());
    let read = ledger.runtime().unwrap().unwrap().replica;
    assert_eq!((&read.condemned, &read.upgraded), (&today.replica.condemned, &today.replica.upgraded));
    assert!(read.upgraded.is_some() && read.last_exit.is_none());

    // What a process does cannot be guessed: the file is kept, and it is said whose it is.
    *later.pointer_mut("/replica/process").unwrap() = Value::from("Dreaming");
    let (_folder, _, ledger) = slot(&later.to_string());
    let error = ledger.runtime().unwrap_err();
    assert!(matches!(&error, LedgerError::Foreign { aside, .. } if aside.exists()), "{error}");
    assert!(error.was_set_aside() && error.to_string().contains("another deployex-agent"), "{error}");
}

#[test]
fn an_agent_that_is_too_old_does_not_begin_and_changes_nothing() {
    for (name, text) in [
        ("runtime", "deployex-ledger 2 0 9.9.9\nanything"),
        ("process", "process 2\nanything"),
        ("pre/exit", "exit 3\nanything"),
    ] {
        let (_folder, paths, _) = slot(BEFORE);
        let path = paths.agent().join("slots/shop/1").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let said = none_is_too_new(&paths).unwrap_err().to_string();
        assert!(said.contains(path.to_str().unwrap()) && said.contains(VERSION), "{said}");
        assert!(name != "runtime" || said.contains("deployex-agent 9.9.9 in form 2"), "{said}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        // What an agent before this one set aside is none of it.
        fs::rename(&path, path.with_extension("set-aside-1")).unwrap();
        none_is_too_new(&paths).unwrap();
    }
}
