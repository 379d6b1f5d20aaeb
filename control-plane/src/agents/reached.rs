//! Where a replica's Phoenix endpoints say that they are reached, as far as a browser may be sent there. An agent may say anything.

/// Of one replica.
const MAX_URLS: usize = 8;
const LONGEST_URL: usize = 300;

/// Those that are, in their order.
pub(super) fn urls(said: &[String]) -> Vec<String> {
    said.iter().filter(|it| is_url(it)).take(MAX_URLS).cloned().collect()
}

/// What a browser may be sent to, and nothing with a password in it.
fn is_url(text: &str) -> bool {
    (text.starts_with("https://") || text.starts_with("http://"))
        && text.len() <= LONGEST_URL
        && text
            .chars()
            .all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '<' | '>' | '`' | '@' | '?' | '#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_browser_may_be_sent_to_is_told() {
        let bad = ["javascript:alert(1)", "https://a b", "", "https://me:s3cret@a", "https://a?token=s3cret"];
        let mut said: Vec<String> =
            bad.into_iter().chain(["https://shop.example.com"]).map(str::to_owned).collect();
        said.push(format!("https://{}", "x".repeat(LONGEST_URL)));
        said.extend(vec!["http://a".to_owned(); 2 * MAX_URLS]);
        let urls = urls(&said);
        assert_eq!(
            (urls.len(), urls[0].as_str(), urls[1].as_str()),
            (MAX_URLS, "https://shop.example.com", "http://a")
        );
    }
}
