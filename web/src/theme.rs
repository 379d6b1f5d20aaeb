//! Light, dark, or as the system says. The page's root carries the choice; the style sheet does the rest.

use crate::browser;

const KEY: &str = "deployex.theme";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    System,
    Light,
    Dark,
}

impl Theme {
    pub const ALL: &[Self] = &[Self::System, Self::Light, Self::Dark];

    pub fn word(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    fn from_word(word: &str) -> Self {
        Self::ALL.iter().copied().find(|it| it.word() == word).unwrap_or(Self::System)
    }

    /// What was chosen in this browser before.
    pub fn remembered() -> Self {
        browser::remembered(KEY).map_or(Self::System, |word| Self::from_word(&word))
    }

    pub fn apply(self) {
        let Some(root) = browser::document().and_then(|it| it.document_element()) else { return };
        let _ = match self {
            Self::System => root.remove_attribute("data-theme"),
            Self::Light | Self::Dark => root.set_attribute("data-theme", self.word()),
        };
    }

    pub fn choose(self) {
        browser::remember(KEY, (self != Self::System).then(|| self.word()));
        self.apply();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_theme_is_found_by_its_word_and_another_word_is_the_system() {
        for theme in Theme::ALL {
            assert_eq!(Theme::from_word(theme.word()), *theme);
        }
        assert_eq!(Theme::from_word("purple"), Theme::System);
    }
}
