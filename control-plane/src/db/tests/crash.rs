//! Killed at any moment, the program loses nothing that it acknowledged.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::db::Db;
use crate::db::tests::fixture::{TestDb, on_both_engines};

on_both_engines!(every_acknowledged_write_outlives_sigkill);

const URL: &str = "DEPLOYEX_TEST_WRITER_URL";
const ROUNDS: u32 = 20;

/// A process of its own writes numbers and says each once it is stored; it is killed in the midst of that.
async fn every_acknowledged_write_outlives_sigkill(it: TestDb) {
    let mut acknowledged = 0;
    for round in 1..=ROUNDS {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "db::tests::crash::writer", "--ignored", "--nocapture", "--test-threads=1"])
            .env(URL, &it.url)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let mut said = 0;
        // Each round is killed a little later than the one before.
        while said < round * 3 {
            let Some(line) = lines.next() else { panic!("the writer ended by itself after {acknowledged}") };
            if let Some(number) = line.unwrap().strip_prefix("stored ") {
                acknowledged = number.parse().unwrap();
                said += 1;
            }
        }
        writer.kill().unwrap();
        // What it had said and we had not yet read counts too.
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("stored ").and_then(|number| number.parse().ok()) {
                acknowledged = number;
            }
        }
        writer.wait().unwrap();
        let reopened = Db::open(&it.url).await.unwrap();
        let stored: u64 = reopened.setting("number").await.unwrap().unwrap().parse().unwrap();
        reopened.close().await.unwrap();
        // One more may have been stored without its being said.
        assert!(
            (acknowledged..=acknowledged + 1).contains(&stored),
            "{acknowledged} was said, {stored} is there"
        );
    }
}

#[tokio::test]
#[ignore = "the other process of every_acknowledged_write_outlives_sigkill"]
#[expect(clippy::disallowed_methods, reason = "how the parent says where to write")]
async fn writer() {
    let Ok(url) = std::env::var(URL) else { return };
    let db = Db::open(&url).await.unwrap();
    let before = db.setting("number").await.unwrap();
    let mut number: u64 = before.map_or(0, |text| text.parse().unwrap());
    loop {
        number += 1;
        db.put_setting("number", &number.to_string()).await.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "stored {number}").unwrap();
        out.flush().unwrap();
    }
}
