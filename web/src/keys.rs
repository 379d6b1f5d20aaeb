//! The keyboard map: which keys mean what. Pure; what a command does is the frame's business.

/// What a person wants by a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Palette,
    Help,
    Go(Place),
    Filter,
    NextRow,
    PreviousRow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Overview,
    Applications,
    Nodes,
    Rollouts,
    Events,
    Configuration,
}

/// A key as the browser names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Press<'a> {
    pub key: &'a str,
    /// Ctrl, or the command key of a Mac.
    pub control: bool,
    pub alt: bool,
    /// Where text is typed: letters are letters there.
    pub in_text: bool,
    /// A dialog is open: what lies behind it does not move.
    pub in_dialog: bool,
}

/// What was pressed before, where that matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keys {
    #[default]
    Rest,
    /// `g` was pressed: the next key says where to.
    Go,
}

/// The map as it is shown.
pub const MAP: &[(&[&str], &str)] = &[
    (&["Ctrl", "K"], "Search or command"),
    (&["g", "o"], "Go to the overview"),
    (&["g", "a"], "Go to applications"),
    (&["g", "n"], "Go to nodes"),
    (&["g", "r"], "Go to rollouts"),
    (&["g", "e"], "Go to events"),
    (&["g", "c"], "Go to the configuration"),
    (&["/"], "Filter the table"),
    (&["j"], "Next row"),
    (&["k"], "Previous row"),
    (&["Enter"], "Open the row"),
    (&["Esc"], "Close what is open"),
    (&["?"], "Show this map"),
];

impl Keys {
    #[must_use]
    pub fn press(self, press: Press<'_>) -> (Self, Option<Command>) {
        let Press { key, control, alt, in_text, in_dialog } = press;
        if control && !alt && key.eq_ignore_ascii_case("k") {
            return (Self::Rest, Some(Command::Palette));
        }
        if control || alt || in_text || in_dialog {
            return (Self::Rest, None);
        }
        let command = match (self, key) {
            // A modifier on its own is no key of a sequence.
            (state, "Shift") => return (state, None),
            (Self::Rest, "g") => return (Self::Go, None),
            (Self::Go, "o") => Some(Command::Go(Place::Overview)),
            (Self::Go, "a") => Some(Command::Go(Place::Applications)),
            (Self::Go, "n") => Some(Command::Go(Place::Nodes)),
            (Self::Go, "r") => Some(Command::Go(Place::Rollouts)),
            (Self::Go, "e") => Some(Command::Go(Place::Events)),
            (Self::Go, "c") => Some(Command::Go(Place::Configuration)),
            (Self::Rest, "/") => Some(Command::Filter),
            (Self::Rest, "j") => Some(Command::NextRow),
            (Self::Rest, "k") => Some(Command::PreviousRow),
            (Self::Rest, "?") => Some(Command::Help),
            _ => None,
        };
        (Self::Rest, command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[&str]) -> Vec<Command> {
        let mut state = Keys::default();
        let mut commands = Vec::new();
        for key in keys {
            let (next, command) = state.press(Press { key, ..Press::default() });
            state = next;
            commands.extend(command);
        }
        commands
    }

    #[test]
    fn g_and_a_letter_go_places() {
        assert_eq!(typed(&["g", "a"]), [Command::Go(Place::Applications)]);
        assert_eq!(typed(&["g", "n", "g", "r"]), [Command::Go(Place::Nodes), Command::Go(Place::Rollouts)]);
        assert_eq!(typed(&["g", "x", "a"]), []);
    }

    #[test]
    fn shift_does_not_break_a_sequence_and_makes_the_question_mark() {
        assert_eq!(typed(&["g", "Shift", "e"]), [Command::Go(Place::Events)]);
        assert_eq!(typed(&["Shift", "?"]), [Command::Help]);
    }

    #[test]
    fn letters_are_letters_where_text_is_typed_and_the_palette_opens_everywhere() {
        for press in [
            Press { key: "j", in_text: true, ..Press::default() },
            Press { key: "j", in_dialog: true, ..Press::default() },
            Press { key: "j", control: true, ..Press::default() },
            Press { key: "j", alt: true, ..Press::default() },
        ] {
            assert_eq!(Keys::default().press(press), (Keys::Rest, None));
        }
        let press = Press { key: "k", control: true, in_text: true, ..Press::default() };
        assert_eq!(Keys::default().press(press).1, Some(Command::Palette));
    }

    #[test]
    fn every_sequence_of_the_shown_map_means_something() {
        for (keys, what) in MAP.iter().filter(|(keys, _)| !["Ctrl", "Enter", "Esc"].contains(&keys[0])) {
            assert_eq!(typed(keys).len(), 1, "{what}");
        }
    }
}
