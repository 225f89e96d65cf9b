//! Whole requests without the kernel, from bytes in to bytes out; and what each part of the context adds to one.
#![allow(clippy::expect_used, reason = "a benchmark that cannot run must say so")]

use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use rover_server::bench_support::InProcess;

const APP: &str = r#"
local api = rover.server {}
function api.nothing.p_id.get() return "ok" end
function api.fields.p_id.get(ctx) return ctx.method == "GET" and ctx.path and "ok" end
function api.header.p_id.get(ctx) return ctx:header("Accept") and "ok" end
function api.headers.p_id.get(ctx) return ctx:headers().accept and "ok" end
function api.params.p_id.get(ctx) return ctx:params().id and "ok" end
function api.query.p_id.get(ctx) return ctx:query().q and "ok" end
function api.cookie.p_id.get(ctx) return ctx:cookie("session") and "ok" end
function api.set.p_id.get(ctx) ctx:set("a", 1) return ctx:get("a") and "ok" end
function api.json.get() return { message = "Hello, World!" } end
function api.built.get() return api.json({ message = "Hello, World!" }):header("X-A", "b") end
function api.before.nothing(ctx) end
function api.echo.post(ctx) return ctx:json() end
return api
"#;

fn requests(c: &mut Criterion) {
    let app = InProcess::new(APP).expect("the app loads");
    let mut bench = |name: &str, request: String| {
        c.bench_function(name, |b| {
            b.iter_custom(|times| {
                let start = Instant::now();
                app.serve(&[request.clone().into_bytes()], times as usize);
                start.elapsed()
            });
        });
    };
    let headers = "Host: localhost\r\nAccept: */*\r\nUser-Agent: bench\r\nCookie: theme=dark; session=1\r\n";
    for part in ["nothing", "fields", "header", "headers", "params", "query", "cookie", "set"] {
        bench(&format!("context/{part}"), format!("GET /{part}/7?q=a HTTP/1.1\r\n{headers}\r\n"));
    }
    for path in ["json", "built"] {
        bench(&format!("request/{path}"), format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }
    let body = r#"{"message":"Hello, World!"}"#;
    bench(
        "request/echo",
        format!("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
    );
}

criterion_group!(benches, requests);
criterion_main!(benches);
