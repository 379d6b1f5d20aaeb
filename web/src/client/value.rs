//! One thing of the API that the live link does not carry: read at once, and again when asked to.

use serde::de::DeserializeOwned;
use wasm_bindgen_futures::spawn_local;
use yew::{Callback, hook, use_effect_with, use_state};

use super::ClientError;
use crate::look::Look;
use crate::session::use_account;

/// The thing at `path`, read again whenever `version` changes; and what reads it again.
#[hook]
pub fn use_value<T: DeserializeOwned + 'static, V: PartialEq + Clone + 'static>(
    path: String,
    version: V,
) -> (Look<T>, Callback<()>) {
    let client = use_account().client;
    let state = use_state(|| (String::new(), Look::<T>::Awaited));
    let load = {
        let (client, path, state) = (client, path.clone(), state.clone());
        move || {
            let (client, path, state) = (client.clone(), path.clone(), state.clone());
            spawn_local(async move {
                let (of, known) = &*state;
                // What was known of another thing says nothing of this one.
                let known = if *of == path { known.clone() } else { Look::Awaited };
                let look = match client.get::<T>(&path).await {
                    Ok(value) => Look::here(value),
                    Err(ClientError::Refused(problem)) if problem.status == 404 => Look::Gone,
                    Err(error) => known.failed(&error.sentence()),
                };
                state.set((path, look));
            });
        }
    };
    let reload = Callback::from({
        let load = load.clone();
        move |()| load()
    });
    use_effect_with((path.clone(), version), move |_| load());
    let (of, look) = &*state;
    let look = if *of == path { look.clone() } else { Look::Awaited };
    (look, reload)
}
