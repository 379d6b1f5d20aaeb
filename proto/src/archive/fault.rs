//! Why an archive was refused: one name per fault, each with a sentence that tells its maker what to change.

use std::fmt;

use crate::state::Language;

/// What is wrong with an archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The container as such.
    #[error(transparent)]
    Stream(#[from] StreamFault),
    /// A tar header that says something else than it may.
    #[error("the tar header {nth} (near {near}) {why}")]
    Header {
        /// Counted from 1.
        nth: u64,
        /// The path of the entry before it.
        near: Quoted,
        why: HeaderFault,
    },
    /// One entry that a release must not have.
    #[error("the entry {path} {why}")]
    Entry { path: Quoted, why: EntryFault },
    /// More of something than a release may have.
    #[error(transparent)]
    Limit(#[from] LimitFault),
    /// A sound archive of something else.
    #[error(transparent)]
    Shape(#[from] ShapeFault),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamFault {
    #[error("the file is empty")]
    Empty,
    #[error("the file is not gzip-compressed; make it with `tar czf`")]
    NotGzip,
    #[error("the file ends in the middle; was its upload cut off?")]
    Truncated,
    #[error("the compressed data is damaged")]
    Damaged,
    #[error("the archive has no entries")]
    NoEntries,
    #[error("something follows the end of the archive")]
    TrailingData,
    #[error("something follows the end of the compressed data")]
    TrailingCompressed,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    #[error("has a wrong checksum; this is not a tar file, or it is damaged")]
    Checksum,
    #[error("has an unreadable number in its field {0:?}")]
    Number(&'static str),
    #[error("is of the unknown kind {0:?}")]
    UnknownKind(char),
    #[error("is an extended header that cannot be read")]
    BadExtension,
    #[error("is an extended header of {0} bytes, which is more than any needs")]
    HugeExtension(u64),
    #[error("is an extended header that nothing follows")]
    DanglingExtension,
    #[error("gives one entry two names")]
    NamedTwice,
    #[error("sets {0:?} for all entries that follow")]
    Global(Quoted),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryFault {
    #[error("has an absolute path")]
    Absolute,
    #[error("has \"..\" in its path")]
    Parent,
    #[error("has a name that is not UTF-8")]
    NotUtf8,
    #[error("has an empty path, or a control character in it")]
    BadName,
    #[error("is in the archive twice, or as two different things")]
    Duplicate,
    #[error("would be written through {0}, which is not a folder")]
    Through(Quoted),
    #[error("is a {kind} to {target}, which {why}")]
    Link { kind: LinkKind, target: Quoted, why: LinkFault },
    #[error("is a {0}; a release holds files, folders and links alone")]
    Special(Special),
    #[error("is a sparse file; make the archive without --sparse")]
    Sparse,
    #[error("has the setuid or setgid bit; take it off (chmod ug-s) before packing")]
    SetId,
    #[error("has two sizes: {header} bytes in its header, {extended} in its extended header")]
    TwoSizes { header: u64, extended: u64 },
    #[error("is not a file and yet has {0} bytes of data")]
    DataInNonFile(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkFault {
    #[error("is absolute")]
    Absolute,
    #[error("leaves the release")]
    Outside,
    #[error("has \"..\" after a folder, so that it cannot be told where it leads")]
    Winding,
    #[error("is no file that comes before it in the archive")]
    NoSuchFile,
    #[error("is empty, too long, not UTF-8 or has a control character")]
    BadName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    Symbolic,
    Hard,
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Symbolic => "symbolic link",
            Self::Hard => "hard link",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    CharacterDevice,
    BlockDevice,
    Fifo,
    Socket,
}

impl fmt::Display for Special {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CharacterDevice => "character device",
            Self::BlockDevice => "block device",
            Self::Fifo => "FIFO",
            Self::Socket => "socket",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitFault {
    #[error("the archive is larger than {0} bytes")]
    ArchiveBytes(u64),
    #[error("the archive unpacks to more than {0} bytes")]
    UnpackedBytes(u64),
    #[error("the archive unpacks to more than {0} times its size: a decompression bomb")]
    Ratio(u64),
    #[error("the archive has more than {0} entries")]
    Entries(usize),
    #[error("the paths in the archive take more than {0} bytes together")]
    NamesBytes(usize),
    #[error("the path {path} is longer than {max} bytes, or a name in it longer than 255")]
    Path { path: Quoted, max: usize },
    #[error("the path {path} is more than {max} folders deep")]
    Depth { path: Quoted, max: usize },
}

/// The archive is sound, but not what this application's language packs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeFault {
    #[error("not {} release of this application: {missing} is missing; at its top are {found}{hint}", article(*.language))]
    Missing { language: Language, missing: String, found: String, hint: Hint },
    #[error("{0} is not executable; pack it with its mode (chmod +x)")]
    NotExecutable(String),
    #[error("{0} is not in erlang-shipment/; pack the folder build/erlang-shipment alone")]
    BesideShipment(Quoted),
}

fn article(language: Language) -> &'static str {
    match language {
        Language::Elixir => "an Elixir",
        Language::Erlang => "an Erlang",
        Language::Gleam => "a Gleam",
    }
}

/// What the archive looks like instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    None,
    /// The release lies in one folder at the top.
    Wrapped(String),
    LooksLike(&'static str),
    /// A release of the right kind whose start script has this name.
    Named(Quoted),
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Wrapped(folder) => write!(f, "; pack what is in {folder}/ without that folder"),
            Self::LooksLike(what) => {
                write!(f, "; it looks like {what}: the application may be configured with the wrong language")
            }
            Self::Named(name) => {
                write!(f, "; it is a release named {name}: name the release or the application as the other")
            }
        }
    }
}

/// A name out of an archive, quoted, escaped and cut, so that a hostile one can neither fill a log nor forge a line.
#[derive(Clone, PartialEq, Eq)]
pub struct Quoted(String);

impl Quoted {
    const MAX_CHARS: usize = 120;

    pub fn new(name: &str) -> Self {
        let mut text: String = name.chars().take(Self::MAX_CHARS).collect();
        if text.len() < name.len() {
            text.push('…');
        }
        Self(text)
    }

    pub fn bytes(name: &[u8]) -> Self {
        Self::new(&String::from_utf8_lossy(&name[..name.len().min(4 * Self::MAX_CHARS)]))
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Debug for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Fault {
    /// One stable word for it, for programs: sentences may change.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Stream(fault) => match fault {
                StreamFault::Empty => "empty-file",
                StreamFault::NotGzip => "not-gzip",
                StreamFault::Truncated => "truncated",
                StreamFault::Damaged => "damaged",
                StreamFault::NoEntries => "no-entries",
                StreamFault::TrailingData => "trailing-data",
                StreamFault::TrailingCompressed => "trailing-compressed-data",
            },
            Self::Header { why, .. } => match why {
                HeaderFault::Checksum => "bad-checksum",
                HeaderFault::Number(_) => "bad-number",
                HeaderFault::UnknownKind(_) => "unknown-kind",
                HeaderFault::BadExtension => "bad-extended-header",
                HeaderFault::HugeExtension(_) => "huge-extended-header",
                HeaderFault::DanglingExtension => "dangling-extended-header",
                HeaderFault::NamedTwice => "named-twice",
                HeaderFault::Global(_) => "global-override",
            },
            Self::Entry { why, .. } => why.code(),
            Self::Limit(fault) => match fault {
                LimitFault::ArchiveBytes(_) => "archive-too-large",
                LimitFault::UnpackedBytes(_) => "unpacks-too-large",
                LimitFault::Ratio(_) => "bomb",
                LimitFault::Entries(_) => "too-many-entries",
                LimitFault::NamesBytes(_) => "names-too-large",
                LimitFault::Path { .. } => "path-too-long",
                LimitFault::Depth { .. } => "path-too-deep",
            },
            Self::Shape(fault) => match fault {
                ShapeFault::Missing { .. } => "not-this-release",
                ShapeFault::NotExecutable(_) => "script-not-executable",
                ShapeFault::BesideShipment(_) => "beside-shipment",
            },
        }
    }
}

impl EntryFault {
    fn code(&self) -> &'static str {
        match self {
            Self::Absolute => "absolute-path",
            Self::Parent => "parent-path",
            Self::NotUtf8 => "name-not-utf8",
            Self::BadName => "bad-name",
            Self::Duplicate => "duplicate",
            Self::Through(_) => "through-non-folder",
            Self::Link { why, .. } => match why {
                LinkFault::Absolute => "link-absolute",
                LinkFault::Outside => "link-outside",
                LinkFault::Winding => "link-winding",
                LinkFault::NoSuchFile => "link-to-nothing",
                LinkFault::BadName => "link-bad-name",
            },
            Self::Special(Special::CharacterDevice | Special::BlockDevice) => "device",
            Self::Special(Special::Fifo) => "fifo",
            Self::Special(Special::Socket) => "socket",
            Self::Sparse => "sparse",
            Self::SetId => "set-id",
            Self::TwoSizes { .. } => "two-sizes",
            Self::DataInNonFile(_) => "data-in-non-file",
        }
    }
}
