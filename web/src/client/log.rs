//! A followed log: one JSON object per line, as it comes, until it ends or is let go.

use proto::replicas::LogLine;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortSignal, ReadableStreamDefaultReader};

use super::{Answer, Client, ClientError};

impl Client {
    /// Hands over lines in the batches in which they arrive; returns when the log ends.
    pub async fn follow_log(
        &self,
        path: &str,
        signal: &AbortSignal,
        take: impl Fn(Vec<LogLine>),
    ) -> Answer<()> {
        let response = self.send("GET", path, None, Some(signal)).await?;
        let Some(body) = response.body() else { return Ok(()) };
        let reader: ReadableStreamDefaultReader = body.get_reader().unchecked_into();
        let mut lines = Lines::default();
        loop {
            let chunk =
                JsFuture::from(reader.read()).await.map_err(|error| ClientError::unreachable(&error))?;
            let field = |name: &str| js_sys::Reflect::get(&chunk, &name.into()).ok();
            if field("done").is_none_or(|done| done.is_truthy()) {
                return Ok(());
            }
            let Some(bytes) = field("value").and_then(|it| it.dyn_into::<js_sys::Uint8Array>().ok()) else {
                return Ok(());
            };
            let whole = lines.take(&bytes.to_vec());
            if !whole.is_empty() {
                take(whole);
            }
        }
    }
}

/// Puts lines together from chunks that are cut anywhere.
#[derive(Default)]
struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    fn take(&mut self, data: &[u8]) -> Vec<LogLine> {
        self.pending.extend_from_slice(data);
        let Some(end) = self.pending.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let rest = self.pending.split_off(end + 1);
        let whole = std::mem::replace(&mut self.pending, rest);
        // A line that is not one of ours is left out: there is nothing to show of it.
        whole.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proto::replicas::LogStream;

    use super::*;

    #[test]
    fn lines_are_whole_however_they_are_cut() {
        let line = |text: &str| LogLine::Line { stream: LogStream::Stdout, text: text.into() };
        let all = [line("one"), line("zwölf"), LogLine::Ended { reason: "gone".into() }];
        let bytes: Vec<u8> =
            all.iter().flat_map(|it| [serde_json::to_vec(it).unwrap(), b"\n".to_vec()].concat()).collect();
        for size in 1..bytes.len() {
            let mut lines = Lines::default();
            let got: Vec<LogLine> = bytes.chunks(size).flat_map(|chunk| lines.take(chunk)).collect();
            assert_eq!(got, all, "in chunks of {size}");
        }
    }
}
