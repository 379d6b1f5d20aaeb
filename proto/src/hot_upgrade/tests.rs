//! What leads to a hot upgrade, what does not and in which words; and that files of both kinds of packages are understood.

use super::*;

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn exact(text: &str) -> Matcher {
    Matcher { versions: Versions::Exact(text.to_owned()), restarts: false }
}

/// A release of that version whose own lib has it too, with an appup to and from these.
fn package(vsn: &str, others: &[&str]) -> Package {
    let libs = [("kernel", "8.5.3"), ("stdlib", "4.2"), ("sasl", "4.2"), ("elixir", "1.14.0"), ("demo", vsn)];
    let entries: Vec<Matcher> = others.iter().copied().map(exact).collect();
    let appup = Appup { to: vsn.to_owned(), up: entries.clone(), down: entries, fault: None };
    Package {
        erts: "13.1.5".to_owned(),
        name: "demo".to_owned(),
        libs: libs.into_iter().map(|(lib, vsn)| (lib.to_owned(), vsn.to_owned())).collect(),
        appups: if others.is_empty() { BTreeMap::new() } else { [("demo".to_owned(), appup)].into() },
        ..Package::default()
    }
}

fn said(from: (&str, &Package), to: (&str, &Package)) -> String {
    let (from_version, to_version) = (version(from.0), version(to.0));
    let way = way(
        (&from_version, Some(from.1)),
        (&to_version, Some(to.1)),
        Language::Elixir,
        HotUpgradePolicy::Auto,
    );
    match way {
        Way::Hot => "hot".to_owned(),
        Way::HotDown => "hot down".to_owned(),
        Way::Full { because } => because.to_string(),
    }
}

#[test]
fn appups_lead_up_and_back() {
    let (old, new) = (package("1.1.0", &[]), package("1.2.0", &["1.1.0"]));
    assert_eq!(said(("1.1.0", &old), ("1.2.0", &new)), "hot");
    assert_eq!(said(("1.2.0", &new), ("1.1.0", &old)), "hot down");
    // The other one may be the later of the two by its number.
    assert_eq!(said(("1.2.0", &package("1.2.0", &[])), ("1.1.0", &package("1.1.0", &["1.2.0"]))), "hot");
    let mut one_way = new.clone();
    one_way.appups.get_mut("demo").unwrap().down.clear();
    assert_eq!(said(("1.1.0", &old), ("1.2.0", &one_way)), "hot");
    assert_eq!(said(("1.2.0", &one_way), ("1.1.0", &old)), "lib demo has no appup back to 1.1.0");
    // What only one of them has is started or stopped.
    let mut more = new.clone();
    more.libs.insert("ssl".to_owned(), "10.8.7".to_owned());
    assert_eq!(said(("1.1.0", &old), ("1.2.0", &more)), "hot");
    assert_eq!(said(("1.2.0", &more), ("1.1.0", &old)), "hot down");
}

#[test]
fn every_reason_against_it_is_said_in_its_own_words() {
    let old = package("1.1.0", &[]);
    let new = package("1.2.0", &["1.1.0"]);
    let with = |change: &dyn Fn(&mut Package)| {
        let mut other = new.clone();
        change(&mut other);
        said(("1.1.0", &old), ("1.2.0", &other))
    };
    let appup = |change: fn(&mut Appup)| with(&|it| change(it.appups.get_mut("demo").unwrap()));
    assert_eq!(with(&|it| it.erts = "14.2".to_owned()), "it brings ERTS 14.2, what runs has 13.1.5");
    assert_eq!(
        with(&|it| drop(it.libs.insert("stdlib".to_owned(), "4.3".to_owned()))),
        "stdlib changes from 4.2 to 4.3, which takes a new VM"
    );
    assert_eq!(
        with(&|it| drop(it.libs.remove("sasl"))),
        "1.2.0 has no sasl, whose release_handler does the upgrade"
    );
    assert_eq!(with(&|it| it.appups.clear()), "lib demo has no appup from 1.1.0");
    assert_eq!(
        appup(|it| it.up = vec![exact("1.0.0"), exact("1.1.1")]),
        "lib demo has no appup from 1.1.0: it has one from 1.0.0, 1.1.1"
    );
    assert_eq!(
        with(&|it| {
            it.appups.clear();
            it.libs.insert("elixir".to_owned(), "1.15.0".to_owned());
        }),
        "lib demo has no appup from 1.1.0; one more lib has none either"
    );
    assert_eq!(
        appup(|it| it.fault = Some("line 3: there are too many terms".to_owned())),
        "the appup of lib demo cannot be read: line 3: there are too many terms"
    );
    assert_eq!(
        appup(|it| it.to = "1.1.9".to_owned()),
        "the appup of lib demo is for 1.1.9, and the package holds 1.2.0"
    );
    assert_eq!(appup(|it| it.up[0].restarts = true), "the appup of lib demo asks for a new VM");
    let jellyfish = |from: &str| {
        let it =
            Jellyfish { name: "demo".into(), kind: "project".into(), from: from.into(), to: "1.2.0".into() };
        with(&move |package| package.jellyfish = vec![it.clone()])
    };
    assert_eq!(jellyfish("1.1.0"), "hot");
    assert_eq!(jellyfish("1.0.0"), "jellyfish.json of lib demo is for 1.0.0 to 1.2.0");
    assert_eq!(
        with(&|it| it.fault = Some("it has no releases/1.2.0/demo.rel".to_owned())),
        "the package of 1.2.0: it has no releases/1.2.0/demo.rel"
    );
    assert_eq!(
        said(("1.1.0", &old), ("1.2.0", &old)),
        "no lib has another version, so nothing would be loaded"
    );
    assert_eq!(said(("1.2.0", &old), ("1.2.0", &new)), "it is the same version with other code");
}

#[test]
fn what_was_never_looked_into_and_what_is_not_wished_is_full() {
    let (old, new) = (package("1.1.0", &[]), package("1.2.0", &["1.1.0"]));
    let (from, to) = (version("1.1.0"), version("1.2.0"));
    let full = |old: Option<&Package>, language, policy| {
        way((&from, old), (&to, Some(&new)), language, policy).because().map(Because::to_string)
    };
    assert_eq!(
        full(None, Language::Erlang, HotUpgradePolicy::Require).unwrap(),
        "the package of 1.1.0 was recorded before packages were looked into"
    );
    assert_eq!(
        full(Some(&old), Language::Erlang, HotUpgradePolicy::Never).unwrap(),
        "deploy.hot_upgrade is never"
    );
    assert_eq!(
        full(Some(&old), Language::Gleam, HotUpgradePolicy::Auto).unwrap(),
        "a Gleam shipment cannot be upgraded in the running VM"
    );
    assert_eq!(full(Some(&old), Language::Erlang, HotUpgradePolicy::Require), None);
}

#[test]
fn a_package_is_kept_as_it_is() {
    let mut package = package("1.2.0", &["1.1.0", "1.0.0"]);
    let appup = package.appups.get_mut("demo").unwrap();
    appup.up.push(Matcher { versions: Versions::Expression(r"^0\..*".to_owned()), restarts: true });
    let stored = serde_json::to_string(&package).unwrap();
    assert_eq!(serde_json::from_str::<Package>(&stored).unwrap(), package);
    assert_eq!(serde_json::from_str::<Package>("{}").unwrap(), Package::default());
    assert!(stored.contains(r#"{"exact":"1.1.0"}"#), "{stored}");
}

#[cfg(feature = "archive")]
mod files {
    use super::*;

    const REL: &str = r#"%% coding: utf-8
{release,{"demo","0.2.0"},
         {erts,"13.1.5"},
         [{kernel,"8.5.3",permanent},
          {stdlib,"4.2",permanent},
          {sasl,"4.2",permanent},
          {plug,"1.1.0"},
          {ssl,"10.8.7",permanent,[crypto]},
          {demo,"0.2.0",permanent}]}."#;
    const APPUP: &str = r#"{"0.2.0",
 [{"0.1.0", [{load_module,'Elixir.Demo.Page'}]}, {<<"0\\.0\\..*">>, [restart_new_emulator]}],
 [{"0.1.0", [{update,'Elixir.Demo.Server',{advanced,[]},[]}]}]}."#;
    const SSL: &str = r#"{"10.8.7", [{<<"10\\..*">>, [{restart_application, ssl}]}], []}."#;

    fn files(tree: &[(&str, &str)]) -> Files {
        let kept: BTreeMap<String, Vec<u8>> =
            tree.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
        assert!(kept.keys().all(|it| is_wanted(it)));
        Files { kept, ..Files::default() }
    }

    fn package(tree: &[(&str, &str)]) -> Package {
        read(&"demo".parse().unwrap(), &files(tree))
    }

    const START: (&str, &str) = ("releases/start_erl.data", "13.1.5 0.2.0");

    #[test]
    fn what_jellyfish_packs_is_read() {
        let jellyfish = r#"{"name":"demo","from":"0.1.0","to":"0.2.0"}"#;
        let found = package(&[
            START,
            ("releases/0.2.0/demo.rel", REL),
            ("releases/demo-0.2.0.rel", "nonsense"),
            ("lib/demo-0.2.0/ebin/demo.appup", APPUP),
            ("lib/demo-0.2.0/ebin/jellyfish.json", jellyfish),
            ("lib/plug-1.1.0/ebin/plug.appup", "{\"1.1.0\","),
            ("lib/ssl-10.8.7/ebin/ssl.appup", SSL),
            ("lib/kernel-8.5.3/ebin/kernel.appup", SSL),
            // Of a release before it, forgotten in the folder.
            ("lib/demo-0.1.0/ebin/demo.appup", "nonsense"),
        ]);
        assert_eq!((found.name.as_str(), found.erts.as_str()), ("demo", "13.1.5"));
        let libs: Vec<_> = found.libs.iter().map(|(lib, version)| format!("{lib} {version}")).collect();
        assert_eq!(
            libs,
            ["demo 0.2.0", "kernel 8.5.3", "plug 1.1.0", "sasl 4.2", "ssl 10.8.7", "stdlib 4.2"]
        );
        assert_eq!(found.appups.keys().collect::<Vec<_>>(), ["demo", "plug", "ssl"]);
        let demo = &found.appups["demo"];
        assert_eq!((demo.to.as_str(), &demo.down), ("0.2.0", &vec![exact("0.1.0")]));
        let expression = Versions::Expression(r"0\.0\..*".to_owned());
        assert_eq!(demo.up, [exact("0.1.0"), Matcher { versions: expression, restarts: true }]);
        let fault = found.appups["plug"].fault.as_deref();
        assert_eq!(fault, Some("line 1: the file ends in the middle of a term"));
        let Jellyfish { name, kind, from, to } = &found.jellyfish[0];
        assert_eq!([name, kind, from, to], ["demo", "project", "0.1.0", "0.2.0"]);
        assert_eq!(found.fault, None);
    }

    #[test]
    fn what_rebar3_packs_is_read() {
        let found = package(&[
            START,
            ("releases/demo.rel", REL),
            ("releases/0.2.0/demo.rel", REL),
            ("lib/demo-0.2.0/priv/appup/demo.appup", APPUP),
        ]);
        assert_eq!(found.appups["demo"].up.len(), 2);
        assert_eq!((found.jellyfish, found.fault), (Vec::new(), None));
    }

    #[test]
    fn what_cannot_be_read_is_said_and_no_reason_to_stop() {
        let fault = |tree: &[(&str, &str)]| package(tree).fault.unwrap();
        let rel = "releases/0.2.0/demo.rel";
        assert_eq!(fault(&[]), "it has no releases/start_erl.data that names a version");
        assert_eq!(fault(&[START]), "it has no releases/0.2.0/demo.rel");
        assert_eq!(
            fault(&[START, (rel, "{release,\n")]),
            "releases/0.2.0/demo.rel: line 2: the file ends in the middle of a term"
        );
        assert_eq!(
            fault(&[START, (rel, "{a,b,c,d}.")]),
            "releases/0.2.0/demo.rel: it does not describe a release"
        );
        let odd = "{\"0.2.0\", [{any, []}], []}.";
        let found = package(&[START, (rel, REL), ("lib/demo-0.2.0/ebin/demo.appup", odd)]);
        let expected = "it is no {Version, [{From, Script}], [{To, Script}]}";
        assert_eq!(found.appups["demo"].fault.as_deref(), Some(expected));
        let found = package(&[START, (rel, REL), ("lib/demo-0.2.0/ebin/jellyfish.json", "{}")]);
        assert!(found.appups["demo"].fault.as_deref().unwrap().starts_with("jellyfish.json beside it"));

        let mut large = files(&[START, (rel, REL)]);
        large.too_large.insert("lib/demo-0.2.0/ebin/demo.appup".to_owned());
        let found = read(&"demo".parse().unwrap(), &large);
        assert_eq!(found.appups["demo"].fault.as_deref(), Some("it is too large to be looked into"));
        large.too_many = true;
        assert!(read(&"demo".parse().unwrap(), &large).fault.unwrap().contains("more appups"));
    }

    #[test]
    fn what_is_stored_of_a_package_is_bounded() {
        let libs = |many: usize| {
            let libs: Vec<String> = (0..many).map(|nth| format!("{{lib{nth},\"1\"}}")).collect();
            format!("{{release,{{\"demo\",\"0.2.0\"}},{{erts,\"1\"}},[{}]}}.", libs.join(","))
        };
        let (rel, many) = (libs(900), libs(1_001));
        let fault = package(&[START, ("releases/0.2.0/demo.rel", &many)]).fault.unwrap();
        assert!(fault.ends_with("more than 1000 libs"), "{fault}");
        let entries = |many: usize| {
            let entries = vec![format!("{{\"{}\",[]}}", "9".repeat(200)); many].join(",");
            format!("{{\"1\",[{entries}],[]}}.")
        };
        let mut tree = files(&[START, ("releases/0.2.0/demo.rel", &rel)]);
        for nth in 0..20 {
            let path = format!("lib/lib{nth}-1/ebin/lib{nth}.appup");
            tree.kept.insert(path, entries(if nth == 0 { 201 } else { 20 }).into_bytes());
        }
        let found = read(&"demo".parse().unwrap(), &tree);
        assert_eq!(found.appups["lib0"].fault.as_deref(), Some("more than 200 entries"));
        assert_eq!(found.fault, None);
        for nth in 0..20 {
            tree.kept.insert(format!("lib/lib{nth}-1/ebin/lib{nth}.appup"), entries(200).into_bytes());
        }
        let found = read(&"demo".parse().unwrap(), &tree);
        assert_eq!(found.fault.as_deref(), Some("its appups have more entries than are kept"));
        assert!(serde_json::to_string(&found).unwrap().len() < 64 << 10);
    }

    /// Whatever bytes there are: an answer, of bounded size, and the same one again.
    #[test]
    fn mangled_files_are_answered_too() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |most: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % most as u64).unwrap()
        };
        let pieces: [&[u8]; 10] = [b"{", b"}", b"[", b"]", b"\"", b"<<", b"'", b"\\x{", b"\xff", b"#{"];
        let app = "demo".parse().unwrap();
        let mut read_well = 0;
        for _ in 0..4_000 {
            let mut tree = files(&[
                START,
                ("releases/0.2.0/demo.rel", REL),
                ("lib/demo-0.2.0/ebin/demo.appup", APPUP),
                ("lib/ssl-10.8.7/ebin/ssl.appup", SSL),
                ("lib/demo-0.2.0/ebin/jellyfish.json", r#"{"name":"demo","from":"0.1.0","to":"0.2.0"}"#),
            ]);
            let path = tree.kept.keys().nth(below(5)).unwrap().clone();
            let bytes = tree.kept.get_mut(&path).unwrap();
            for _ in 0..=below(3) {
                let at = below(bytes.len().max(1)).min(bytes.len());
                match below(4) {
                    0 => bytes.truncate(at),
                    1 => drop(bytes.splice(at..at, pieces[below(pieces.len())].iter().copied())),
                    2 if at < bytes.len() => drop(bytes.remove(at)),
                    _ if at < bytes.len() => bytes[at] = u8::try_from(below(256)).unwrap(),
                    _ => {}
                }
            }
            let found = read(&app, &tree);
            assert_eq!(read(&app, &tree), found);
            let stored = serde_json::to_string(&found).unwrap();
            assert!(stored.len() < 4_096, "{stored}");
            assert_eq!(serde_json::from_str::<Package>(&stored).unwrap(), found);
            let [old, new] = ["0.1.0", "0.2.0"].map(version);
            let old_package = super::package("0.1.0", &[]);
            let way = way(
                (&old, Some(&old_package)),
                (&new, Some(&found)),
                Language::Elixir,
                HotUpgradePolicy::Auto,
            );
            read_well += u32::from(found.fault.is_none());
            if let Some(because) = way.because() {
                assert!(because.to_string().len() < 1_024, "{because}");
            }
        }
        assert!((500..4_000).contains(&read_well), "{read_well}");
    }
}
