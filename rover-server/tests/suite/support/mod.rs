//! What tests are made of: a server under test, clients that speak in bytes, and servers that it asks itself.

mod app;
pub mod apart;
mod client;
#[cfg(feature = "otlp")]
pub mod collector;
mod snippets;
pub mod takes_any;
pub mod upstream;
mod wait;
pub mod websocket;

use std::io::Read;

pub use app::App;
pub use client::{Answer, Client};
pub use snippets::Snippets;
pub use wait::{DEADLINE, wait_until};

/// The JSON that `target` answers.
pub fn body(app: &App, target: &str) -> serde_json::Value {
    let answer = app.get(target);
    serde_json::from_str(answer.text()).unwrap_or_else(|_| panic!("no JSON: {}", answer.text()))
}

/// The field `message` of the JSON that `target` answers.
pub fn message(app: &App, target: &str) -> String {
    body(app, target)["message"].as_str().expect("a message").to_owned()
}

/// Runs a test of the Lua surface with one worker and with several.
pub fn each_worker_count(test: impl Fn(usize)) {
    for workers in [1, 3] {
        test(workers);
    }
}

/// Everything up to the end of a connection.
pub fn read_all(stream: &mut impl Read) -> String {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("the server closes the connection");
    String::from_utf8_lossy(&all).into_owned()
}
