//! Traces that are exported by OTLP: what spans tell, where they belong, and what becomes of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use rover_server::Server;

use crate::support::collector::{Collector, hex, text, told};
use crate::support::upstream::{Asked, Upstream, answer, never, refusing};
use crate::support::{App, DEADLINE, each_worker_count, wait_until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Nothing is sent before somebody asks for it.
const NEVER: &str = "1h";

fn server(code: &str, workers: usize) -> Server {
    Server::from_source("shop.lua", format!("local api = rover.server {{}} {code} return api")).workers(workers)
}

/// A request that belongs to [`TRACE`].
fn traced(target: &str, flags: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\ntraceparent: 00-{TRACE}-{PARENT}-{flags}\r\n\r\n")
}

fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
}

/// What became of spans so far.
fn counted(app: &App) -> HashMap<String, u64> {
    let page = app.told("/metrics");
    let lines = page.text().lines().filter_map(|line| line.strip_prefix("rover_otlp_spans_total{result=\""));
    lines
        .map(|line| {
            let (result, number) = line.split_once("\"} ").unwrap();
            (result.to_owned(), number.parse::<f64>().unwrap() as u64)
        })
        .collect()
}

#[test]
fn every_request_has_a_span() {
    each_worker_count(|workers| {
        let collector = Collector::start();
        let code = "function api.users.p_id.get(ctx) return ctx:params().id end
                    function api.users.p_id.put(ctx) error('on purpose') end
                    function api.asleep.get() rover.sleep(0.02) return 'awake' end";
        let server = collector.of(server(code, workers), "20ms").set("otlp.query", "true");
        let app = App::start_server(server.set("otlp.resource", "deployment.environment.name=test"));
        let before = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        app.send("GET /users/7?a=1&sig=secret HTTP/1.1\r\nHost: shop.test:8080\r\nUser-Agent: curl/8\r\n\r\n");
        app.send("PUT /users/7 HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\n\r\nhi");
        app.send("DELETE /users/7 HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        app.get("/nowhere");
        app.get("/asleep");
        app.send("BREW /users/7 HTTP/1.0\r\n\r\n");
        app.send("GET / HTTP/1.1\r\nHost: a\r\nno field\r\n\r\n");
        let spans = collector.wait_for(7);
        let named = |name: &str| {
            let found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
            assert_eq!(found.len(), 1, "{name} in {:?}", spans.iter().map(|span| &span.name).collect::<Vec<_>>());
            found[0]
        };
        let get = named("GET /users/{id}");
        assert_eq!(
            told(get),
            [
                "http.request.method=GET",
                "http.route=/users/{id}",
                "url.path=/users/7",
                "url.query=a=1&sig=REDACTED",
                "url.scheme=http",
                "server.address=shop.test",
                "server.port=8080",
                "client.address=127.0.0.1",
                "network.protocol.version=1.1",
                "user_agent.original=curl/8",
                "http.response.status_code=200",
            ]
        );
        assert_eq!((get.kind(), get.status.is_none()), (SpanKind::Server, true));
        assert_eq!((get.trace_id.len(), get.span_id.len(), get.parent_span_id.len()), (16, 8, 0));
        assert!(get.start_time_unix_nano <= get.end_time_unix_nano && get.flags & 0x1ff == 0x101);

        let put = named("PUT /users/{id}");
        assert_eq!(text(&put.attributes, "error.type").as_deref(), Some("500"));
        assert!(is_error(put));
        let delete = named("DELETE");
        assert_eq!(text(&delete.attributes, "http.response.status_code").as_deref(), Some("405"));
        assert_eq!((text(&delete.attributes, "http.route"), is_error(delete)), (None, false));
        assert_eq!(text(&delete.attributes, "server.port").as_deref(), Some("80"));
        let asleep = named("GET /asleep");
        assert!(asleep.end_time_unix_nano - asleep.start_time_unix_nano >= 20_000_000);
        assert!(asleep.start_time_unix_nano >= before);
        let brewed = named("HTTP");
        assert_eq!(told(brewed)[..2], ["http.request.method=_OTHER", "http.request.method_original=BREW"]);
        assert_eq!(text(&brewed.attributes, "network.protocol.version").as_deref(), Some("1.0"));
        let mut bare: Vec<_> = spans.iter().filter(|span| span.name == "GET").collect();
        bare.sort_by_key(|span| text(&span.attributes, "http.response.status_code"));
        let statuses = bare.iter().map(|span| text(&span.attributes, "http.response.status_code").unwrap());
        assert_eq!(statuses.collect::<Vec<_>>(), ["400", "404"], "one could not be read, one not be found");

        assert_eq!(collector.resource("service.name").as_deref(), Some("shop"));
        assert_eq!(collector.resource("deployment.environment.name").as_deref(), Some("test"));
        assert_eq!(collector.resource("process.pid"), Some(std::process::id().to_string()));
    });
}

#[test]
fn a_request_belongs_under_the_span_that_sent_it() {
    each_worker_count(|workers| {
        let collector = Collector::start();
        let code = "function api.get(ctx) return { ctx:trace_id(), ctx:header('traceparent') } end";
        let app = App::start_server(collector.of(server(code, workers), "20ms"));
        let request =
            format!("GET / HTTP/1.1\r\nHost: a\r\ntraceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: a=1\r\n\r\n");
        let answered = app.send(request).text().to_owned();
        let span = collector.wait_for(1).remove(0);
        assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
        assert_eq!((span.trace_state.as_str(), span.flags), ("a=1", 0x301));
        let own = format!("00-{TRACE}-{}-01", hex(&span.span_id));
        assert_eq!(answered, format!("[\"{TRACE}\",\"{own}\"]"), "the app passes its own span on");

        // Whoever sends such a header has decided that the trace is not recorded.
        let answered = app.send(traced("/", "00")).text().to_owned();
        assert_eq!(answered, format!("[\"{TRACE}\",\"00-{TRACE}-{PARENT}-00\"]"));
        // One that is not valid begins no trace, and ends none.
        app.send("GET / HTTP/1.1\r\nHost: a\r\ntraceparent: 00-1-2-01\r\ntracestate: a=1\r\n\r\n");
        let spans = collector.wait_for(2);
        assert_eq!((spans.len(), spans[1].trace_state.as_str(), spans[1].parent_span_id.len()), (2, "", 0));
        assert_ne!(hex(&spans[1].trace_id), TRACE);
    });
}

#[test]
fn a_share_of_the_traces_is_recorded() {
    let collector = Collector::start();
    let code = "function api.get(ctx) return ctx:header('traceparent') end";
    let app = App::start_server(collector.of(server(code, 1), "20ms").set("otlp.sample", "0.5"));
    let mut recorded = 0;
    for _ in 0..200 {
        recorded += usize::from(app.get("/").text().ends_with("-01"));
    }
    assert!((50..150).contains(&recorded), "{recorded}");
    assert_eq!(collector.wait_for(recorded).len(), recorded);

    let collector = Collector::start();
    let app = App::start_server(collector.of(server(code, 1), "20ms").set("otlp.sample", "0"));
    assert!(app.get("/").text().ends_with("-00"), "others are told that nobody records it");
    app.send(traced("/", "01"));
    let spans = collector.wait_for(1);
    assert_eq!((spans.len(), hex(&spans[0].trace_id)), (1, TRACE.to_owned()), "others have decided for theirs");
}

#[test]
fn requests_of_the_app_are_spans_below_its_own() {
    each_worker_count(|workers| {
        let upstream = Upstream::start(|asked, stream| match asked.target.as_str() {
            "/missing" => answer(stream, "404 Not Found", "", b""),
            _ => answer(stream, "200 OK", "", b""),
        });
        let collector = Collector::start();
        let code = format!(
            "local url = '{}'
             function api.direct.get(ctx) return rover.http.get(url .. '/a?key=secret').status end
             function api.bare.get() return rover.http.get(url .. '/bare').status end
             function api.set.get(ctx) return rover.http.get(url .. '/set', {{ headers = {{ traceparent = 'own' }} }}).status end
             function api.all.get(ctx)
               rover.sleep(0)
               return {{ rover.all {{
                 function() return rover.http.get(url .. '/b').status end,
                 function() rover.sleep(0.001) return rover.http.post(url .. '/missing', 'hi').status end,
               }} }}
             end
             function api.spawned.get()
               rover.spawn(function() rover.sleep(0.01) rover.http.get(url .. '/later') end)
             end
             function api.stream.get()
               local n = 0
               return api.stream(200, 'text/plain', function()
                 n = n + 1
                 if n == 1 then return rover.http.get(url .. '/piece').status .. '' end
               end)
             end
             function api.failing.get(ctx) return select(2, rover.http.get('{}')) end
             function api.on_ready() rover.http.get(url .. '/outside') end",
            upstream.url(),
            refusing()
        );
        let app = App::start_server(collector.of(server(&code, workers), "20ms"));
        let asked = |target: &str| -> Asked {
            let find = || upstream.asked().into_iter().find(|asked| asked.target == target);
            wait_until(|| find().is_some());
            find().unwrap()
        };
        // The span of the server for this route, and those below it.
        let below = |count: usize, route: &str| {
            let family = || {
                let spans = collector.spans();
                let own = spans.iter().find(|span| span.name == route)?.clone();
                let below = spans.into_iter().filter(|span| span.parent_span_id == own.span_id).collect::<Vec<_>>();
                Some((own, below))
            };
            wait_until(|| family().is_some_and(|(_, below)| below.len() >= count));
            let (own, below) = family().unwrap();
            assert_eq!(below.len(), count);
            assert!(below.iter().all(|span| span.trace_id == own.trace_id && span.kind() == SpanKind::Client));
            (own, below)
        };
        app.get("/direct");
        let (_, spans) = below(1, "GET /direct");
        let port = upstream.address.port();
        assert_eq!(spans[0].name, "GET");
        assert_eq!(
            told(&spans[0]),
            [
                "http.request.method=GET".to_owned(),
                format!("url.full=http://127.0.0.1:{port}/a"),
                "server.address=127.0.0.1".to_owned(),
                format!("server.port={port}"),
                "http.response.status_code=200".to_owned(),
            ]
        );
        let sent = format!("00-{}-{}-01", hex(&spans[0].trace_id), hex(&spans[0].span_id));
        assert_eq!(asked("/a?key=secret").header("traceparent"), Some(sent.as_str()));

        app.get("/bare");
        let (own, _) = below(1, "GET /bare");
        assert!(asked("/bare").header("traceparent").unwrap().contains(&hex(&own.trace_id)), "no ctx is needed for it");
        app.get("/set");
        below(1, "GET /set");
        assert_eq!(asked("/set").header("traceparent"), Some("own"), "the app's own header stays");

        app.get("/all");
        let (own, spans) = below(2, "GET /all");
        let missing = spans.iter().find(|span| span.name == "POST").unwrap();
        assert_eq!(text(&missing.attributes, "error.type").as_deref(), Some("404"));
        assert!(is_error(missing) && !is_error(&own));
        app.get("/spawned");
        below(1, "GET /spawned");
        app.get("/stream");
        below(1, "GET /stream");
        app.get("/failing");
        let (_, spans) = below(1, "GET /failing");
        assert_eq!(text(&spans[0].attributes, "error.type").as_deref(), Some("connection refused"));
        assert_eq!(spans[0].status.as_ref().unwrap().message, "connection refused");

        // Passed on, though nobody records it.
        app.send(traced("/direct", "00"));
        let unrecorded = format!("00-{TRACE}-{PARENT}-00");
        wait_until(|| upstream.asked().iter().any(|asked| asked.header("traceparent") == Some(unrecorded.as_str())));
        assert_eq!(asked("/outside").header("traceparent"), None, "there is no request that it could belong to");
    });
}

#[test]
fn a_request_that_is_passed_on_is_a_span_too() {
    each_worker_count(|workers| {
        let upstream = Upstream::says("upstream");
        let collector = Collector::start();
        let code = format!(
            "api.through.get = api.proxy('{url}')
             function api.own.get(ctx) return ctx:proxy('{url}/b?x=1', {{ headers = {{ traceparent = 'own' }} }}) end
             function api.down.get(ctx) return ctx:proxy('{down}') end",
            url = upstream.url(),
            down = refusing(),
        );
        let app = App::start_server(collector.of(server(&code, workers), "20ms"));
        assert_eq!(app.send(traced("/through?q=1", "01")).text(), "upstream");
        let spans = collector.wait_for(2);
        let (own, below): (Vec<&Span>, Vec<&Span>) = spans.iter().partition(|span| span.kind() == SpanKind::Server);
        assert_eq!((own[0].name.as_str(), below[0].name.as_str()), ("GET /through", "GET"));
        assert_eq!(below[0].parent_span_id, own[0].span_id);
        let full = format!("{}/through", upstream.url());
        assert_eq!(text(&below[0].attributes, "url.full"), Some(full));
        let sent = format!("00-{TRACE}-{}-01", hex(&below[0].span_id));
        assert_eq!(upstream.asked()[0].header("traceparent"), Some(sent.as_str()));

        app.send(traced("/own", "01"));
        app.send(traced("/down", "01"));
        app.send(traced("/through", "00"));
        let spans = collector.wait_for(6);
        assert_eq!(upstream.asked()[1].header("traceparent"), Some("own"));
        let unrecorded = format!("00-{TRACE}-{PARENT}-00");
        assert_eq!(upstream.asked()[2].header("traceparent"), Some(unrecorded.as_str()));
        assert_eq!(spans.len(), 6);
        let down = spans.iter().find(|span| span.status.as_ref().is_some_and(|s| s.message == "connection refused"));
        assert_eq!(down.unwrap().kind(), SpanKind::Client);
    });
}

#[test]
fn a_client_that_goes_away_leaves_spans() {
    let upstream = Upstream::start(|_, stream| never(stream));
    let collector = Collector::start();
    let code = format!("function api.get() return rover.http.get('{}').status end", upstream.url());
    let app = App::start_server(collector.of(server(&code, 1), "20ms"));
    let mut client = app.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until(|| upstream.open() == 1);
    drop(client);
    let spans = collector.wait_for(2);
    let reason = |kind| {
        let span = spans.iter().find(|span| span.kind() == kind).unwrap();
        assert_eq!(text(&span.attributes, "http.response.status_code"), None);
        text(&span.attributes, "error.type").unwrap()
    };
    assert_eq!(
        (reason(SpanKind::Client).as_str(), reason(SpanKind::Server).as_str()),
        ("cancelled", "client went away")
    );
}

#[test]
fn spans_are_sent_at_shutdown_and_at_a_reload() {
    each_worker_count(|workers| {
        let collector = Collector::start();
        let server = collector.of(server("function api.get() return 'hi' end", workers), NEVER);
        let mut app = App::start_server(server.set("management.port", "0"));
        for _ in 0..30 {
            app.get("/");
        }
        assert_eq!(collector.spans().len(), 0, "they wait for one another");
        app.reload().unwrap();
        assert_eq!(collector.wait_for(30).len(), 30, "the version before has sent its own");
        wait_until(|| counted(&app)["exported"] == 30);
        for _ in 0..20 {
            app.get("/");
        }
        let began = Instant::now();
        app.begin_stop();
        app.ended();
        assert_eq!(collector.spans().len(), 50);
        assert!(began.elapsed() < DEADLINE / 2);
    });
}

#[test]
fn a_full_batch_does_not_wait() {
    let collector = Collector::start();
    let app = App::start_server(collector.of(server("function api.get() return 'hi' end", 1), NEVER));
    let mut client = app.connect();
    for _ in 0..6 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100));
        (0..100).for_each(|_| assert_eq!(client.answer().status, 200));
    }
    assert!(collector.wait_for(512).len() >= 512);
    drop((client, app));
    assert_eq!(collector.spans().len(), 600);
}

#[test]
fn a_collector_that_has_trouble_is_asked_again() {
    each_worker_count(|workers| {
        let failures = AtomicUsize::new(2);
        let collector = Collector::that(move |_, stream| {
            let fails = failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            fails.then(|| answer(stream, "503 Service Unavailable", "Retry-After: 0\r\n", b""))
        });
        let server = collector.of(server("function api.get() return 'hi' end", workers), "20ms");
        let app = App::start_server(server.set("management.port", "0"));
        for _ in 0..10 {
            app.get("/");
        }
        assert_eq!(collector.wait_for(10).len(), 10);
        wait_until(|| counted(&app)["exported"] == 10);
        assert_eq!((counted(&app)["dropped"], counted(&app)["failed"]), (0, 0));
    });
}

#[test]
fn a_collector_that_is_down_or_slow_costs_spans_and_no_request() {
    let is_up = Arc::new(AtomicBool::new(false));
    let up = is_up.clone();
    let collector = Collector::that(move |_, stream| (!up.load(Ordering::SeqCst)).then(|| never(stream)));
    let server = collector.of(server("function api.get() return 'hi' end", 1), "10ms").set("otlp.queue", "10");
    let mut app = App::start_server(server.set("otlp.timeout", "300ms").set("management.port", "0"));
    let began = Instant::now();
    for _ in 0..50 {
        assert_eq!(app.get("/").text(), "hi");
    }
    assert!(began.elapsed() < DEADLINE / 2);
    wait_until(|| counted(&app)["failed"] >= 1 && counted(&app)["dropped"] >= 1);
    is_up.store(true, Ordering::SeqCst);
    wait_until(|| {
        app.get("/");
        counted(&app)["exported"] >= 1
    });
    let counted = counted(&app);
    assert!(counted["dropped"] + counted["failed"] + counted["exported"] >= 50, "{counted:?}");
    is_up.store(false, Ordering::SeqCst);
    app.get("/");
    let began = Instant::now();
    app.begin_stop();
    app.ended();
    assert!(began.elapsed() < DEADLINE / 2, "the stop waits no longer than it may");

    // Nobody is there at all.
    let code = "function api.get() return 'hi' end";
    let nowhere = self::server(code, 1).set("otlp.endpoint", refusing()).set("otlp.interval", "10ms");
    let app = App::start_server(nowhere.set("otlp.timeout", "100ms").set("management.port", "0"));
    assert_eq!(app.get("/").text(), "hi");
    wait_until(|| self::counted(&app)["failed"] == 1);
}

#[test]
fn what_the_collector_rejects_has_failed() {
    let partial = ExportTracePartialSuccess { rejected_spans: 1, error_message: "too old".to_owned() };
    let partial = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    let statuses = [("200 OK", partial), ("400 Bad Request", Vec::new())];
    for (status, body) in statuses {
        let asked = Arc::new(AtomicUsize::new(0));
        let times = asked.clone();
        let collector = Collector::that(move |_, stream| {
            times.fetch_add(1, Ordering::SeqCst);
            Some(answer(stream, status, "", &body))
        });
        let server = collector.of(server("function api.get() return 'hi' end", 1), "10ms");
        let app = App::start_server(server.set("management.port", "0"));
        app.get("/");
        wait_until(|| counted(&app)["failed"] == 1);
        assert_eq!((counted(&app)["exported"], asked.load(Ordering::SeqCst)), (0, 1), "it is not sent again");
    }
}

#[test]
fn headers_and_compression() {
    let collector = Collector::start();
    let server = collector.of(server("function api.get() return 'hi' end", 1), NEVER);
    let app = App::start_server(server.set("otlp.headers", "x-api-key=secret").set("otlp.compression", "gzip"));
    for _ in 0..20 {
        app.get("/");
    }
    drop(app);
    assert_eq!(collector.spans().len(), 20);
    let asked = collector.upstream.asked().remove(0);
    assert_eq!((asked.header("x-api-key"), asked.header("content-encoding")), (Some("secret"), Some("gzip")));
    assert!(asked.body.len() < 2000, "{} bytes", asked.body.len());
}

#[test]
fn streams_end_their_span_with_their_last_piece() {
    let collector = Collector::start();
    let code = "function api.get()
                  local n = 0
                  return api.stream(200, 'text/plain', function() n = n + 1 rover.sleep(0.01) if n < 4 then return 'x' end end)
                end";
    let app = App::start_server(collector.of(server(code, 1), "20ms"));
    assert_eq!(app.get("/").text(), "xxx");
    let span = collector.wait_for(1).remove(0);
    assert!(span.end_time_unix_nano - span.start_time_unix_nano >= 30_000_000);
}

#[test]
fn there_are_none_without_an_endpoint() {
    let code = "function api.get(ctx) return ctx:header('traceparent') or 'none' end";
    let app = App::start_server(server(code, 1).set("management.port", "0"));
    assert_eq!(app.get("/").text(), "none");
    assert!(!app.told("/metrics").text().contains("otlp"));
}
