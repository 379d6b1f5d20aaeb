//! The database's address, which may hold a password.

use std::fmt;
use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};

use crate::home::Home;

/// A database's address, which may hold a password: `Debug` and `Display` show none.
#[derive(Clone)]
pub struct DatabaseUrl(SecretString);

impl DatabaseUrl {
    pub fn new(url: String) -> Self {
        Self(SecretString::from(url))
    }

    /// The SQLite database that lies in the data folder.
    pub fn beside(data_dir: &Path) -> Self {
        Self::new(format!("sqlite://{}", Home::database_in(data_dir).display()))
    }

    /// With its password: for the one who connects.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    pub fn is_sqlite(&self) -> bool {
        self.expose().starts_with("sqlite:")
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.expose();
        // The last `@` ends the user's part, whatever a password holds.
        match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?))) {
            Some((scheme, (_, host))) => write!(f, "{scheme}://…@{host}"),
            None => f.write_str(url),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_url_shows_no_password() {
        let url = DatabaseUrl::new("postgres://deployex:s3c@ret@db.example.com/deployex".to_owned());
        assert_eq!(url.to_string(), "postgres://…@db.example.com/deployex");
        assert_eq!(format!("{url:?}"), "DatabaseUrl(postgres://…@db.example.com/deployex)");
        assert_eq!(DatabaseUrl::beside(Path::new("/x")).to_string(), "sqlite:///x/control-plane/deployex.db");
    }
}
