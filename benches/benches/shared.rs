//! What a look into `rover.shared` and `rover.cache` costs from Lua: a thousand calls in one handler.
#![allow(clippy::expect_used, reason = "a benchmark that cannot run must say so")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rover_server::bench_support::InProcess;

const CALLS: u64 = 1000;

fn shared(c: &mut Criterion) {
    let mut group = c.benchmark_group("shared");
    group.throughput(Throughput::Elements(CALLS));
    let mut bench = |name: &str, setup: &str, call: &str| {
        let code = format!(
            "local api = rover.server {{}}
            local dict, cache, sink = rover.shared.bench, rover.cache.bench, nil
            local text, list = ('x'):rep(100), {{ name = 'Ada', tags = {{ 'a', 'b' }}, n = 1 }}
            local is_ready = false
            local function setup() if not is_ready then is_ready = true {setup} end end
            function api.get() setup() for i = 1, {CALLS} do sink = {call} end return sink end
            return api"
        );
        let app = InProcess::new(&code).expect("the app loads");
        app.handle(10);
        group.bench_function(name, |b| b.iter_custom(|times| app.handle(times)));
    };
    // The same loop and call of a method without any look.
    bench("floor", "sink = 'text'", "text:len()");
    bench("get/miss", "", "dict:get('key')");
    bench("get/number", "dict:set('key', 1)", "dict:get('key')");
    bench("get/number_with_ttl", "dict:set('key', 1, 1000)", "dict:get('key')");
    bench("get/string_100", "dict:set('key', text)", "dict:get('key')");
    bench("get/table", "dict:set('key', list)", "dict:get('key')");
    bench("set/number", "", "dict:set('key', 1)");
    bench("set/table", "", "dict:set('key', list)");
    bench("incr", "", "dict:incr('key', 1, 0)");
    bench("cache/get_number", "cache:set('key', 1)", "cache:get('key')");
    bench("cache/get_or_number", "cache:set('key', 1)", "cache:get_or('key', 60, print)");
    group.finish();
}

criterion_group!(benches, shared);
criterion_main!(benches);
