//! JSON from and to Lua values: Rover's own way against the route through serde that mlua offers.
//!
//! Each measurement is one call from Rust that repeats the work, so that entering Lua costs neither side anything.

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mlua::LuaSerdeExt;
use rover_server::bench_support::Json;

/// A record of about 1 KB, as an API would return it.
const RECORD: &str = r#"{"id":90071,"name":"Ada Lovelace","email":"ada@example.org","active":true,"score":97.25,"manager":null,
"address":{"street":"12 St James's Square","city":"London","zip":"SW1Y 4JH","position":[51.507389,-0.134917]},
"tags":["mathematics","poetry","engines","correspondence"],
"bio":"Wrote the first \"program\" for a machine that was never finished.\nHer notes are longer than the paper they annotate — naturally.",
"orders":[{"id":1001,"sku":"PUNCH-CARD-100","quantity":3,"price":12.5,"shipped":true},
{"id":1002,"sku":"BRASS-GEAR-12","quantity":40,"price":3.75,"shipped":false},
{"id":1003,"sku":"NOTEBOOK-A5","quantity":2,"price":4,"shipped":true},
{"id":1004,"sku":"INK-BLUE-50ML","quantity":1,"price":7.2,"shipped":false},
{"id":1005,"sku":"LAMP-OIL-1L","quantity":6,"price":2.1,"shipped":true}],
"stats":{"logins":1284,"failures":3,"last":1718000000,"average":0.8431,"history":[12,15,9,22,31,8,4,19]}}"#;

fn documents() -> Vec<(&'static str, String)> {
    let record: serde_json::Value = serde_json::from_str(RECORD).unwrap_or_default();
    let record = record.to_string();
    let integers: Vec<String> = (1..=1000).map(|n| (n * 7).to_string()).collect();
    vec![
        ("hello", r#"{"message":"Hello, World!"}"#.to_owned()),
        ("64k", format!("[{}]", vec![record.as_str(); 64].join(","))),
        ("1k", record),
        ("integers", format!("[{}]", integers.join(","))),
    ]
}

fn encode(criterion: &mut Criterion) {
    let lua = mlua::Lua::new();
    let Ok(json) = Json::new(&lua) else { return };
    let mut group = criterion.benchmark_group("json_encode");
    for (name, text) in documents() {
        group.throughput(Throughput::Bytes(text.len() as u64));
        let tree: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let options = mlua::serde::ser::Options::new().set_array_metatable(false);
        let Ok(value) = lua.to_value_with(&tree, options) else {
            return;
        };
        group.bench_function(format!("rover/{name}"), |b| {
            b.iter_custom(|times| json.encode(&value, times).unwrap_or_default());
        });
        group.bench_function(format!("mlua_serde/{name}"), |b| {
            let mut out = Vec::new();
            b.iter_custom(|times| {
                let start = Instant::now();
                for _ in 0..times {
                    out.clear();
                    let _ = serde_json::to_writer(&mut out, black_box(&value));
                    black_box(out.as_slice());
                }
                start.elapsed()
            });
        });
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let lua = mlua::Lua::new();
    let Ok(json) = Json::new(&lua) else { return };
    let mut group = criterion.benchmark_group("json_decode");
    for (name, text) in documents() {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("rover/{name}"), |b| {
            b.iter_custom(|times| json.decode(&text, times).unwrap_or_default());
        });
        group.bench_function(format!("mlua_serde/{name}"), |b| {
            b.iter_custom(|times| {
                let start = Instant::now();
                for _ in 0..times {
                    let tree: serde_json::Value = serde_json::from_str(black_box(&text)).unwrap_or_default();
                    let _ = black_box(lua.to_value(&tree));
                }
                start.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encode, decode);
criterion_main!(benches);
