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
    use std::collections::BTreeMap;

    use super::*;

    const STYLE: &str = include_str!("../static/style.css");

    #[test]
    fn every_theme_is_found_by_its_word_and_another_word_is_the_system() {
        for theme in Theme::ALL {
            assert_eq!(Theme::from_word(theme.word()), *theme);
        }
        assert_eq!(Theme::from_word("purple"), Theme::System);
    }

    /// The variables of each block that begins so.
    fn blocks(begin: &str) -> Vec<BTreeMap<&'static str, &'static str>> {
        let bodies = STYLE.split(begin).skip(1).filter_map(|rest| rest.split_once('}'));
        let variables = |body: &'static str| {
            body.split(';').filter_map(|line| line.trim().strip_prefix("--")?.split_once(": ")).collect()
        };
        bodies.map(|(body, _)| variables(body)).collect()
    }

    fn themes() -> [BTreeMap<&'static str, &'static str>; 2] {
        let light = blocks(":root {").remove(0);
        let dark = blocks(":root:not([data-theme=\"light\"]) {").remove(0);
        assert_eq!(vec![dark.clone()], blocks(":root[data-theme=\"dark\"] {"), "by choice as by the system");
        assert!(light.keys().eq(dark.keys()), "each colour has a light and a dark value");
        [light, dark]
    }

    /// As WCAG counts it.
    fn luminance(colour: &str) -> f64 {
        let part = |at: usize| {
            let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
    }

    #[test]
    fn whatever_is_read_stands_out_from_what_is_behind_it() {
        let mut pairs =
            vec![("on-accent", "accent"), ("on-accent", "accent-hover"), ("accent", "accent-soft")];
        for tone in ["ok", "moving", "waiting", "bad", "off", "text", "dim", "accent"] {
            pairs.extend([(tone, "page"), (tone, "raised"), (tone, "sunken"), (tone, "hover")]);
        }
        let soft = ["ok-soft", "moving-soft", "waiting-soft", "bad-soft", "off-soft"];
        pairs.extend(["ok", "moving", "waiting", "bad", "off"].into_iter().zip(soft));
        for theme in themes() {
            for (text, behind) in &pairs {
                let (a, b) = (luminance(theme[text]), luminance(theme[behind]));
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(
                    contrast >= 4.5,
                    "{text} on {behind}: {contrast:.2} ({} on {})",
                    theme[text],
                    theme[behind]
                );
            }
        }
    }

    #[test]
    fn no_rule_names_a_colour() {
        let (_, rules) = STYLE.split_once("/* What a tone means").unwrap();
        let named = ["rgb", "hsl(", "white", "black"];
        for line in rules.lines().filter(|line| !line.trim_start().starts_with('#')) {
            let hex = line.split('#').skip(1).any(|rest| {
                rest.split(|it: char| !it.is_ascii_alphanumeric()).next().is_some_and(|word| {
                    matches!(word.len(), 3 | 4 | 6 | 8) && word.bytes().all(|byte| byte.is_ascii_hexdigit())
                })
            });
            let values = line.split_once('{').map_or("", |(_, values)| values).replace("white-space", "");
            assert!(!hex && !named.iter().any(|name| values.contains(name)), "{line}");
        }
    }
}
