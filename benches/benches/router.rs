//! What it costs to find a handler, by number of routes and kind of path.
//!
//! Every figure is for one look-up, cycling through 64 paths so that the branch predictor does not learn one by heart.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::Method;
use rover_server::route::{FastRouter, Origin, Pattern, RouteDecl, TrailingSlash, Verb};

const PATHS: usize = 64;

/// Half of the routes are static, the others have two parameters.
fn router(routes: usize) -> FastRouter {
    let decls = (0..routes).map(|i| {
        let resource = resource(i / 2);
        let fields: &[&str] = match i % 2 {
            0 => &["api", "v1", &resource],
            _ => &["api", "v1", &resource, "p_id", "items", "p_item"],
        };
        RouteDecl {
            verb: Verb::Get,
            pattern: Pattern::parse(fields).unwrap(),
            origin: Origin { file: "app.lua".into(), line: 1 },
        }
    });
    FastRouter::build(decls.collect(), TrailingSlash::Strict).unwrap()
}

/// The same with rests of the path at three depths, which cost one more search each.
fn router_with_rests(routes: usize) -> FastRouter {
    let mut decls = router(routes).routes().to_vec();
    for fields in [&["{*all}"][..], &["static", "{*path}"], &["api", "v1", "{*path}"]] {
        let origin = Origin { file: "app.lua".into(), line: 2 };
        decls.push(RouteDecl { verb: Verb::Get, pattern: Pattern::parse(fields).unwrap(), origin });
    }
    FastRouter::build(decls, TrailingSlash::Strict).unwrap()
}

fn resource(i: usize) -> String {
    format!("{}{i}", ["users", "orders", "invoices", "products"][i % 4])
}

fn paths(count: usize, routes: usize, path: impl Fn(&str, usize) -> String) -> Vec<String> {
    // A stride that visits the whole table and not its first lines only.
    (0..count).map(|i| path(&resource(i * 7919 % (routes / 2)), i)).collect()
}

fn two_params(resource: &str, i: usize) -> String {
    format!("/api/v1/{resource}/{}/items/{i}", 1000 + i)
}

fn look_up(c: &mut Criterion) {
    for (kind, path) in [
        ("static", (|resource, _| format!("/api/v1/{resource}")) as fn(&str, usize) -> String),
        ("two_params", two_params),
        ("two_params_encoded", |resource, i| format!("/api/v1/{resource}/a%20b/items/{i}")),
        ("miss", |resource, i| format!("/api/v1/{resource}/{i}/things")),
    ] {
        let mut group = c.benchmark_group(kind);
        for routes in [10, 200, 10_000] {
            let (router, paths) = (router(routes), paths(PATHS, routes, path));
            let mut next = paths.iter().cycle();
            group.bench_function(BenchmarkId::from_parameter(routes), |b| {
                b.iter(|| black_box(router.find(&Method::GET, black_box(next.next().unwrap()))));
            });
        }
    }
    let (router, paths) = (router_with_rests(200), paths(PATHS, 200, two_params));
    let mut next = paths.iter().cycle();
    c.bench_function("two_params_beside_three_rests/203", |b| {
        b.iter(|| black_box(router.find(&Method::GET, black_box(next.next().unwrap()))));
    });
}

criterion_group!(benches, look_up);
criterion_main!(benches);
