//! GET over HTTP/1.1 on loopback: a client that reads little, follows nothing and is done in time.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use super::super::acts::chain;
use super::{Failure, READ_MAX, connect, first_part};

/// Of an answer's head, in bytes.
const HEAD_MAX: usize = 16 << 10;

/// Whether `path` is answered with the status `expect`, all of it within that time. Of another answer the first part of the
/// body is told.
pub(super) async fn get(port: u16, path: &str, expect: u16, within: Duration) -> Result<(), Failure> {
    let by = Instant::now() + within;
    let late = |_| Failure::late(within);
    let stream = timeout_at(by, connect(port)).await.map_err(late)?;
    let stream = stream.map_err(|error| Failure::connecting(&error))?;
    let request = Request::get(path)
        .header(header::HOST, "localhost")
        .header(header::USER_AGENT, concat!("deployex-agent/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Failure::of(format!("cannot be asked: {error}")))?;
    let improper = |error: hyper::Error| Failure::of(format!("had no proper answer: {}", chain(&error)));
    let mut client = http1::Builder::new();
    client.max_buf_size(HEAD_MAX);
    let opened = timeout_at(by, client.handshake(TokioIo::new(stream))).await.map_err(late)?;
    let (mut sender, connection) = opened.map_err(improper)?;
    let asked = async {
        let response = timeout_at(by, sender.send_request(request)).await.map_err(late)?;
        let response = response.map_err(improper)?;
        let status = response.status().as_u16();
        // Also where it is as expected: who is cut off in its answer may complain. It counts nevertheless.
        let mut body = Vec::new();
        let _ = timeout_at(by, read(response, &mut body)).await;
        match status == expect {
            true => Ok(()),
            false => Err(Failure { body: first_part(&body), ..Failure::of(format!("answered {status}")) }),
        }
    };
    tokio::pin!(asked);
    tokio::select! {
        answer = &mut asked => answer,
        // The other end has closed it; what it said before is on its way.
        _ = connection => asked.await,
    }
}

/// No more than is told of it.
async fn read(response: Response<Incoming>, into: &mut Vec<u8>) {
    let mut body = response.into_body();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            let room = READ_MAX - into.len();
            into.extend_from_slice(&data[..data.len().min(room)]);
            if into.len() == READ_MAX {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const WITHIN: Duration = Duration::from_secs(30);

    /// Reads the head of a request.
    async fn request(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    /// What is made of a server that answers so, once, and what it was asked.
    async fn answered(answer: &str, within: Duration) -> (Result<(), Failure>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let asked = request(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            (asked, stream)
        };
        let (result, (asked, _stream)) = tokio::join!(get(port, "/health?full=1", 200, within), serve);
        (result, asked)
    }

    fn failed(outcome: &str, body: &str) -> Failure {
        Failure { body: body.to_owned(), ..Failure::of(outcome) }
    }

    #[tokio::test]
    async fn the_status_decides_and_the_body_of_another_is_told() {
        let (result, asked) = answered("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", WITHIN).await;
        assert_eq!(result, Ok(()));
        assert!(asked.starts_with("GET /health?full=1 HTTP/1.1\r\nhost: localhost\r\n"), "{asked}");
        let (result, _) =
            answered("HTTP/1.1 503 No\r\ncontent-length: 13\r\n\r\ndatabase down", WITHIN).await;
        assert_eq!(result, Err(failed("answered 503", "database down")));
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_not_followed() {
        let (result, _) =
            answered("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", WITHIN).await;
        assert_eq!(result, Err(failed("answered 302", "")));
    }

    #[tokio::test]
    async fn a_body_without_end_is_read_to_a_bound_and_holds_nothing_up() {
        let long = "x".repeat(2 * READ_MAX);
        let (result, _) = answered(&format!("HTTP/1.1 500 No\r\n\r\n{long}"), WITHIN).await;
        assert_eq!(result, Err(failed("answered 500", &"x".repeat(super::super::BODY_MAX))));
        // The status is known although the rest never comes.
        let short = Duration::from_secs(3);
        let (result, _) = answered("HTTP/1.1 500 No\r\ncontent-length: 9\r\n\r\nwhy", short).await;
        assert_eq!(result, Err(failed("answered 500", "why")));
        let (result, _) = answered("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nwhy", short).await;
        assert_eq!(result, Ok(()));
    }

    #[tokio::test]
    async fn whoever_says_nothing_is_late() {
        let (result, _) = answered("", Duration::from_millis(100)).await;
        assert_eq!(result, Err(Failure::of("had no answer within 100 ms")));
        let (result, _) = answered("HTTP/1.1 200", Duration::from_millis(100)).await;
        assert_eq!(result, Err(Failure::of("had no answer within 100 ms")));
    }

    #[tokio::test]
    async fn what_is_no_http_or_too_much_of_it_is_no_answer() {
        for answer in
            ["SSH-2.0-x\r\n\r\n".to_owned(), format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(64 << 10))]
        {
            let (result, _) = answered(&answer, WITHIN).await;
            let outcome = result.unwrap_err().outcome;
            assert!(outcome.starts_with("had no proper answer: "), "{outcome}");
        }
    }

    #[tokio::test]
    async fn nobody_is_told_from_somebody_and_either_loopback_will_do() {
        let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        };
        let (result, ()) = tokio::join!(get(port, "/", 204, WITHIN), serve);
        assert_eq!(result, Ok(()));
        drop(listener);
        let result = get(port, "/", 204, WITHIN).await;
        let nobody = Failure { nobody_there: true, ..Failure::of("found nobody listening") };
        assert_eq!(result, Err(nobody));
    }
}
