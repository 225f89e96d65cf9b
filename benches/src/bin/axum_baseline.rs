//! axum with serde_json: the same work as Rover's test app, in idiomatic Rust, on current-thread runtimes.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::Result;
use axum::Router;
use axum::extract::{Json, Path, Query};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::response::Html;
use axum::routing::get;
use benches::answers;
use benches::connections::{self, Args, Connections};
use clap::Parser;
use serde_json::{Value, json};
use tokio::net::TcpStream;

fn main() -> Result<()> {
    connections::run(&Args::parse(), serve)
}

async fn serve(connections: Connections) -> Result<()> {
    Ok(axum::serve(Listener(connections), app().into_make_service()).await?)
}

struct Listener(Connections);

impl axum::serve::Listener for Listener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            if let Ok(stream) = self.0.next().await {
                return (stream, self.0.address());
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.0.address())
    }
}

fn app() -> Router {
    let mut app = Router::new()
        .route("/plaintext", get(async || answers::PLAINTEXT))
        .route("/json", get(async || Json(json!({ "message": "Hello, World!" }))))
        .route("/echo", get(echo_query).post(async |Json(body): Json<Value>| Json(body)))
        .route("/echo/{name}/{id}", get(echo_params))
        .route("/update", axum::routing::post(update))
        .route("/html", get(async || Html(answers::page())))
        .route("/body100k", get(async || ([(CONTENT_TYPE, answers::TEXT)], answers::BODY_100K.clone())))
        .route("/cpu", get(async || format!("{:.9}", answers::spectral_norm(100))));
    for i in 0..answers::ROUTES {
        app = app.route(&format!("/api/v1/res{i}/{{id}}/items/{{item}}"), get(item));
    }
    app
}

async fn echo_query(Query(query): Query<HashMap<String, String>>) -> Json<Value> {
    Json(json!({ "message": query.get("message") }))
}

async fn echo_params(Path((name, id)): Path<(String, String)>) -> Json<Value> {
    Json(json!({ "name": name, "id": id }))
}

async fn update(Json(mut order): Json<Value>) -> Result<Json<Value>, StatusCode> {
    let revision = order["revision"].as_u64().ok_or(StatusCode::BAD_REQUEST)?;
    order["revision"] = json!(revision + 1);
    Ok(Json(order))
}

async fn item(
    Path((id, item)): Path<(String, String)>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Json<Value> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    Json(json!({
        "id": id,
        "item": item,
        "q": query.get("q"),
        "lang": header("accept-language"),
        "client": header("x-client"),
    }))
}
