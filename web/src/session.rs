//! Who is signed in. Without anybody there is the sign-in form, at whatever address, and that address comes back afterwards.

use std::rc::Rc;

use proto::users::Me;
use wasm_bindgen_futures::spawn_local;
use yew::{
    Callback, ContextProvider, Html, Properties, component, hook, html, use_callback, use_context,
    use_effect_with, use_memo, use_state,
};

use crate::client::{Client, ClientError};
use crate::components::notice::Failing;
use crate::pages::sign_in::SignIn;

/// The one who is signed in, and what to do in his name.
#[derive(Clone, PartialEq)]
pub struct Account {
    pub me: Rc<Me>,
    pub client: Client,
    pub sign_out: Callback<()>,
}

impl Account {
    pub fn may_operate(&self) -> bool {
        crate::words::may_operate(self.me.role)
    }

    pub fn may_administer(&self) -> bool {
        crate::words::may_administer(self.me.role)
    }
}

/// # Panics
///
/// Outside of [`SessionProvider`]: there is no page without an account.
#[hook]
#[expect(clippy::expect_used, reason = "the frame is below the provider, or there is no frame")]
pub fn use_account() -> Account {
    use_context::<Account>().expect("every page is below SessionProvider")
}

#[derive(Clone, PartialEq)]
enum Session {
    Asking,
    Unreachable(ClientError),
    Out { ended: bool },
    In(Rc<Me>),
}

#[derive(Properties, PartialEq)]
pub struct Props {
    pub children: Html,
}

#[component]
pub fn SessionProvider(props: &Props) -> Html {
    let session = use_state(|| Session::Asking);
    let client = {
        let session = session.setter();
        use_memo((), |()| Client::new(Callback::from(move |()| session.set(Session::Out { ended: true }))))
    };
    let ask = {
        let (client, session) = (client.clone(), session.setter());
        use_callback((), move |(), ()| {
            let (client, session) = (client.clone(), session.clone());
            spawn_local(async move {
                session.set(match client.session().await {
                    Ok(Some(me)) => Session::In(Rc::new(me)),
                    Ok(None) => Session::Out { ended: false },
                    Err(error) => Session::Unreachable(error),
                });
            });
        })
    };
    {
        let ask = ask.clone();
        use_effect_with((), move |()| ask.emit(()));
    }
    let sign_out = {
        let (client, session) = (client.clone(), session.setter());
        use_callback((), move |(), ()| {
            let (client, session) = (client.clone(), session.clone());
            spawn_local(async move {
                // Where the control plane cannot be told, its session ends by itself; this page forgets it now.
                let _ = client.sign_out().await;
                session.set(Session::Out { ended: false });
            });
        })
    };
    let signed_in = {
        let session = session.setter();
        use_callback((), move |me: Me, ()| session.set(Session::In(Rc::new(me))))
    };
    match &*session {
        Session::Asking => html! { <div class="boot" aria-busy="true" /> },
        Session::Unreachable(error) => html! {
            <main class="alone"><Failing title={error.title()} detail={error.detail()} retry={ask} /></main>
        },
        Session::Out { ended } => html! { <SignIn client={(*client).clone()} ended={*ended} {signed_in} /> },
        Session::In(me) => {
            let account = Account { me: me.clone(), client: (*client).clone(), sign_out };
            html! { <ContextProvider<Account> context={account}>{ props.children.clone() }</ContextProvider<Account>> }
        }
    }
}
