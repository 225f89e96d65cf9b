//! A build that exports no traces says so where it is asked to.

use rover_server::Server;

#[test]
fn its_settings_are_a_mistake_with_a_cure() {
    let code = "local api = rover.server {\n  otlp = { endpoint = 'http://127.0.0.1:4318' },\n}\nreturn api";
    let error = Server::from_source("app.lua", code).check().unwrap_err().to_string();
    let expected = "app.lua:1: otlp is set, but this rover was built without it; build one that has it: \
                    cargo build --release --features otlp";
    assert_eq!(error, expected);
}
