//! What it costs to run a handler and send its table: Rover's way, and the same through mlua's safe interface.
#![allow(clippy::expect_used, reason = "a benchmark that cannot run must say so")]

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use mlua::{Function, Lua, LuaSerdeExt, Table, Value};
use rover_server::bench_support::InProcess;

const HANDLER: &str = "function() return { message = 'Hello, World!' } end";

fn calls(c: &mut Criterion) {
    let mut group = c.benchmark_group("lua_call");
    let code = format!("local api = rover.server {{}} api.get = {HANDLER} return api");
    let app = InProcess::new(&code).expect("the app loads");
    group.bench_function("rover", |b| b.iter_custom(|times| app.handle(times)));

    let lua = Lua::new();
    let handler: Function = lua.load(format!("return {HANDLER}")).eval().expect("the handler loads");
    let meta = lua.create_table().expect("a table");
    let call = |lua: &Lua, run: &dyn Fn(Table) -> Value| {
        let ctx = lua.create_table().expect("a table");
        ctx.set_metatable(Some(meta.clone())).expect("a metatable");
        serde_json::to_vec(&run(ctx)).expect("JSON")
    };
    group.bench_function("mlua_function", |b| {
        b.iter_custom(|times| {
            let start = Instant::now();
            for _ in 0..times {
                black_box(call(&lua, &|ctx| handler.call(ctx).expect("the handler returns")));
            }
            start.elapsed()
        });
    });
    // The value is what a plain call returns; a handler that may wait needs a thread as well.
    group.bench_function("mlua_thread", |b| {
        b.iter_custom(|times| {
            let start = Instant::now();
            for _ in 0..times {
                let thread = lua.create_thread(handler.clone()).expect("a thread");
                black_box(call(&lua, &|ctx| thread.resume(ctx).expect("the handler returns")));
            }
            start.elapsed()
        });
    });
    let _ = lua.null();
    group.finish();
}

criterion_group!(benches, calls);
criterion_main!(benches);
