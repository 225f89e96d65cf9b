//! `rover.http` and the proxy over TLS, with HTTP/2 where a server has it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio_rustls::TlsAcceptor;

use crate::support::{App, body, each_worker_count};

/// A server under TLS, and the file of the certificate to trust.
struct Secure {
    address: SocketAddr,
    ca: PathBuf,
}

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.ca);
    }
}

/// Answers with the version of HTTP, and with what it was sent; at `/named`, with how the server was named.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/named" {
        let authority = request.uri().authority().map_or("none", |authority| authority.as_str());
        let named = format!("authority {authority}, host {:?}", request.headers().get("host"));
        return Ok(Response::new(Full::new(named.into())));
    }
    let version = format!("{:?} ", request.version());
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(Response::new(Full::new([version.as_bytes(), &body].concat().into())))
}

/// What a server that is `localhost` and offers these protocols has to know, and the file of the certificate to trust.
pub fn identity(name: &str, protocols: &[&str]) -> (rustls::ServerConfig, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let ca = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.pem"));
    std::fs::write(&ca, made.cert.pem()).expect("a file");
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a key that fits");
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    (config, ca)
}

fn secure(name: &str, protocols: &[&str]) -> Secure {
    let (config, ca) = identity(name, protocols);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    let (io, service) = (TokioIo::new(stream), hyper::service::service_fn(answer));
                    if is_h2 {
                        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        let _ = http.serve_connection(io, service).await;
                    } else {
                        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                    }
                });
            }
        });
    });
    Secure { address, ca }
}

#[test]
fn certificates_are_checked_and_http2_is_spoken() {
    let (both, old) = (secure("client-h2", &["h2", "http/1.1"]), secure("client-h1", &["http/1.1"]));
    let code = format!(
        "local api = rover.server {{}}
         local trusting = rover.http.create {{ name = 'trusting', tls = {{ ca = '{}' }} }}
         local old = rover.http.create {{ tls = {{ ca = '{}' }} }}
         local blind = rover.http.create {{ tls = {{ insecure = true }} }}
         local lost = rover.http.create {{ tls = {{ ca = 'no-such-file.pem' }} }}
         local url = 'https://localhost:{}/'
         local function tell(client, url)
           local res, err = client.post(url, 'body')
           return res and res.body or err
         end
         function api.get()
           return {{ tell(trusting, url), tell(old, 'https://localhost:{}/'), tell(blind, 'https://{}/'), tell(rover.http, url),
             tell(trusting, 'https://{4}/'), tell(lost, url) }}
         end
         function api.crowd.get()
           tell(trusting, url)
           local calls = {{}}
           for n = 1, 10 do calls[n] = function() return tell(trusting, url) end end
           rover.all(calls)
           return trusting.stats()['https://localhost:{2}']
         end
         return api",
        both.ca.display(),
        old.ca.display(),
        both.address.port(),
        old.address.port(),
        both.address,
    );
    each_worker_count(|workers| {
        let app = App::start(&code, workers);
        assert_eq!(
            body(&app, "/"),
            json!([
                "HTTP/2.0 body",
                "HTTP/1.1 body",
                "HTTP/2.0 body",
                "TLS: the certificate is not from a trusted authority",
                "TLS: the certificate is for another name",
                "TLS: cannot read certificates from no-such-file.pem",
            ])
        );
        let stats = body(&app, "/crowd");
        // Many requests share one connection.
        assert_eq!((&stats["open"], &stats["active"]), (&json!(1), &json!(0)), "{stats}");
    });
}

#[test]
fn a_host_header_is_the_authority_of_http2() {
    let server = secure("client-authority", &["h2"]);
    let code = format!(
        "local api = rover.server {{}}
         local client = rover.http.create {{ tls = {{ ca = '{}' }} }}
         function api.get(ctx)
           local res, err = client.get('https://localhost:{}/named', {{ headers = {{ Host = ctx:query().host }} }})
           return res and res.body or err
         end
         return api",
        server.ca.display(),
        server.address.port()
    );
    each_worker_count(|workers| {
        let app = App::start(&code, workers);
        assert_eq!(app.get("/?host=shop.example").text(), "authority shop.example, host None");
        let own = format!("authority localhost:{}, host None", server.address.port());
        assert_eq!(app.get("/").text(), own);
    });
}

#[test]
fn a_proxy_trusts_whom_it_is_told_to() {
    let server = secure("client-proxy", &["h2", "http/1.1"]);
    let (ca, url) = (server.ca.display(), format!("https://localhost:{}/", server.address.port()));
    let code = format!(
        "local api = rover.server {{}}
         api.known.post = api.proxy('{url}', {{ tls = {{ ca = '{ca}' }} }})
         api.blind.post = api.proxy({{ 'https://{}/' }}, {{ tls = {{ insecure = true }} }})
         api.strange.post = api.proxy('{url}')
         function api.lost.post(ctx) return ctx:proxy('{url}', {{ tls = {{ ca = 'no-such-file.pem' }} }}) end
         return api",
        server.address
    );
    each_worker_count(|workers| {
        let app = App::start(&code, workers);
        // Twice: the second time over the connection that is open.
        for _ in 0..2 {
            for path in ["/known", "/blind"] {
                assert_eq!(app.post(path, "\"tea\"").text(), "HTTP/1.1 \"tea\"", "{path}");
            }
            for (path, why) in [
                ("/strange", "TLS: the certificate is not from a trusted authority"),
                ("/lost", "TLS: cannot read certificates from no-such-file.pem"),
            ] {
                let answer = app.post(path, "1");
                assert_eq!(answer.status, 502, "{path}");
                let told: serde_json::Value = serde_json::from_str(answer.text()).expect("JSON");
                assert_eq!(told, json!({ "error": "Bad Gateway", "reason": why }), "{path}");
            }
        }
    });
}
