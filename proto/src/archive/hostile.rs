//! Archives that no honest archiver makes, for the tests of whoever reads them: [`Builder`] writes raw headers and says what
//! it is told, [`samples`] is one archive per way in that is known.
//!
//! Test material alone (feature `hostile-archives`); nothing here is linked into a program.

#![allow(clippy::expect_used, reason = "writing into memory; and this is test material")]

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::header::{BLOCK, checksum};

/// A tar, header by header.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    tar: Vec<u8>,
}

/// One header's fields, as they will lie in the archive.
#[derive(Clone, Debug)]
pub struct RawHeader {
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: u8,
    pub mode: u32,
    /// What the header claims.
    pub size: u64,
    pub prefix: Vec<u8>,
}

impl RawHeader {
    pub fn new(kind: u8, name: impl AsRef<[u8]>) -> Self {
        Self {
            name: name.as_ref().to_vec(),
            link: Vec::new(),
            kind,
            mode: 0o755,
            size: 0,
            prefix: Vec::new(),
        }
    }

    #[must_use]
    pub fn link(mut self, link: impl AsRef<[u8]>) -> Self {
        self.link = link.as_ref().to_vec();
        self
    }

    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    #[must_use]
    pub fn size(mut self, size: u64) -> Self {
        self.size = size;
        self
    }

    #[must_use]
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Self {
        self.prefix = prefix.as_ref().to_vec();
        self
    }

    pub fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name);
        put(100, format!("{:07o}\0", self.mode).as_bytes());
        put(108, b"0001750\x000001750\0");
        put(124, format!("{:011o}\0", self.size).as_bytes());
        put(136, b"14000000000\0");
        put(156, &[self.kind]);
        put(157, &self.link);
        put(257, b"ustar\x0000");
        put(345, &self.prefix);
        seal(&mut block);
        block
    }
}

/// Makes the block's checksum right.
pub fn seal(block: &mut [u8; BLOCK]) {
    let sum = format!("{:06o}\0 ", checksum(block));
    block[148..156].copy_from_slice(sum.as_bytes());
}

impl Builder {
    pub fn new() -> Self {
        Self::default()
    }

    /// A small Elixir release of the application `demo`: the start of most samples, so that nothing but the sample's own
    /// fault can be what is found.
    pub fn elixir() -> Self {
        Self::new()
            .folder("./")
            .folder("bin/")
            .file("bin/demo", 0o755, b"#!/bin/sh\nexec sleep 60\n")
            .file("erts-13.1.5/bin/beam.smp", 0o755, &b"\x7fELF".repeat(100))
            .file("lib/demo-0.1.0/ebin/demo.beam", 0o644, b"FOR1 a module")
            .file("lib/demo-0.1.0/ebin/demo.app", 0o644, b"{application,demo,[]}.\n")
            .file("lib/demo-0.1.0/priv/static/app.js", 0o644, b"1;\n")
            .file("releases/COOKIE", 0o400, b"secret")
            .file("releases/start_erl.data", 0o644, b"13.1.5 0.1.0")
            .file(
                "releases/0.1.0/demo.rel",
                0o644,
                b"%% coding: utf-8\n{release,{\"demo\",\"0.1.0\"},{erts,\"13.1.5\"},\n [{kernel,\"8.5.3\"},{demo,\"0.1.0\",permanent}]}.\n",
            )
    }

    /// A small shipment of the application `demo`.
    pub fn gleam() -> Self {
        Self::new()
            .folder("erlang-shipment/")
            .file("erlang-shipment/entrypoint.sh", 0o755, b"#!/bin/sh\n")
            .file("erlang-shipment/demo/ebin/demo@@main.beam", 0o644, b"FOR1")
            .file("erlang-shipment/demo/ebin/demo.app", 0o644, b"{application,demo,[]}.\n")
    }

    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.tar.extend_from_slice(bytes);
        self
    }

    #[must_use]
    pub fn header(self, header: &RawHeader) -> Self {
        self.raw(&header.block())
    }

    /// Bytes and the padding to the next block.
    #[must_use]
    pub fn data(mut self, bytes: &[u8]) -> Self {
        self.tar.extend_from_slice(bytes);
        self.tar.resize(self.tar.len().next_multiple_of(BLOCK), 0);
        self
    }

    #[must_use]
    pub fn folder(self, name: &str) -> Self {
        self.header(&RawHeader::new(b'5', name))
    }

    #[must_use]
    pub fn file(self, name: impl AsRef<[u8]>, mode: u32, bytes: &[u8]) -> Self {
        self.header(&RawHeader::new(b'0', name).mode(mode).size(bytes.len() as u64)).data(bytes)
    }

    #[must_use]
    pub fn symlink(self, name: &str, target: impl AsRef<[u8]>) -> Self {
        self.header(&RawHeader::new(b'2', name).link(target))
    }

    #[must_use]
    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.header(&RawHeader::new(b'1', name).link(target))
    }

    /// An extended header (`x`, `g`, `L` or `K`) with this body.
    #[must_use]
    pub fn extended(self, kind: u8, body: &[u8]) -> Self {
        self.header(&RawHeader::new(kind, "././@ext").size(body.len() as u64)).data(body)
    }

    #[must_use]
    pub fn pax(self, records: &[(&str, &str)]) -> Self {
        self.extended(b'x', &pax_records(records))
    }

    /// With the end mark, compressed.
    pub fn gzip(self) -> Vec<u8> {
        self.data(&[0; 2 * BLOCK]).gzip_open()
    }

    /// Without the end mark, compressed.
    pub fn gzip_open(self) -> Vec<u8> {
        gzip(&self.tar)
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

pub fn pax_records(records: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (1..9).map(|digits| rest + digits).find(|n| n.to_string().len() + rest == *n);
        body.extend_from_slice(format!("{} {key}={value}\n", length.expect("there is one")).as_bytes());
    }
    body
}

/// A hostile archive of the Elixir application `demo`.
#[derive(Clone, Debug)]
pub struct Sample {
    pub name: &'static str,
    /// [`super::Fault::code`] of the fault that must be found.
    pub code: &'static str,
    pub archive: Vec<u8>,
}

/// Text that every sample which tries to get out puts into the file it would make there.
pub const MARK: &[u8] = b"written by a hostile archive";

/// One archive per way in. All are refused under the default [`super::Limits`].
pub fn samples() -> Vec<Sample> {
    let mut all = paths();
    all.extend(links());
    all.extend(kinds());
    all.extend(extensions());
    all.extend(containers());
    all
}

fn sample(name: &'static str, code: &'static str, builder: Builder) -> Sample {
    Sample { name, code, archive: builder.gzip() }
}

fn paths() -> Vec<Sample> {
    let elixir = Builder::elixir;
    let deep = "d/".repeat(40) + "f";
    let long_name = "n".repeat(256);
    let long_path = format!("{}/f", vec!["p".repeat(200); 6].join("/"));
    vec![
        sample("absolute path", "absolute-path", elixir().file("/tmp/dx-escape", 0o644, MARK)),
        sample("absolute folder", "absolute-path", elixir().folder("/tmp/dx-escape.d/")),
        sample("absolute path by the prefix field", "absolute-path", {
            let header = RawHeader::new(b'0', "dx-escape").prefix("/tmp").size(MARK.len() as u64);
            elixir().header(&header).data(MARK)
        }),
        sample("two slashes at the front", "absolute-path", elixir().file("//tmp/dx-escape", 0o644, MARK)),
        sample("parent path", "parent-path", elixir().file("../escape", 0o644, MARK)),
        sample("parent path in the middle", "parent-path", elixir().file("lib/../../escape", 0o644, MARK)),
        sample("parent path at the end", "parent-path", elixir().folder("lib/..")),
        sample("parent path that stays inside", "parent-path", elixir().file("lib/../bin/x", 0o644, MARK)),
        sample("parent path by the prefix field", "parent-path", {
            let header = RawHeader::new(b'0', "escape").prefix("..").size(MARK.len() as u64);
            elixir().header(&header).data(MARK)
        }),
        sample("name that is not UTF-8", "name-not-utf8", elixir().file(b"lib/\xff\xfe", 0o644, MARK)),
        sample("newline in a name", "bad-name", elixir().file("lib/a\nb", 0o644, MARK)),
        sample("escape sequence in a name", "bad-name", elixir().file("lib/\x1b[2J", 0o644, MARK)),
        sample("empty name", "bad-name", elixir().file("", 0o644, MARK)),
        sample("the root as a file", "bad-name", elixir().file(".", 0o644, MARK)),
        sample("file twice", "duplicate", elixir().file("bin/demo", 0o755, MARK)),
        sample("file twice by another spelling", "duplicate", elixir().file("./bin//demo", 0o755, MARK)),
        sample("folder over a file", "duplicate", elixir().folder("bin/demo/")),
        sample("file over a folder", "duplicate", elixir().file("lib", 0o644, MARK)),
        sample("file below a file", "through-non-folder", elixir().file("bin/demo/x", 0o644, MARK)),
        sample("too many folders", "path-too-deep", elixir().file(&deep, 0o644, MARK)),
        sample(
            "name of 256 bytes",
            "path-too-long",
            elixir().pax(&[("path", &long_name)]).file("x", 0o644, MARK),
        ),
        sample(
            "path of 1,200 bytes",
            "path-too-long",
            elixir().extended(b'L', long_path.as_bytes()).file("x", 0o644, MARK),
        ),
    ]
}

fn links() -> Vec<Sample> {
    let elixir = Builder::elixir;
    vec![
        sample("symlink to an absolute path", "link-absolute", elixir().symlink("lib/x", "/etc/passwd")),
        sample("symlink out", "link-outside", elixir().symlink("lib/x", "../../outside")),
        sample("symlink out of the top", "link-outside", elixir().symlink("x", "..")),
        sample("symlink that winds out", "link-winding", elixir().symlink("x", "lib/../../outside")),
        sample("symlink with no target", "link-bad-name", elixir().symlink("x", "")),
        sample("symlink to a name that is not UTF-8", "link-bad-name", elixir().symlink("x", b"\xff")),
        sample(
            "write through a symlink",
            "through-non-folder",
            elixir().symlink("lib/x", "../bin").file("lib/x/escape", 0o644, MARK),
        ),
        sample(
            "symlink out, then write through it",
            "link-outside",
            elixir().symlink("lib/x", "../../").file("lib/x/escape", 0o644, MARK),
        ),
        sample(
            "file over a symlink",
            "duplicate",
            elixir().symlink("lib/x", "../bin/demo").file("lib/x", 0o644, MARK),
        ),
        sample(
            "folder over a symlink",
            "duplicate",
            elixir().symlink("lib/x", "demo-0.1.0").folder("lib/x/").file("lib/x/f", 0o644, MARK),
        ),
        sample("symlink over a folder", "duplicate", elixir().symlink("lib", "bin")),
        sample("hard link to an absolute path", "link-absolute", elixir().hard_link("lib/x", "/etc/passwd")),
        sample("hard link out", "link-outside", elixir().hard_link("lib/x", "../outside")),
        sample("hard link to nothing", "link-to-nothing", elixir().hard_link("lib/x", "lib/none")),
        sample(
            "hard link to a symlink",
            "link-to-nothing",
            elixir().symlink("lib/s", "demo-0.1.0").hard_link("lib/x", "lib/s"),
        ),
        sample(
            "hard link, then write to it",
            "duplicate",
            elixir().hard_link("lib/x", "bin/demo").file("lib/x", 0o644, MARK),
        ),
        sample("hard link with data", "data-in-non-file", {
            let header = RawHeader::new(b'1', "lib/x").link("bin/demo").size(MARK.len() as u64);
            elixir().header(&header).data(MARK)
        }),
    ]
}

fn kinds() -> Vec<Sample> {
    let elixir = Builder::elixir;
    let entry = |kind: u8| elixir().header(&RawHeader::new(kind, "lib/x"));
    vec![
        sample("character device", "device", entry(b'3')),
        sample("block device", "device", entry(b'4')),
        sample("FIFO", "fifo", entry(b'6')),
        sample("socket", "socket", entry(b's')),
        sample("GNU sparse file", "sparse", entry(b'S')),
        sample("volume label", "unknown-kind", entry(b'V')),
        sample("continued volume", "unknown-kind", entry(b'M')),
        sample("setuid", "set-id", elixir().file("bin/su", 0o4755, MARK)),
        sample("setgid", "set-id", elixir().file("bin/sg", 0o2755, MARK)),
        sample("setgid folder", "set-id", elixir().header(&RawHeader::new(b'5', "lib/x").mode(0o2755))),
        sample("folder with data", "data-in-non-file", {
            elixir().header(&RawHeader::new(b'5', "lib/x").size(512)).data(&[0; 512])
        }),
    ]
}

fn extensions() -> Vec<Sample> {
    let elixir = Builder::elixir;
    let file = |builder: Builder| builder.file("lib/x", 0o644, MARK);
    // What is one file to who believes the header, and an entry of its own to who believes the extension.
    let hidden = Builder::new().file("../escape", 0o644, MARK).tar;
    vec![
        sample(
            "size lie in a PAX header: less",
            "two-sizes",
            elixir().pax(&[("size", "0")]).file("lib/x", 0o644, &hidden),
        ),
        sample("size lie in a PAX header: more", "two-sizes", file(elixir().pax(&[("size", "99999999")]))),
        sample(
            "absolute path in a PAX header",
            "absolute-path",
            file(elixir().pax(&[("path", "/tmp/dx-escape")])),
        ),
        sample("parent path in a PAX header", "parent-path", file(elixir().pax(&[("path", "../escape")]))),
        sample(
            "link target in a PAX header",
            "link-outside",
            elixir().pax(&[("linkpath", "../../outside")]).symlink("lib/x", "ok"),
        ),
        sample("PAX sparse file", "sparse", file(elixir().pax(&[("GNU.sparse.major", "1")]))),
        sample("PAX path twice", "named-twice", file(elixir().pax(&[("path", "lib/a"), ("path", "../b")]))),
        sample(
            "PAX and GNU path",
            "named-twice",
            file(elixir().pax(&[("path", "lib/a")]).extended(b'L', b"../escape\0")),
        ),
        sample(
            "two PAX headers",
            "named-twice",
            file(elixir().pax(&[("path", "a")]).pax(&[("path", "../b")])),
        ),
        sample(
            "PAX record of a wrong length",
            "bad-extended-header",
            file(elixir().extended(b'x', b"99 path=x\n")),
        ),
        sample("PAX size that is no number", "bad-number", file(elixir().pax(&[("size", "-1")]))),
        sample(
            "PAX header of 1 MiB",
            "huge-extended-header",
            file(elixir().extended(b'x', &vec![b'x'; 1 << 20])),
        ),
        sample("PAX header at the end", "dangling-extended-header", elixir().pax(&[("path", "lib/x")])),
        sample(
            "path for all entries",
            "global-override",
            file(elixir().extended(b'g', &pax_records(&[("path", "../escape")]))),
        ),
        sample("GNU path out", "parent-path", file(elixir().extended(b'L', b"lib/../../escape\0"))),
        sample("NUL in a GNU path", "bad-name", file(elixir().extended(b'L', b"lib/a\0/../../escape\0"))),
        sample(
            "GNU path of 1 MiB",
            "huge-extended-header",
            file(elixir().extended(b'L', &vec![b'x'; 1 << 20])),
        ),
        sample(
            "GNU link target out",
            "link-outside",
            elixir().extended(b'K', b"../../../outside\0").symlink("lib/x", "ok"),
        ),
    ]
}

fn containers() -> Vec<Sample> {
    let elixir = Builder::elixir;
    let whole = elixir().gzip();
    let as_is = |name, code, archive| Sample { name, code, archive };
    let mut bad_sum = RawHeader::new(b'0', "lib/x").block();
    bad_sum[0] ^= 1;
    let mut bad_size = RawHeader::new(b'0', "lib/x").block();
    bad_size[124..136].copy_from_slice(b"-0000000001\0");
    seal(&mut bad_size);
    let mut damaged = whole.clone();
    let crc = damaged.len() - 8;
    damaged[crc] ^= 0xff;
    vec![
        as_is("empty file", "empty-file", Vec::new()),
        as_is("plain tar", "not-gzip", elixir().data(&[0; 1024]).tar),
        as_is("zip", "not-gzip", b"PK\x03\x04 and more".to_vec()),
        as_is("one byte of gzip", "truncated", vec![0x1f]),
        as_is("half a gzip header", "truncated", whole[..6].to_vec()),
        as_is("gzip cut in the middle", "truncated", whole[..whole.len() / 2].to_vec()),
        as_is("gzip without its trailer", "truncated", whole[..whole.len() - 8].to_vec()),
        as_is("wrong checksum of the data", "damaged", damaged),
        as_is("tar cut in a file", "truncated", {
            elixir().header(&RawHeader::new(b'0', "lib/x").size(5000)).data(MARK).gzip_open()
        }),
        as_is("tar cut in a header", "truncated", elixir().raw(&[b'x'; 100]).gzip_open()),
        as_is("tar without its end", "truncated", elixir().gzip_open()),
        as_is("gzip of something else", "bad-checksum", gzip(&b"not a tar at all\n".repeat(100))),
        sample("wrong checksum of a header", "bad-checksum", elixir().raw(&bad_sum)),
        sample("negative size", "bad-number", elixir().raw(&bad_size)),
        sample("empty archive", "no-entries", Builder::new()),
        sample("nothing but the root", "no-entries", Builder::new().folder("./")),
        sample(
            "entries after the end",
            "trailing-data",
            elixir().data(&[0; 1024]).file("../escape", 0o644, MARK),
        ),
        as_is("a second gzip after the first", "trailing-compressed-data", [&*whole, &*whole].concat()),
        as_is("bytes after the gzip", "trailing-compressed-data", [&*whole, b"x"].concat()),
        sample("claims 4 TiB", "unpacks-too-large", {
            let mut block = RawHeader::new(b'0', "lib/x").block();
            block[124..136].copy_from_slice(b"\x80\0\0\0\0\0\x04\0\0\0\0\0");
            seal(&mut block);
            elixir().raw(&block)
        }),
        as_is("bomb", "bomb", bomb()),
        sample("another language", "not-this-release", Builder::gleam()),
        sample("release in a folder", "not-this-release", {
            Builder::new()
                .file("demo/bin/demo", 0o755, b"")
                .file("demo/lib/x", 0o644, b"")
                .folder("demo/releases/")
        }),
        sample("script that cannot run", "script-not-executable", {
            Builder::new().file("bin/demo", 0o644, b"").folder("lib/").folder("releases/")
        }),
    ]
}

/// 100 MiB of zeros in about 100 kB.
fn bomb() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let header = RawHeader::new(b'0', "lib/zeros").size(100 << 20).block();
    encoder.write_all(&Builder::elixir().raw(&header).tar).expect("memory takes it");
    let zeros = vec![0; 1 << 20];
    for _ in 0..100 {
        encoder.write_all(&zeros).expect("memory takes it");
    }
    encoder.write_all(&[0; 2 * BLOCK]).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}
