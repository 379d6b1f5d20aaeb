//! Which Erlang node a process is, told from how it was started: whatever set its name, a release, `env` or we, it stands there.
//!
//! Reads `/proc` and nothing else; what is found is pure.

use std::io;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

/// Where nobody says otherwise, epmd listens here.
const EPMD_PORT: u16 = 4369;

/// A cookie is an atom.
const LONGEST_COOKIE: u64 = 255;

/// What a process turned out to be.
#[derive(Debug)]
pub enum Started {
    /// A script that has not given way to its virtual machine yet.
    NotYet,
    /// A virtual machine without a name: nobody can talk to it.
    Nameless,
    Node(StartedNode),
}

#[derive(Debug)]
pub struct StartedNode {
    /// With the `@` and the host.
    pub name: String,
    /// `None`: none is set, and there is no file that can be read.
    pub cookie: Option<SecretString>,
    pub epmd_port: u16,
    /// It speaks TLS with all others.
    pub tls: bool,
    /// The file that says how.
    pub tls_options: Option<PathBuf>,
}

/// # Errors
/// Where the process has ended, or may not be looked at.
pub fn look(pid: u32, host: &str) -> io::Result<Started> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    // What it calls itself in its first word is the release's to say. Asked first: a script that gives way to its virtual machine
    // between two looks is then one that has not, where the other way round the machine would have had the script's words.
    let program = std::fs::read_to_string(folder.join("comm"))?;
    let words = std::fs::read(folder.join("cmdline"))?;
    let environment = std::fs::read(folder.join("environ"))?;
    let started = of(&program, &split(&words), &split(&environment), host);
    Ok(match started {
        Started::Node(node) if node.cookie.is_none() => {
            let home = value(&split(&environment), "HOME").map(PathBuf::from);
            let cookie = home.and_then(|home| cookie_in(&home));
            Started::Node(StartedNode { cookie, ..node })
        }
        other => other,
    })
}

fn split(zero_ended: &[u8]) -> Vec<String> {
    let words = zero_ended.split(|byte| *byte == 0);
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Where Erlang looks when nobody passes one. It ends at the first line.
fn cookie_in(home: &Path) -> Option<SecretString> {
    let path = home.join(".erlang.cookie");
    let text = std::fs::metadata(&path)
        .ok()
        .filter(|it| it.is_file() && it.len() <= LONGEST_COOKIE + 2)
        .and_then(|_| std::fs::read_to_string(&path).ok())?;
    text.lines().next().map(str::trim).filter(|it| !it.is_empty()).map(SecretString::from)
}

fn value<'a>(environment: &'a [String], name: &str) -> Option<&'a str> {
    environment.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

/// `host`: the machine's name, the part of a short node name behind the `@`.
fn of(program: &str, words: &[String], environment: &[String], host: &str) -> Started {
    // Linux names a program before it has its words.
    if !program.starts_with("beam") || words.iter().all(String::is_empty) {
        return Started::NotYet;
    }
    let behind = |flag: &str| {
        let at = words.iter().position(|word| word == flag)?;
        words.get(at + 1).filter(|word| !word.starts_with('-')).map(String::as_str)
    };
    let short = host.split('.').next().unwrap_or(host);
    let name = match (behind("-sname"), behind("-name")) {
        (Some(name), _) if !name.contains('@') => format!("{name}@{short}"),
        (None, Some(name)) if !name.contains('@') => format!("{name}@{host}"),
        (Some(name), _) | (None, Some(name)) => name.to_owned(),
        (None, None) => return Started::Nameless,
    };
    Started::Node(StartedNode {
        name,
        cookie: behind("-setcookie").map(SecretString::from),
        epmd_port: value(environment, "ERL_EPMD_PORT").and_then(|it| it.parse().ok()).unwrap_or(EPMD_PORT),
        tls: behind("-proto_dist").is_some_and(|it| it.ends_with("_tls")),
        tls_options: behind("-ssl_dist_optfile").map(PathBuf::from),
    })
}

impl PartialEq for StartedNode {
    fn eq(&self, other: &Self) -> bool {
        let said = |it: &Self| it.cookie.as_ref().map(|it| it.expose_secret().to_owned());
        self.name == other.name
            && self.epmd_port == other.epmd_port
            && self.tls == other.tls
            && self.tls_options == other.tls_options
            && said(self) == said(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(words: &str, environment: &[&str]) -> Option<StartedNode> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let environment: Vec<String> = environment.iter().map(|it| (*it).to_owned()).collect();
        match of("beam.smp", &words, &environment, "web-1.example") {
            Started::Node(node) => Some(node),
            _ => None,
        }
    }

    #[test]
    fn a_node_is_told_from_the_words_of_its_virtual_machine() {
        let words = "/r/bin/shop -Bd -- -root /r -- -noshell -sname shop-1 -setcookie oats";
        let expected = StartedNode {
            name: "shop-1@web-1".to_owned(),
            cookie: Some("oats".into()),
            epmd_port: 5_369,
            tls: false,
            tls_options: None,
        };
        assert_eq!(node(words, &["HOME=/h", "ERL_EPMD_PORT=5369"]), Some(expected));
        let long =
            node("beam.smp -name shop@10.0.0.7 -proto_dist inet_tls -ssl_dist_optfile /s/o", &[]).unwrap();
        assert_eq!((long.name.as_str(), long.epmd_port, long.tls), ("shop@10.0.0.7", 4_369, true));
        assert!(long.cookie.is_none());
        assert_eq!(long.tls_options, Some("/s/o".into()));
        assert_eq!(node("beam.smp -name shop", &[]).unwrap().name, "shop@web-1.example");
    }

    #[test]
    fn a_script_is_no_node_yet_and_a_machine_without_a_name_never_is() {
        let of = |program: &str, words: &[&str]| {
            let words: Vec<String> = words.iter().map(|it| (*it).to_owned()).collect();
            of(program, &words, &[], "web-1")
        };
        assert!(matches!(of("sh\n", &["/bin/sh", "bin/shop", "-sname", "shop"]), Started::NotYet));
        assert!(matches!(of("", &[]), Started::NotYet));
        assert!(matches!(of("beam.smp\n", &[""]), Started::NotYet));
        assert!(matches!(of("beam.smp\n", &["bin/shop", "-noshell"]), Started::Nameless));
        assert!(matches!(of("beam.smp\n", &["bin/shop", "-sname"]), Started::Nameless));
    }

    /// Its look took the script's words for those of the machine, now and then, and nobody looked again.
    #[test]
    fn a_script_that_gives_way_between_two_looks_is_never_a_machine_without_a_name() {
        use std::os::unix::fs::PermissionsExt as _;
        use std::process::{Command, Stdio};

        let folder = tempfile::tempdir().unwrap();
        let [machine, script] = ["beam.smp", "start"].map(|it| folder.path().join(it));
        std::fs::copy("/bin/sh", &machine).unwrap();
        let text = format!("#!/bin/sh\nexec {} -c 'read gone' words -sname shop\n", machine.display());
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        for _ in 0..300 {
            let mut started = Command::new(&script).stdin(Stdio::piped()).spawn().unwrap();
            let found = loop {
                match look(started.id(), "web-1").unwrap() {
                    Started::NotYet => {}
                    other => break other,
                }
            };
            started.kill().unwrap();
            started.wait().unwrap();
            assert!(matches!(&found, Started::Node(node) if node.name == "shop@web-1"), "{found:?}");
        }
    }

    #[test]
    fn a_cookie_is_the_first_line_of_its_file_and_no_longer_than_one_may_be() {
        let home = tempfile::tempdir().unwrap();
        assert!(cookie_in(home.path()).is_none());
        std::fs::write(home.path().join(".erlang.cookie"), "oats\n").unwrap();
        assert_eq!(cookie_in(home.path()).unwrap().expose_secret(), "oats");
        std::fs::write(home.path().join(".erlang.cookie"), "x".repeat(300)).unwrap();
        assert!(cookie_in(home.path()).is_none());
    }
}
