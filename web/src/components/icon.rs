//! The few pictures there are: lines on a grid of 16, in the colour of the text around them.

use yew::{Html, html};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icon {
    Mark,
    Overview,
    Applications,
    Nodes,
    Rollouts,
    Events,
    Configuration,
    Search,
    Chevron,
    Up,
    Down,
    Copy,
}

impl Icon {
    pub const ALL: &[Self] = &[
        Self::Mark,
        Self::Overview,
        Self::Applications,
        Self::Nodes,
        Self::Rollouts,
        Self::Events,
        Self::Configuration,
        Self::Search,
        Self::Chevron,
        Self::Up,
        Self::Down,
        Self::Copy,
    ];

    fn path(self) -> &'static str {
        match self {
            Self::Mark => "M8 1.2 14.8 8 8 14.8 1.2 8ZM8 5.2 10.8 8 8 10.8 5.2 8Z",
            Self::Overview => "M2 9V14H6V9ZM2 2V6H6V2ZM9 2V7H14V2ZM9 10V14H14V10Z",
            Self::Applications => "M8 1.5 14 4.8V11.2L8 14.5 2 11.2V4.8ZM2.2 4.9 8 8.1 13.8 4.9M8 8.1V14.3",
            Self::Nodes => "M2 2.5H14V6.5H2ZM2 9.5H14V13.5H2ZM4.5 4.5H4.6M4.5 11.5H4.6",
            Self::Rollouts => "M2 4H8.5M2 8H11.5M2 12H6M11 10.5 14 8 11 5.5",
            Self::Events => "M2 8H5L6.7 3.2 9.3 12.8 11 8H14",
            Self::Configuration => {
                "M2 4H9M12.5 4H14M2 8H3.5M7 8H14M2 12H9M12.5 12H14M10.7 2.3V5.7M5.3 6.3V9.7M10.7 10.3V13.7"
            }
            Self::Search => "M7 2.2A4.8 4.8 0 1 1 7 11.8 4.8 4.8 0 0 1 7 2.2ZM10.5 10.5 14 14",
            Self::Chevron => "M6 4 10 8 6 12",
            Self::Up => "M4 10 8 6 12 10",
            Self::Down => "M4 6 8 10 12 6",
            Self::Copy => "M6 6H13.5V13.5H6ZM10 6V2.5H2.5V10H6",
        }
    }

    pub fn view(self) -> Html {
        html! {
            <svg class="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false"><path d={self.path()} /></svg>
        }
    }
}
