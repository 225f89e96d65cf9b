//! Load shedding: what a worker cannot take on is refused at once.

use crate::support::{App, wait_until};

#[test]
fn requests_beyond_the_most_in_flight_are_refused() {
    let app = App::start(
        r#"local api = rover.server { load_shedding = { max_in_flight = 2, retry_after = 3 },
             cors = { origins = "https://app.example" } }
           local waiting, go = 0, false
           function api.wait.get() waiting = waiting + 1 while not go do rover.sleep(0.005) end return "done" end
           function api.go.get() go = true return "gone" end
           function api.get() return "x" end
           return api"#,
        1,
    );
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: test\r\nOrigin: https://app.example\r\n\r\n");
    let (mut first, mut second) = (app.connect(), app.connect());
    first.send(get("/wait"));
    // One place is left.
    wait_until(|| app.get("/").status == 200);
    second.send(get("/wait"));
    wait_until(|| app.get("/").status == 503);
    let refused = app.send(get("/"));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("3")));
    assert_eq!(refused.text(), r#"{"error":"Service Unavailable"}"#);
    assert_eq!(refused.header("access-control-allow-origin"), Some("https://app.example"));
    // A client that goes away makes room.
    drop(second);
    wait_until(|| app.get("/").status == 200);
    assert_eq!(app.get("/go").status, 200);
    assert_eq!(first.answer().text(), "done");
    for _ in 0..10 {
        assert_eq!(app.get("/").status, 200, "every place has come back");
    }
}

#[test]
fn a_standing_queue_is_cut_and_a_worker_at_rest_refuses_nothing() {
    let app = App::start(
        r#"local api = rover.server { load_shedding = { target_delay = "5ms" } }
           function api.work.get()
             local until_ = rover.now() + 0.01
             while rover.now() < until_ do end
             return "done"
           end
           return api"#,
        1,
    );
    for _ in 0..5 {
        assert_eq!(app.get("/work").status, 200, "one at a time");
    }
    // Sixteen clients that ask again and again: three times more than 5 ms of queue each round.
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = app.connect();
                    let ask = |_| {
                        client.send("GET /work HTTP/1.1\r\nHost: test\r\n\r\n");
                        client.answer().status
                    };
                    (0..40).map(ask).collect::<Vec<u16>>()
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let count = |status| statuses.iter().filter(|&&own| own == status).count();
    assert_eq!(count(200) + count(503), statuses.len());
    assert!(count(503) > 0 && count(200) > 0, "{} passed, {} were refused", count(200), count(503));
    wait_until(|| app.get("/work").status == 200);
}
