//! Traces as an operator meets them: the standard variables, and what the log says of a collector in trouble.
#![cfg(feature = "otlp")]
#![allow(clippy::unwrap_used, reason = "a test's failure is its report")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use process::{App, DEADLINE, Server};

mod process;

/// What came, and whether it was taken.
type Asked = (bool, Vec<u8>);

/// A collector: where it is, whether it takes anything, and what has come.
fn collector(takes: bool) -> (SocketAddr, Arc<AtomicBool>, mpsc::Receiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, takes) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(takes)));
    let (tell, asked) = mpsc::channel();
    let is_well = takes.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (tell, is_well) = (tell.clone(), is_well.clone());
            thread::spawn(move || collect(&stream, &tell, &is_well));
        }
    });
    (address, takes, asked)
}

fn collect(mut stream: &TcpStream, asked: &mpsc::Sender<Asked>, is_well: &AtomicBool) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let takes = is_well.load(Ordering::SeqCst);
        let _ = asked.send((takes, body));
        let status = if takes { "200 OK" } else { "500 Internal Server Error" };
        stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).ok()?;
    }
}

fn get(server: &mut Server, address: &mut Option<String>) {
    let address = address.get_or_insert_with(|| {
        let started = server.logged("listening on");
        started.split("http://").nth(1).and_then(|rest| rest.split(',').next()).unwrap().to_owned()
    });
    let mut stream = TcpStream::connect(address.as_str()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nhi"), "{answer}");
}

const APP: &str = "local api = rover.server { access_log = false } function api.get() return 'hi' end return api";

fn start(app: &App, collector: SocketAddr, variables: &[(&str, &str)]) -> Server {
    let mut command = app.command(&["--port", "0", "--workers", "1"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}"));
    command.env("ROVER_OTLP_INTERVAL", "50ms").envs(variables.iter().copied());
    Server::start(command)
}

fn holds(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn standard_variables_turn_it_on() {
    let (address, _, asked) = collector(true);
    let app = App::new("variables", &[("app.lua", APP)]);
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging");
    let mut server = start(&app, address, &[("OTEL_SERVICE_NAME", "shop"), attributes]);
    get(&mut server, &mut None);
    let (_, body) = asked.recv_timeout(DEADLINE).unwrap();
    for text in ["service.name", "shop", "deployment.environment.name", "staging", "GET /", "http.route"] {
        assert!(holds(&body, text), "{text}");
    }
    drop(server);

    let mut server = start(&app, address, &[("ROVER_OTLP_SERVICE_NAME", "own"), ("OTEL_SERVICE_NAME", "shop")]);
    get(&mut server, &mut None);
    let (_, body) = asked.recv_timeout(DEADLINE).unwrap();
    assert!(holds(&body, "own") && !holds(&body, "shop"), "Rover's own settings win");
    drop(server);

    let mut server = start(&app, address, &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
    server.logged("OTEL_EXPORTER_OTLP_PROTOCOL must be \"http/protobuf\", which is what Rover speaks, got \"grpc\"");
}

#[test]
fn the_log_tells_of_trouble_once_and_of_its_end() {
    let (address, is_well, asked) = collector(false);
    let app = App::new("trouble", &[("app.lua", APP)]);
    let mut server = start(&app, address, &[]);
    let mut place = None;
    get(&mut server, &mut place);
    let line = server.logged("traces cannot be exported");
    assert!(line.contains("\"lost_spans\":1") && line.contains("status 500"), "{line}");
    for _ in 0..3 {
        get(&mut server, &mut place);
        assert!(!asked.recv_timeout(DEADLINE).unwrap().0, "it is asked again, and refuses again");
    }
    is_well.store(true, Ordering::SeqCst);
    get(&mut server, &mut place);
    while !asked.recv_timeout(DEADLINE).unwrap().0 {}
    let line = server.logged("traces are exported again");
    assert!(line.contains("\"level\":\"info\"") && line.contains("\"lost_spans\":"), "{line}");
    let warnings = server.seen.iter().filter(|line| line.contains("traces cannot be exported"));
    assert_eq!(warnings.count(), 1, "{:?}", server.seen);
}
