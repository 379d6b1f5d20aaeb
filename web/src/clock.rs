//! What time it is for the control plane: its last word and what has passed here since. Ages are counted from it, so that a
//! browser whose clock is wrong shows no nonsense.

use gloo_timers::callback::Interval;
use proto::timestamp::Timestamp;
use yew::{
    ContextProvider, Html, Properties, component, hook, html, use_context, use_effect_with, use_force_update,
    use_mut_ref,
};

use crate::live::link::Millis;
use crate::live::use_link;

/// Milliseconds since this page was opened: never goes back.
pub fn monotonic() -> Millis {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a page's age in milliseconds"
    )]
    let now = web_sys::window().and_then(|it| it.performance()).map_or(0.0, |it| it.now()) as Millis;
    now
}

/// How far the browser's zone is ahead of UTC.
pub fn zone_minutes() -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "at most some hundreds")]
    let behind = js_sys::Date::new_0().get_timezone_offset() as i32;
    -behind
}

/// The control plane's clock as it was when something was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    pub at: Timestamp,
    pub here: Millis,
}

impl Heard {
    pub fn now(self, here: Millis) -> Timestamp {
        Timestamp(self.at.0 + here.saturating_sub(self.here))
    }
}

/// Before anything was heard there is only the browser's clock.
fn by_browser() -> Timestamp {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "milliseconds since 1970")]
    let now = js_sys::Date::now() as u64;
    Timestamp(now)
}

#[derive(Clone, Copy, PartialEq)]
struct Now(Timestamp);

/// The time, once a second: whoever asks is drawn again as often.
#[hook]
pub fn use_now() -> Timestamp {
    use_context::<Now>().map_or_else(by_browser, |now| now.0)
}

#[derive(Properties, PartialEq)]
pub struct Props {
    pub children: Html,
}

#[component]
pub fn ClockProvider(props: &Props) -> Html {
    let heard = use_link().heard;
    let update = use_force_update();
    use_effect_with((), move |()| {
        let ticking = Interval::new(1_000, move || update.force_update());
        move || drop(ticking)
    });
    // Between two words of the control plane the time does not jump back by what the words took to come.
    let last = use_mut_ref(|| Timestamp(0));
    let now = heard.map_or_else(by_browser, |heard| heard.now(monotonic()));
    let now = if now.0 + 2_000 > last.borrow().0 { now.max(*last.borrow()) } else { now };
    *last.borrow_mut() = now;
    html! { <ContextProvider<Now> context={Now(now)}>{ props.children.clone() }</ContextProvider<Now>> }
}

/// A time that stands still, for the gallery.
#[cfg(feature = "gallery")]
#[component]
pub fn FrozenClock(props: &Props) -> Html {
    html! {
        <ContextProvider<Now> context={Now(crate::sample::NOW)}>{ props.children.clone() }</ContextProvider<Now>>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_goes_on_from_what_was_heard_last() {
        let heard = Heard { at: Timestamp(1_000_000), here: 500 };
        assert_eq!(heard.now(500), Timestamp(1_000_000));
        assert_eq!(heard.now(12_500), Timestamp(1_012_000));
        assert_eq!(heard.now(0), Timestamp(1_000_000));
    }
}
