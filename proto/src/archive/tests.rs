//! Every way in is closed with its own name, and what honest archivers make is taken.

use sha2::Digest as _;

use super::hostile::{Builder, RawHeader, gzip, samples};
use super::*;

fn look(archive: &[u8], language: Language, limits: &Limits) -> Result<Summary, Fault> {
    let app = "demo".parse().unwrap();
    let inspected = inspect(archive, limits, &Expected { app: &app, language });
    inspected.map(|it| it.summary).map_err(|error| match error {
        ReadError::Fault(fault) => fault,
        other => panic!("{other:?}"),
    })
}

fn elixir(archive: &[u8]) -> Result<Summary, Fault> {
    look(archive, Language::Elixir, &Limits::default())
}

#[test]
fn every_hostile_archive_is_refused_by_its_own_name() {
    let samples = samples();
    assert!(samples.len() >= 80, "{}", samples.len());
    for sample in samples {
        let fault = elixir(&sample.archive).expect_err(sample.name);
        assert_eq!(fault.code(), sample.code, "{}: {fault}", sample.name);
        let text = fault.to_string();
        assert!(text.len() < 600 && !text.contains(['\n', '\x1b']), "{}: {text:?}", sample.name);
    }
}

#[test]
fn a_good_release_is_summed_up() {
    let archive = Builder::elixir().gzip();
    let summary = elixir(&archive).unwrap();
    assert_eq!(summary.size, archive.len() as u64);
    assert_eq!(summary.files, 8);
    assert_eq!(summary.sha256.0, <[u8; 32]>::from(sha2::Sha256::digest(&archive)));
    look(&archive, Language::Erlang, &Limits::default()).unwrap();
    look(&Builder::gleam().gzip(), Language::Gleam, &Limits::default()).unwrap();
}

#[test]
fn repeated_folders_inner_links_and_names_that_differ_in_case_are_accepted() {
    let archive = Builder::elixir()
        .folder("lib/")
        .folder("./lib/demo-0.1.0/")
        .folder("lib")
        .symlink("lib/demo", "demo-0.1.0/ebin")
        .symlink("lib/demo-0.1.0/priv/up", "../../../bin/./demo")
        .symlink("lib/loop", "loop")
        .hard_link("lib/demo-0.1.0/ebin/again.beam", "./lib/demo-0.1.0/ebin/demo.beam")
        .file("lib/demo-0.1.0/ebin/Demo.beam", 0o644, b"FOR1")
        .file("lib/ünï", 0o644, b"")
        .gzip();
    elixir(&archive).unwrap();
}

#[test]
fn long_names_of_both_kinds_are_accepted() {
    let long = format!("lib/{}/{}", "a".repeat(120), "b".repeat(120));
    let other = format!("lib/{}/{}", "c".repeat(120), "d".repeat(120));
    let archive = Builder::elixir()
        .extended(b'g', &hostile::pax_records(&[("comment", "made by git")]))
        .pax(&[("path", &long), ("mtime", "1700000000.5"), ("SCHILY.xattr.user.x", "y")])
        .file("cut", 0o644, b"x")
        .extended(b'L', format!("{other}\0").as_bytes())
        .file("cut", 0o644, b"x")
        .header(&RawHeader::new(b'5', "inside").prefix("lib/prefixed"))
        .gzip();
    elixir(&archive).unwrap();
}

#[test]
fn padding_of_a_record_is_no_garbage_but_a_mebibyte_of_it_is() {
    let padded = |zeros| Builder::elixir().raw(&vec![0; zeros]).gzip();
    elixir(&padded(64 << 10)).unwrap();
    assert_eq!(elixir(&padded(2 << 20)).unwrap_err().code(), "trailing-data");
}

#[test]
fn every_limit_has_its_own_fault() {
    let all = Limits::default();
    let archive = Builder::elixir().gzip();
    for (limits, code) in [
        (Limits { archive_bytes: 100, ..all }, "archive-too-large"),
        (Limits { unpacked_bytes: 100, ..all }, "unpacks-too-large"),
        (Limits { entries: 5, ..all }, "too-many-entries"),
        (Limits { names_bytes: 50, ..all }, "names-too-large"),
        (Limits { path_bytes: 10, ..all }, "path-too-long"),
        (Limits { depth: 2, ..all }, "path-too-deep"),
    ] {
        assert_eq!(look(&archive, Language::Elixir, &limits).unwrap_err().code(), code);
    }
}

#[test]
fn more_entries_than_any_release_has_are_refused() {
    let many = |builder, files| {
        (0..files).fold(builder, |builder: Builder, n| builder.file(format!("lib/{n}"), 0o644, b""))
    };
    elixir(&many(Builder::elixir(), 50_000).gzip()).unwrap();
    assert_eq!(elixir(&many(Builder::elixir(), 70_000).gzip()).unwrap_err().code(), "too-many-entries");
}

#[test]
fn an_archive_of_something_else_is_told_what_it_looks_like() {
    let say = |builder: Builder, language| {
        look(&builder.gzip(), language, &Limits::default()).unwrap_err().to_string()
    };
    let text = say(Builder::gleam(), Language::Elixir);
    assert!(text.contains("bin/") && text.contains("a Gleam shipment"), "{text}");
    let text = say(Builder::elixir(), Language::Gleam);
    assert!(text.contains("erlang-shipment/") && text.contains("an Elixir or Erlang release"), "{text}");
    let wrapped = Builder::new().file("my-1.0/bin/demo", 0o755, b"").folder("my-1.0/releases/");
    let text = say(wrapped, Language::Erlang);
    assert!(text.contains("pack what is in my-1.0/ without that folder"), "{text}");
    let text = say(Builder::gleam().file("README", 0o644, b""), Language::Gleam);
    assert!(text.contains("\"README\""), "{text}");
    let other = Builder::new().file("bin/other", 0o755, b"").folder("lib/").folder("releases/");
    assert!(say(other, Language::Elixir).contains("bin/demo"));
}

#[test]
fn what_the_tar_crate_writes_is_accepted() {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, mode| {
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(mode);
        tar.append_data(&mut header, path, &b"abc"[..]).unwrap();
    };
    add("bin/demo", 0o755);
    add("releases/start_erl.data", 0o644);
    add(&format!("lib/{}/x", "long".repeat(40)), 0o644);
    elixir(&gzip(&tar.into_inner().unwrap())).unwrap();
}

#[test]
fn a_failing_reader_is_not_the_archives_fault() {
    struct Fails<'a>(&'a [u8]);
    impl std::io::Read for Fails<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            match self.0.read(into)? {
                0 => Err(std::io::ErrorKind::ConnectionReset.into()),
                n => Ok(n),
            }
        }
    }
    let archive = Builder::elixir().gzip();
    let app = "demo".parse().unwrap();
    let expected = Expected { app: &app, language: Language::Elixir };
    for cut in [0, 1, 100, archive.len()] {
        let error = inspect(Fails(&archive[..cut]), &Limits::default(), &expected).unwrap_err();
        assert!(matches!(error, ReadError::Read(_)), "{cut}: {error:?}");
    }
}

#[test]
fn no_cut_and_no_flipped_byte_panics() {
    let archive =
        Builder::elixir().symlink("lib/s", "demo-0.1.0").pax(&[("path", "lib/é")]).file("x", 0o644, b"y");
    let whole = archive.gzip();
    for at in 0..whole.len() {
        let _ = elixir(&whole[..at]).unwrap_err();
        let mut flipped = whole.clone();
        flipped[at] ^= 0x41;
        let _ = elixir(&flipped);
    }
}
