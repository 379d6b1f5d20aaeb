//! `deployex token …`: tokens of the API, for programs.

use clap::Subcommand;
use proto::ids::TokenId;
use proto::page::Page;
use proto::state::Role;
use proto::timestamp::Timestamp;
use proto::users::{CreatedToken, NewToken, Token as TokenView};

use super::CliError;
use super::client::Client;
use super::output::{Out, Table, age, duration, note, or_dash};

const MILLIS_PER_DAY: u64 = 86_400_000;

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Make a token. It is shown this once.
    #[command(after_help = "Example:\n  deployex token create ci --role operator --lifetime-days 90")]
    Create {
        /// What it is for.
        name: String,
        /// What it may do: viewer, operator or admin.
        #[arg(long, default_value = "viewer", value_parser = role)]
        role: Role,
        /// Without it, it is good until it is revoked.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3650))]
        lifetime_days: Option<u64>,
    },
    /// List the tokens, without their secrets.
    #[command(after_help = "Example:\n  deployex token list")]
    List,
    /// End a token at once.
    #[command(after_help = "Example:\n  deployex token revoke ci")]
    Revoke {
        // Not called `token`: that is the flag which every command has.
        /// Its name or its id.
        #[arg(value_name = "TOKEN")]
        which: String,
    },
}

fn role(word: &str) -> Result<Role, String> {
    Role::from_word(word).ok_or_else(|| "a role is viewer, operator or admin".to_owned())
}

impl Token {
    pub(super) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let now = out.now();
        match self {
            Self::Create { name, role, lifetime_days } => {
                let lifetime_ms = lifetime_days.map(|days| days * MILLIS_PER_DAY);
                let created: CreatedToken =
                    client.post("/tokens", &NewToken { name, role, lifetime_ms }).await?;
                out.show(&created, |created| format!("{}\n", created.secret))?;
                note("Keep it now: it is not shown again.");
                Ok(())
            }
            Self::List => {
                let page: Page<TokenView> = client.get("/tokens").await?;
                out.show(&page.items, |tokens| match tokens.is_empty() {
                    true => "There is no token: `deployex token create NAME` makes one.\n".to_owned(),
                    false => table(tokens, now),
                })
            }
            Self::Revoke { which } => {
                let id = find(client, &which).await?;
                client.delete_quietly(&format!("/tokens/{id}")).await?;
                out.show(&serde_json::json!({ "revoked": id }), |_| format!("{which} is revoked.\n"))
            }
        }
    }
}

async fn find(client: &Client, name: &str) -> Result<TokenId, CliError> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let page: Page<TokenView> = client.get("/tokens").await?;
    let found = page.items.iter().find(|token| token.name == name);
    found.map(|token| token.id).ok_or_else(|| CliError::Refused(format!("there is no token {name}")))
}

fn table(tokens: &[TokenView], now: Timestamp) -> String {
    let mut table = Table::new(&["NAME", "ROLE", "ID", "MADE", "USED", "ENDS IN"]);
    for token in tokens {
        let ends_in = |at: Timestamp| match at.0.checked_sub(now.0) {
            Some(left) => duration(left),
            None => "ended".to_owned(),
        };
        table.row(vec![
            (&token.name).into(),
            token.role.into(),
            token.id.into(),
            age(Some(token.created_at), now).into(),
            age(token.last_used_at, now).into(),
            or_dash(token.expires_at.map(ends_in)).into(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_tokens_says_when_each_ends() {
        let token = |name: &str, expires_at| TokenView {
            id: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
            name: name.to_owned(),
            role: Role::Operator,
            created_at: Timestamp(0),
            last_used_at: None,
            expires_at,
        };
        let tokens = [
            token("ci", None),
            token("old", Some(Timestamp(1))),
            token("deploy", Some(Timestamp(10 * MILLIS_PER_DAY))),
        ];
        insta::assert_snapshot!(table(&tokens, Timestamp(MILLIS_PER_DAY)));
    }
}
