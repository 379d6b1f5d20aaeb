//! [test] No file, however made, panics the reader, makes it slow or makes it large.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;

use super::{Config, Flags};

/// Whether it was accepted; its faults as text otherwise.
fn read(bytes: &[u8]) -> Result<Config, String> {
    Config::read(Some((Path::new("f"), bytes)), &Flags::default(), &BTreeMap::new())
        .map_err(|faults| faults.to_string())
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut yaml = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let before = format!("*a{}", level - 1);
        writeln!(yaml, "a{level}: &a{level} [{}]", [before.as_str(); 10].join(", ")).unwrap();
    }
    let faults = read(yaml.as_bytes()).unwrap_err();
    assert!(faults.contains("more than 200000 values, aliases expanded; use fewer aliases"), "{faults}");
}

#[test]
fn nesting_without_end_is_refused() {
    for (yaml, deep) in
        [("[".repeat(100_000), "["), ("- ".repeat(100_000), "-"), ("{a: ".repeat(50_000), "{")]
    {
        let faults = read(yaml.as_bytes()).unwrap_err();
        assert!(faults.contains("nested 33 deep") || faults.contains("not YAML"), "{deep}: {faults}");
    }
}

#[test]
fn a_file_too_large_or_not_utf8_is_one_fault() {
    let large = vec![b'#'; 2 * 1024 * 1024];
    assert!(read(&large).unwrap_err().contains("found 2097152 bytes; a configuration may have 1048576"));
    let latin1 = b"hostname: a\nenv: caf\xe9\n";
    assert_eq!(
        read(latin1).unwrap_err().lines().last().unwrap().trim(),
        "f:2:9: found byte 0xe9, which is not UTF-8; save the file as UTF-8"
    );
}

#[test]
fn empty_files_windows_line_ends_and_a_byte_order_mark_are_fine() {
    for text in ["", "\n", "# nothing\n", "---\n", "\u{feff}port: 5003\r\nbind: ::1\r\n"] {
        assert!(read(text.as_bytes()).is_ok(), "{text:?}: {:?}", read(text.as_bytes()).err());
    }
}

/// Pieces of which a generator makes something nearer to our files than chance does.
const PIECES: [&str; 28] = [
    "applications:\n",
    "  - name: ",
    "myapp",
    "\n",
    "    ",
    "env:",
    " [",
    "]",
    "{ ",
    " }",
    ": ",
    ", ",
    "&a ",
    "*a",
    "|\n",
    ">-\n",
    "\"",
    "'",
    "# ",
    "---\n",
    "!!str ",
    "<<",
    "replica_ports",
    "base",
    "4000",
    "\t",
    "? ",
    "monitoring",
];

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = read(&bytes);
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,300}") {
        let _ = read(text.as_bytes());
    }

    #[test]
    fn what_looks_like_a_configuration_never_panics(pieces in proptest::collection::vec(0..PIECES.len(), 0..60)) {
        let text: String = pieces.into_iter().map(|it| PIECES[it]).collect();
        let _ = read(text.as_bytes());
    }

    /// One change in a good file: either it is good still, or every fault has a place in the file.
    #[test]
    fn a_good_file_with_a_byte_changed_is_read_or_refused_with_a_place(at in 0usize..5000, byte in any::<u8>()) {
        let mut bytes = include_bytes!("../../deployex.example.yaml").to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Err(faults) = read(&bytes) {
            for line in faults.lines().skip(1) {
                let place = line.trim().strip_prefix("f:").and_then(|it| it.split(':').next()).unwrap_or_default();
                prop_assert!(place.parse::<usize>().is_ok(), "{line}");
            }
        }
    }
}
