//! Bare hyper: the floor that `tests/perf` compares with. It answers with bytes made once, decodes no JSON and
//! matches no route; only `/cpu` does its work, natively.

use std::convert::Infallible;

use anyhow::Result;
use benches::answers::{self, HTML, JSON, TEXT};
use benches::connections::{self, Args, Connections};
use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

fn main() -> Result<()> {
    connections::run(&Args::parse(), serve)
}

async fn serve(mut connections: Connections) -> Result<()> {
    loop {
        let io = TokioIo::new(connections.next().await?);
        tokio::spawn(http1::Builder::new().pipeline_flush(true).serve_connection(io, service_fn(answer)));
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    if request.method() == Method::POST {
        let echo = path == "/echo";
        let Ok(body) = request.into_body().collect().await else {
            return Ok(respond(StatusCode::BAD_REQUEST, TEXT, Bytes::new()));
        };
        let body = body.to_bytes();
        return Ok(match body {
            body if echo => ok(JSON, body),
            body if body.len() < 8 * 1024 => ok(JSON, answers::UPDATED_1K.clone()),
            _ => ok(JSON, answers::UPDATED_64K.clone()),
        });
    }
    Ok(match path {
        "/plaintext" => ok(TEXT, Bytes::from_static(answers::PLAINTEXT.as_bytes())),
        "/json" | "/echo" => ok(JSON, Bytes::from_static(answers::MESSAGE.as_bytes())),
        "/html" => ok(HTML, answers::PAGE.clone()),
        "/body100k" => ok(TEXT, answers::BODY_100K.clone()),
        "/cpu" => ok(TEXT, Bytes::from(format!("{:.9}", answers::spectral_norm(100)))),
        path if path.starts_with("/api/v1/") => ok(JSON, Bytes::from_static(answers::ITEM.as_bytes())),
        path if path.starts_with("/echo/") => ok(JSON, Bytes::from_static(answers::ECHO_PARAMS.as_bytes())),
        _ => respond(StatusCode::NOT_FOUND, TEXT, Bytes::new()),
    })
}

fn ok(content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    respond(StatusCode::OK, content_type, body)
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
