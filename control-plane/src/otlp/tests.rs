//! Pushes to a receiver of our own that reads OTLP with the published types.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ::metrics::Label;
use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsPartialSuccess;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use proto::problem::Code;
use tokio::sync::mpsc;

use super::*;
use crate::config::{Config, Flags};

/// How the receiver answers.
#[derive(Clone, Debug)]
enum Answer {
    Takes,
    Refuses(u16, String),
    TakesPartly,
}

struct Receiver {
    address: std::net::SocketAddr,
    answer: Arc<Mutex<Answer>>,
    heard: mpsc::Receiver<(HeaderMap, ExportMetricsServiceRequest)>,
    tasks: tokio::task::JoinSet<()>,
}

impl Receiver {
    async fn start() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let answer = Arc::new(Mutex::new(Answer::Takes));
        let (hear, heard) = mpsc::channel(64);
        let answers = answer.clone();
        let receive = move |headers: HeaderMap, body: Bytes| async move {
            let request = ExportMetricsServiceRequest::decode(body).unwrap();
            hear.send((headers, request)).await.unwrap();
            let answer = answers.lock().unwrap().clone();
            match answer {
                Answer::Takes => ExportMetricsServiceResponse::default().encode_to_vec().into_response(),
                Answer::Refuses(status, text) => {
                    (StatusCode::from_u16(status).unwrap(), text).into_response()
                }
                Answer::TakesPartly => ExportMetricsServiceResponse {
                    partial_success: Some(ExportMetricsPartialSuccess {
                        rejected_data_points: 2,
                        error_message: "too old".to_owned(),
                    }),
                }
                .encode_to_vec()
                .into_response(),
            }
        };
        let router = Router::new().route("/v1/metrics", post(receive));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, answer, heard, tasks }
    }

    fn otlp(&self, variables: &[(&str, &str)]) -> Otlp {
        let yaml = format!("metrics: {{ otlp_endpoint: http://{} }}\napplications: []\n", self.address);
        let variables: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let file = Some((Path::new("f.yaml"), yaml.as_bytes()));
        *Config::read(file, &Flags::default(), &variables).unwrap().otlp.unwrap()
    }
}

struct Registry(Metrics);

#[async_trait::async_trait]
impl Figures for Registry {
    async fn text(&self) -> Result<String, ApiError> {
        Ok(self.0.render())
    }
}

struct Nothing;

#[async_trait::async_trait]
impl Figures for Nothing {
    async fn text(&self) -> Result<String, ApiError> {
        Err(ApiError::new(Code::Internal, "the database is away"))
    }
}

fn exporter<F: Figures>(to: Otlp, figures: F, metrics: &Metrics) -> Exporter<F> {
    Exporter::new(to, "here", figures, metrics.clone(), Clock::start())
}

fn metric<'a>(request: &'a ExportMetricsServiceRequest, name: &str) -> Option<&'a Metric> {
    request.resource_metrics[0].scope_metrics[0].metrics.iter().find(|it| it.name == name)
}

#[tokio::test]
async fn figures_are_pushed_every_so_often_and_once_more_at_the_end() {
    let mut receiver = Receiver::start().await;
    let metrics = Metrics::default();
    metrics.counter("things_total", vec![Label::new("kind", "good")]).increment(2);
    let to = receiver.otlp(&[
        ("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20s3cret"),
    ]);
    let cancel = CancellationToken::new();
    let exporter = exporter(to, Registry(metrics.clone()), &metrics);
    let run = receiver.tasks.spawn(exporter.run(cancel.clone()));
    for _ in 0..2 {
        let (headers, request) = receiver.heard.recv().await.unwrap();
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers["authorization"], "Bearer s3cret");
        let resource = request.resource_metrics[0].resource.as_ref().unwrap();
        assert!(resource.attributes.contains(&attribute("service.name", "deployex".to_owned())));
        assert!(resource.attributes.contains(&attribute("service.instance.id", "here".to_owned())));
        assert!(metric(&request, "things_total").is_some(), "{request:?}");
    }
    metrics.gauge("last", Vec::new()).set(1.0);
    cancel.cancel();
    loop {
        let (_, request) = receiver.heard.recv().await.unwrap();
        if metric(&request, "last").is_some() {
            break;
        }
    }
    while !run.is_finished() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_goes_wrong_is_told_with_its_reason_and_counted() {
    let receiver = Receiver::start().await;
    let metrics = Metrics::default();
    metrics.gauge("level", Vec::new()).set(1.0);
    let client = reqwest::Client::new();
    let mut pushing = exporter(receiver.otlp(&[]), Registry(metrics.clone()), &metrics);
    for (answer, reason) in [
        (Answer::Refuses(401, "who\nare you?".to_owned()), "it answers 401 Unauthorized: who are you?"),
        (Answer::Refuses(503, String::new()), "it answers 503 Service Unavailable"),
        (Answer::Refuses(500, "x".repeat(MOST_ANSWERED * 2)), "xxx"),
        (Answer::TakesPartly, "it refused 2 of the figures: too old"),
    ] {
        *receiver.answer.lock().unwrap() = answer;
        let outcome = pushing.push(&client).await;
        let failed = chain(outcome.as_ref().unwrap_err());
        assert!(failed.contains(reason) && failed.len() < 400, "{failed}");
        pushing.tell(outcome);
        assert!(pushing.failed.is_some());
    }
    *receiver.answer.lock().unwrap() = Answer::Takes;
    let outcome = pushing.push(&client).await;
    pushing.tell(outcome);
    assert_eq!(pushing.failed, None);
    let text = metrics.render();
    assert!(text.contains("deployex_otlp_exports_total{outcome=\"failed\"} 4"), "{text}");
    assert!(text.contains("deployex_otlp_exports_total{outcome=\"done\"} 1"), "{text}");
}

#[tokio::test]
async fn a_receiver_that_is_away_is_told_without_what_lets_us_in() {
    drop(rustls::crypto::ring::default_provider().install_default());
    // Held, so that nobody else takes it; but nobody listens there.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = nobody.local_addr().unwrap().port();
    let yaml = format!(
        "metrics: {{ otlp_endpoint: \"http://me:s3cret@127.0.0.1:{port}/?key=s3cret\" }}\napplications: []\n"
    );
    let file = Some((Path::new("f.yaml"), yaml.as_bytes()));
    let to = *Config::read(file, &Flags::default(), &BTreeMap::new()).unwrap().otlp.unwrap();
    let metrics = Metrics::default();
    metrics.gauge("level", Vec::new()).set(1.0);
    let client = reqwest::Client::new();
    let mut pushing = exporter(to.clone(), Registry(metrics.clone()), &metrics);
    let failed = chain(&pushing.push(&client).await.unwrap_err());
    assert!(failed.starts_with("it does not answer") && !failed.contains("s3cret"), "{failed}");

    let error = exporter(to, Nothing, &metrics).push(&client).await.unwrap_err();
    assert!(chain(&error).contains("the database is away"), "{error}");
}

/// A receiver that takes no part of one kind still gets all the others, and one that takes nothing is asked no further.
#[tokio::test]
async fn a_part_that_is_refused_does_not_hold_back_the_others() {
    let mut receiver = Receiver::start().await;
    let metrics = Metrics::default();
    for number in 0..12_000_u32 {
        metrics.gauge("g", vec![Label::new("n", number.to_string())]).set(1.0);
    }
    let client = reqwest::Client::new();
    let mut pushing = exporter(receiver.otlp(&[]), Registry(metrics.clone()), &metrics);
    for (answer, parts) in [
        (Answer::TakesPartly, 3),
        (Answer::Refuses(413, String::new()), 3),
        (Answer::Refuses(503, String::new()), 1),
        (Answer::Refuses(401, String::new()), 1),
    ] {
        *receiver.answer.lock().unwrap() = answer.clone();
        assert!(pushing.push(&client).await.is_err());
        let mut heard = 0;
        while receiver.heard.try_recv().is_ok() {
            heard += 1;
        }
        assert_eq!(heard, parts, "{answer:?}");
    }
}

/// Neither a push under way nor the last one holds up the end of the program.
#[tokio::test]
async fn a_receiver_that_hangs_holds_up_no_stop() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let yaml = format!(
        "metrics: {{ otlp_endpoint: \"http://{}\" }}\napplications: []\n",
        listener.local_addr().unwrap()
    );
    let file = Some((Path::new("f.yaml"), yaml.as_bytes()));
    let interval = BTreeMap::from([("OTEL_METRIC_EXPORT_INTERVAL".to_owned(), "1000".to_owned())]);
    let to = *Config::read(file, &Flags::default(), &interval).unwrap().otlp.unwrap();
    let metrics = Metrics::default();
    metrics.gauge("level", Vec::new()).set(1.0);
    let cancel = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(exporter(to, Registry(metrics.clone()), &metrics).run(cancel.clone()));
    let hangs = listener.accept().await.unwrap();
    let stopped = Instant::now();
    cancel.cancel();
    tasks.join_next().await.unwrap().unwrap();
    assert!(stopped.elapsed() < ANSWER_WITHIN / 2, "{:?}", stopped.elapsed());
    drop(hangs);
}
