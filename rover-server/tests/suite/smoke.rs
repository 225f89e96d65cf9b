//! The smallest app, with one worker and with several.

use crate::support::{App, each_worker_count};

#[test]
fn a_string_is_served_as_text() {
    each_worker_count(|workers| {
        let app = App::start("local api = rover.server {} function api.get() return 'home' end return api", workers);
        let answer = app.get("/");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.text(), "home");
    });
}

#[test]
fn a_connection_from_its_first_request_to_its_last() {
    let code = "local api = rover.server {}
        function api.get() return api.text('home'):cookie('a', '1'):cookie('b', '2') end
        return api";
    let app = App::start(code, 1);
    let mut client = app.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = client.head_answer();
    assert_eq!((head.status_line.as_str(), head.header("content-length")), ("HTTP/1.1 200 OK", Some("4")));
    client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    assert_eq!(client.answer().all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(client.rest(), "");
    client.socket().shutdown(std::net::Shutdown::Write).expect("an open socket");
}
