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
