//! Serves a fixed script of requests in this process, without the kernel, so that valgrind can count the instructions.
//!
//! `instructions SCRIPT TIMES`: run it with two values of TIMES; what a request costs is the difference over the
//! difference. `tests/perf/gate` does. With `allocations` as a third argument it says how often a request asks the
//! process's allocator for memory; with `management`, requests are counted for the management listener; with `otlp`, in a
//! build with that feature, every request is traced and the spans are sent to a thread that takes them. `hyper` and
//! `hyper-allocations` measure bare hyper on the same script.
#![allow(unsafe_code, reason = "a global allocator that counts")]

use std::alloc::{GlobalAlloc, Layout};
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use rover_lua::Allocator;
use rover_server::Server;
use rover_server::bench_support::{InProcess, Script};

// As in `rover` itself, with a count.
#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls that asked for memory.
static ASKED: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: hands every call on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { Allocator.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { Allocator.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ASKED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { Allocator.realloc(block, layout, size) }
    }
}

const ORDER_1K: &str = include_str!("../../../tests/perf/wrk/order-1k.json");
const APP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/perf/apps/rover.lua");

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let script = arguments.next().unwrap_or_default();
    let times = arguments.next().and_then(|times| times.parse().ok()).unwrap_or(1);
    let Some(requests) = requests(&script) else {
        eprintln!(
            "usage: instructions json|json16|plaintext16|params|routes200|echo|post1k|headers2|headers20 TIMES \
             [management|otlp|allocations|hyper|hyper-allocations]"
        );
        return ExitCode::from(2);
    };
    let kind = arguments.next().unwrap_or_default();
    let serve: Box<dyn Fn(usize) -> usize> = if kind.starts_with("hyper") {
        Box::new(|times| hyper_floor(&requests, times))
    } else {
        let mut server = Server::from_file(APP);
        if kind == "management" {
            server = server.set("management.port", "0");
        }
        if kind == "otlp" {
            let Ok(collector) = collector() else { return ExitCode::FAILURE };
            server = server.set("otlp.endpoint", collector);
        }
        match InProcess::of(&server) {
            Ok(server) if kind == "otlp" => Box::new(move |times| {
                // A batch of spans at a time, which is then sent.
                let batches = (0..times).step_by(512);
                let serve = |from: usize| {
                    let answered = server.serve(&requests, (times - from).min(512));
                    server.rest();
                    answered
                };
                batches.map(serve).sum()
            }),
            Ok(server) => Box::new(move |times| server.serve(&requests, times)),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
    };
    // Enough for LuaJIT to compile what it will.
    serve(2000);
    let before = ASKED.load(Ordering::Relaxed);
    let answered = serve(times);
    if kind.ends_with("allocations") {
        println!("{}", (ASKED.load(Ordering::Relaxed) - before) as f64 / times as f64);
    } else {
        println!("{answered} bytes answered");
    }
    ExitCode::SUCCESS
}

/// A server that takes what comes; gives its URL.
fn collector() -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = vec![0; 1 << 20];
            let (mut have, mut want) = (0, None);
            while let Ok(read @ 1..) = stream.read(&mut buffer[have..]) {
                have += read;
                if want.is_none()
                    && let Some(end) = buffer[..have].windows(4).position(|four| four == b"\r\n\r\n")
                {
                    let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
                    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
                    want = Some(end + 4 + length.and_then(|length| length.parse::<usize>().ok()).unwrap_or(0));
                }
                if want == Some(have) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                    (have, want) = (0, None);
                }
            }
        }
    });
    Ok(url)
}

/// Bare hyper with a fixed answer on the same script: the floor.
fn hyper_floor(requests: &[Vec<u8>], times: usize) -> usize {
    let answer = |_: Request<Incoming>| {
        let mut response = Response::new(Full::new(Bytes::from_static(br#"{"message":"Hello, World!"}"#)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        std::future::ready(Ok::<_, Infallible>(response))
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return 0 };
    let (script, answered) = Script::new(requests, times);
    let mut http = http1::Builder::new();
    let connection = http.pipeline_flush(true).serve_connection(TokioIo::new(script), service_fn(answer));
    let _ = runtime.block_on(connection);
    answered.get()
}

/// As `X-Unread-1: value 1`.
fn unread_headers(count: usize) -> String {
    (1..=count).map(|number| format!("X-Unread-{number}: value {number}\r\n")).collect()
}

/// What is sent in one write each, in turn.
fn requests(script: &str) -> Option<Vec<Vec<u8>>> {
    let get =
        |target: &str, more: &str| format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1:4242\r\n{more}\r\n").into_bytes();
    let post = |target: &str, body: &str| {
        let head = format!("POST {target} HTTP/1.1\r\nHost: 127.0.0.1:4242\r\nContent-Type: application/json\r\n");
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    if script == "routes200" {
        // As `tests/perf/wrk/routes200.lua` has it: every path is another one.
        let headers = "User-Agent: wrk\r\nAccept: application/json\r\nAccept-Language: en-GB\r\nX-Client: perf\r\n";
        let path = |n| format!("/api/v1/res137/{}/items/{}?q=red+shoes", 999 + n, 2000 - n);
        return Some((1..=1000).map(|n| get(&path(n), headers)).collect());
    }
    Some(vec![match script {
        "json" => get("/json", ""),
        "json16" => get("/json", "").repeat(16),
        "plaintext16" => get("/plaintext", "").repeat(16),
        "params" => get("/echo/ada/7", ""),
        "echo" => post("/echo", r#"{"message":"Hello, World!"}"#),
        "post1k" => post("/update", ORDER_1K),
        // Headers that the handler does not read: how much more do 20 cost than 2?
        "headers2" => get("/json", &unread_headers(2)),
        "headers20" => get("/json", &unread_headers(20)),
        _ => return None,
    }])
}
