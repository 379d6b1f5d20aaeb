//! The picture by which an application shows itself, out of the release that a slot runs: Phoenix' `priv/static/images/logo.svg`
//! and its like.
//!
//! What lies in a slot's folder belongs to the application's user, who may put a link there to what that user may not read: no
//! link is followed, nothing outside of the release is opened, and only so much of it is read.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::agent::{LARGEST_LOGO, LOGO_TYPES};
use proto::ids::{AppName, BadName, Slot};
use proto::pb;
use rustix::fs::{Dir, Mode, OFlags, ResolveFlags, open, openat2};
use tokio::sync::Semaphore;

use super::SlotFolder;

/// Below an OTP application's folder, best first; the endings are those of [`LOGO_TYPES`].
const NAMES: [&str; 5] = [
    "priv/static/images/logo.svg",
    "priv/static/images/logo.png",
    "priv/static/favicon.svg",
    "priv/static/favicon.png",
    "priv/static/favicon.ico",
];
/// OTP applications that are looked at; a release has some fifty.
const MOST_APPLICATIONS: usize = 500;

/// Read at a time: a disk that stalls takes no more threads than this.
const AT_A_TIME: usize = 1;

/// `{var}/service`: where the slots' releases lie. Clones share how many are read.
#[derive(Clone, Debug)]
pub struct Logos {
    service: PathBuf,
    places: Arc<Semaphore>,
}

#[derive(Debug, thiserror::Error)]
pub enum LogoError {
    #[error(transparent)]
    Name(#[from] BadName),
    #[error("the release in slot {slot} of {app} has no logo")]
    None { app: AppName, slot: Slot },
    #[error("the logo in slot {slot} of {app} cannot be read: {why}")]
    Io { app: AppName, slot: Slot, why: io::Error },
    #[error("the logo in slot {slot} of {app} has more than {LARGEST_LOGO} bytes")]
    TooLarge { app: AppName, slot: Slot },
}

impl Logos {
    pub fn new(service: PathBuf) -> Self {
        Self { service, places: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// On a thread that may block.
    ///
    /// # Errors
    /// Where there is none, or none that may be read: why, a sentence.
    pub async fn give(&self, wish: pb::ReadLogo) -> Result<pb::Logo, String> {
        let place = self.places.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        let logos = self.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let _place = place;
            logos.read(&wish)
        });
        reading.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// Blocks.
    fn read(&self, wish: &pb::ReadLogo) -> Result<pb::Logo, LogoError> {
        let (app, slot) = (wish.app.parse::<AppName>()?, Slot::new(wish.slot)?);
        let folder = self.service.join(app.as_str()).join(slot.to_string());
        let release = SlotFolder::at(folder, String::new()).current();
        let (name, file) = find(&release, &app).ok_or_else(|| LogoError::None { app: app.clone(), slot })?;
        let mut data = Vec::new();
        let read = file.take(LARGEST_LOGO as u64 + 1).read_to_end(&mut data);
        read.map_err(|why| LogoError::Io { app: app.clone(), slot, why })?;
        if data.len() > LARGEST_LOGO {
            return Err(LogoError::TooLarge { app, slot });
        }
        let ending = name.rsplit('.').next().unwrap_or_default();
        let media_type = LOGO_TYPES.iter().find(|(it, _)| *it == ending).map_or("", |(_, it)| it);
        Ok(pb::Logo { media_type: media_type.to_owned(), data: data.into() })
    }
}

/// Whether the release has one. Blocks.
pub fn is_there(release: &Path, app: &AppName) -> bool {
    find(release, app).is_some()
}

/// Its name in the release, and the file.
fn find(release: &Path, app: &AppName) -> Option<(String, File)> {
    let folder = open(release, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let lib = beneath(&folder, "lib", OFlags::DIRECTORY)?;
    let entries = Dir::read_from(&lib).ok()?.flatten().take(MOST_APPLICATIONS);
    let mut folders: Vec<String> =
        entries.filter_map(|it| it.file_name().to_str().ok().map(str::to_owned)).collect();
    folders.sort();
    // An icon of its own tells an application better than another's picture.
    [Whose::Its, Whose::ItsPart].into_iter().find_map(|whose| {
        let folders: Vec<&String> = folders.iter().filter(|it| whose_is(it, app) == Some(whose)).collect();
        let names = NAMES.iter().flat_map(|name| folders.iter().map(move |it| format!("lib/{it}/{name}")));
        names.into_iter().find_map(|name| Some((name.clone(), plain(&folder, &name)?)))
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Its,
    /// Of an umbrella, or of a library: `mix phx.new` calls web applications so.
    ItsPart,
}

/// Of a folder `{application}-{version}`; no name of an OTP application has a hyphen.
fn whose_is(folder: &str, app: &AppName) -> Option<Whose> {
    let (application, _) = folder.split_once('-')?;
    let app = app.as_str().replace('-', "_");
    match application {
        it if it == app || it.strip_prefix(app.as_str()) == Some("_web") => Some(Whose::Its),
        it if it.ends_with("_web") => Some(Whose::ItsPart),
        _ => None,
    }
}

/// A plain file that no link leads to, and not too large a one.
fn plain(folder: &OwnedFd, name: &str) -> Option<File> {
    let file = File::from(beneath(folder, name, OFlags::NONBLOCK)?);
    let found = file.metadata().ok()?;
    (found.is_file() && found.len() <= LARGEST_LOGO as u64).then_some(file)
}

/// Never by a link, and never on another file system, which might not answer.
fn beneath(folder: &OwnedFd, name: &str, flags: OFlags) -> Option<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    openat2(folder, name, flags, Mode::empty(), resolve).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::CWD;

    use super::*;

    struct World(tempfile::TempDir);

    impl World {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn release(&self) -> PathBuf {
            self.0.path().join("shop/2/current")
        }

        fn write(&self, name: &str, text: &[u8]) {
            let path = self.release().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn read(&self) -> Result<(String, Vec<u8>), String> {
            let wish = pb::ReadLogo { app: "shop".to_owned(), slot: 2 };
            let logo = Logos::new(self.0.path().to_owned()).read(&wish).map_err(|it| it.to_string())?;
            Ok((logo.media_type, logo.data.to_vec()))
        }
    }

    #[test]
    fn the_application_s_own_logo_comes_before_an_icon_and_those_of_others_count_not() {
        let world = World::new();
        assert!(world.read().unwrap_err().contains("slot 2 of shop has no logo"));
        world.write("lib/phoenix-1.7.10/priv/static/images/logo.svg", b"phoenix");
        assert!(world.read().is_err());
        world.write("lib/back_web-0.1.0/priv/static/images/logo.png", b"back");
        assert_eq!(world.read().unwrap(), ("image/png".to_owned(), b"back".to_vec()));
        world.write("lib/shop-1.0.0-rc.1/priv/static/favicon.ico", b"icon");
        assert_eq!(world.read().unwrap(), ("image/x-icon".to_owned(), b"icon".to_vec()));
        world.write("lib/shop_web-0.1.0/priv/static/images/logo.svg", b"<svg/>");
        assert_eq!(world.read().unwrap(), ("image/svg+xml".to_owned(), b"<svg/>".to_vec()));
        assert!(is_there(&world.release(), &"shop".parse().unwrap()));
    }

    #[test]
    fn what_a_link_leads_to_and_what_is_too_large_is_not_read() {
        let world = World::new();
        let secret = world.0.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        let images = world.release().join("lib/shop-0.1.0/priv/static/images");
        fs::create_dir_all(&images).unwrap();
        symlink(&secret, images.join("logo.svg")).unwrap();
        assert!(world.read().unwrap_err().contains("has no logo"));
        // A folder on the way, and the release itself.
        fs::remove_dir_all(&images).unwrap();
        let elsewhere = world.0.path().join("elsewhere");
        fs::create_dir_all(&elsewhere).unwrap();
        fs::write(elsewhere.join("logo.svg"), "secret").unwrap();
        symlink(&elsewhere, &images).unwrap();
        assert!(world.read().is_err());
        fs::remove_file(&images).unwrap();
        world.write("lib/shop-0.1.0/priv/static/images/logo.svg", b"<svg/>");
        assert!(world.read().is_ok());
        fs::rename(world.release(), world.0.path().join("moved")).unwrap();
        symlink(world.0.path().join("moved"), world.release()).unwrap();
        assert!(world.read().is_err());

        fs::remove_file(world.release()).unwrap();
        world.write("lib/shop-0.1.0/priv/static/images/logo.svg", &vec![b' '; LARGEST_LOGO + 1]);
        assert!(world.read().unwrap_err().contains("has no logo"));
        let path = world.release().join("lib/shop-0.1.0/priv/static/images/logo.svg");
        fs::remove_file(&path).unwrap();
        // Nobody writes into it: whoever opened it would wait for ever.
        rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(world.read().unwrap_err().contains("has no logo"));
    }

    #[test]
    fn where_the_applications_lie_is_no_link_either() {
        let world = World::new();
        world.write("lib/shop-0.1.0/priv/static/images/logo.svg", b"<svg/>");
        assert!(world.read().is_ok());
        let elsewhere = world.0.path().join("lib");
        fs::rename(world.release().join("lib"), &elsewhere).unwrap();
        symlink(&elsewhere, world.release().join("lib")).unwrap();
        assert!(world.read().unwrap_err().contains("has no logo"));
    }

    #[test]
    fn whose_folder_it_is_is_read_from_its_name() {
        let app = "my-shop".parse().unwrap();
        for folder in ["my_shop-0.1.0", "my_shop-1.0.0-rc.1", "my_shop_web-1.0.0-dev+1"] {
            assert_eq!(whose_is(folder, &app), Some(Whose::Its), "{folder}");
        }
        assert_eq!(whose_is("back_web-1.0.0-rc.1", &app), Some(Whose::ItsPart));
        for folder in ["my_shopping-1", "phoenix-1.7.10", "my_shop", ""] {
            assert_eq!(whose_is(folder, &app), None, "{folder}");
        }
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        let logos = Logos::new(PathBuf::from("/nowhere"));
        let wish = pb::ReadLogo { app: "../shop".to_owned(), slot: 1 };
        assert!(matches!(logos.read(&wish), Err(LogoError::Name(_))));
    }
}
