//! Values on their way out of Lua: how large they may become, what stands for an array, and how numbers are written.

use std::ffi::c_void;
use std::time::Duration;

use rover_server::Server;
use rover_server::mlua::LightUserData;

use crate::support::{App, each_worker_count, wait_until};

/// A table that holds another twice, and so on: 2^100 of them, in a hundred tables.
const TWICE: &str = "local t = {} for i = 1, 100 do t = { t, t } end";
/// The same with tables that are looked through for long, and make next to no JSON.
const SPARSE: &str = "local e = {} for i = 1, 2^16 do e[i] = i end for i = 2^16, 1, -1 do e[i] = nil end
    local t = e for i = 1, 100 do t = { t, t } end";

#[test]
fn a_value_that_is_too_large_as_json_is_refused_everywhere() {
    let code = format!(
        "local api = rover.server {{ json_size_limit = '100KB', debug = true }} {TWICE}
         local pairs = {{}} for i = 1, 100 do pairs = {{ a = pairs, b = pairs }} end
         local wide = {{}} for i = 1, 60000 do wide[i] = 12 end
         local long = {{ ('x'):rep(200000) }}
         local function refused(call, ...) return select(2, pcall(call, ...)) end
         function api.encode.get() return refused(rover.json.encode, t) end
         function api.pairs.get() return refused(rover.json.encode, pairs) end
         function api.wide.get() return refused(rover.json.encode, wide) end
         function api.long.get() return refused(rover.json.encode, long) end
         function api.mixed.get() return refused(rover.json.encode, {{ t, x = t }}) end
         function api.pretty.get() return refused(rover.json.encode, t, {{ pretty = true }}) end
         function api.returned.get() return t end
         function api.built.get() return api.json(t) end
         function api.raised.get() error(t) end
         function api.asked.get() error {{ status = 400, t = t }} end
         function api.shared.get() return refused(rover.shared.d.set, rover.shared.d, 'k', t) end
         function api.sent.get() return refused(rover.http.post, 'http://127.0.0.1:1/', nil, {{ json = t }}) end
         function api.logged.get() rover.log.info('large', {{ t = t }}) return 'logged' end
         function api.fits.get() return #rover.json.encode(('x'):rep(90000)) end
         return api"
    );
    each_worker_count(|workers| {
        let app = App::start(&code, workers);
        let refusal = "is more than 102400 bytes of JSON (json_size_limit)";
        for path in ["encode", "pairs", "wide", "long", "mixed", "pretty", "sent"] {
            let answer = app.get(&format!("/{path}"));
            assert!(answer.status == 200 && answer.text().contains(refusal), "{path}: {answer:?}");
        }
        for path in ["returned", "built"] {
            let answer = app.get(&format!("/{path}"));
            assert!(answer.status == 500 && answer.text().contains(refusal), "{path}: {answer:?}");
        }
        assert!(
            app.get("/shared").text().ends_with("cannot store a table of more than 102400 bytes (json_size_limit)")
        );
        assert_eq!(app.get("/raised").status, 500);
        assert_eq!(app.get("/asked").status, 500);
        assert_eq!(app.get("/logged").text(), "logged");
        assert_eq!(app.get("/fits").text(), "90002");
    });
}

#[test]
fn tables_that_are_long_to_look_through_count() {
    let app = App::start(
        &format!(
            "local api = rover.server {{ json_size_limit = '1MB', handler_cpu_limit = 0 }} {SPARSE}
             function api.get() return select(2, pcall(rover.json.encode, t)) end
             function api.shared.get() return select(2, pcall(rover.shared.d.set, rover.shared.d, 'k', t)) end
             return api"
        ),
        1,
    );
    assert!(app.get("/").text().contains("(json_size_limit)"));
    assert!(app.get("/shared").text().contains("(json_size_limit)"));
}

#[test]
fn without_a_limit_encoding_is_stopped_as_any_other_code() {
    let code = format!(
        "local api = rover.server {{ json_size_limit = 0 }} {TWICE}
         function api.encode.get() while true do pcall(rover.json.encode, t) end end
         function api.logged.get() while true do pcall(rover.log.info, 'x', {{ t = t }}) end end
         function api.shared.get() while true do pcall(rover.shared.d.set, rover.shared.d, 'k', t) end end
         function api.get() return 'on' end
         return api"
    );
    let server = Server::from_source("app.lua", code).workers(1).handler_cpu_limit(Duration::from_millis(100));
    let app = App::start_server(server);
    for path in ["/encode", "/logged", "/shared"] {
        assert_eq!(app.get(path).status, 503, "{path}");
        assert_eq!(app.get("/").text(), "on");
    }
    wait_until(|| app.get("/").text() == "on");
}

#[test]
fn arrays_of_json_libraries_are_arrays() {
    let code = "
        local api = rover.server {}
        local array = setmetatable({}, { __jsontype = 'array' })
        local object = setmetatable({}, { __jsontype = 'object' })
        local lyaml_null = setmetatable({}, { _type = 'LYAML null' })
        function api.unknown.get() return { array, object, lyaml_null, setmetatable({}, {}) } end
        package.loaded.cjson = { empty_array_mt = {}, array_mt = {}, empty_array = light() }
        package.loaded.dkjson = { null = setmetatable({}, { __tojson = print }) }
        local cjson, dkjson = package.loaded.cjson, package.loaded.dkjson
        function api.get()
          return {
            setmetatable({}, cjson.empty_array_mt), setmetatable({}, cjson.array_mt),
            setmetatable({ 1 }, cjson.array_mt), cjson.empty_array, dkjson.null,
            { inner = setmetatable({}, cjson.array_mt) },
          }
        end
        function api.pretty.get() return rover.json.encode(setmetatable({}, cjson.array_mt), { pretty = true }) end
        function api.alone.get() return api.json(cjson.empty_array) end
        function api.other.get() return { other() } end
        return api";
    each_worker_count(|workers| {
        let server = Server::from_source("app.lua", code).workers(workers);
        let light = |address: usize| LightUserData(std::ptr::without_provenance_mut::<c_void>(address));
        let server = server.function("light", move |_, ()| Ok(light(0x1230)));
        let app = App::start_server(server.function("other", move |_, ()| Ok(light(0x4560))));
        assert_eq!(app.get("/unknown").text(), "[[],{},null,{}]");
        assert_eq!(app.get("/").text(), r#"[[],[],[1],[],null,{"inner":[]}]"#);
        assert_eq!(app.get("/pretty").text(), "[]");
        assert_eq!(app.get("/alone").text(), "[]");
        assert_eq!(app.get("/other").status, 500);
    });
}

#[test]
fn integers_of_64_bits_are_exact() {
    let code = "
        local api = rover.server {}
        function api.get()
          return { 1LL, -1LL, 9007199254740993LL, -9223372036854775807LL - 1, 18446744073709551615ULL, 2^53 }
        end
        function api.alone.get() return 9007199254740993LL end
        function api.other.get() return { require('ffi').new('int', 1) } end
        return api";
    each_worker_count(|workers| {
        let app = App::start(code, workers);
        let numbers = "[1,-1,9007199254740993,-9223372036854775808,18446744073709551615,9007199254740992]";
        assert_eq!(app.get("/").text(), numbers);
        assert_eq!(app.get("/alone").text(), "9007199254740993");
        assert_eq!(app.get("/other").status, 500);
    });
}

#[test]
fn integers_are_written_in_full_everywhere() {
    const N: &str = "123456789012345";
    let code = format!(
        "local api = rover.server {{}}
         local n = {N}
         function api.returned.get() return n end
         function api.text.get() return api.text(n) end
         function api.html.get() return api.html(n) end
         function api.raw.get() return api.raw(-n) end
         function api.error.get() return api:error(400, n) end
         function api.header.get() return api.text('x'):header('X-N', n):cookie('n', n) end
         function api.hooked.get() return n end
         function api.hooked.after.keep(ctx, res) res:header('X-Hooked', 2^53) end
         function api.json.get() return {{ n, [2] = 'x' }} end
         function api.message.get() return select(2, pcall(rover.sleep, -n)) end
         function api.half.get() return api.text(0.5) end
         function api.large.get() return api.text(1e300) end
         function api.negative.get() return api.text(-0.0) end
         return api"
    );
    each_worker_count(|workers| {
        let app = App::start(&code, workers);
        for path in ["returned", "text", "html", "hooked"] {
            assert_eq!(app.get(&format!("/{path}")).text(), N, "{path}");
        }
        assert_eq!(app.get("/raw").text(), format!("-{N}"));
        assert_eq!(app.get("/error").text(), format!("{{\"error\":\"{N}\"}}"));
        let answer = app.get("/header");
        assert_eq!(answer.header("x-n"), Some(N));
        assert_eq!(answer.header("set-cookie"), Some(&*format!("n={N}")));
        assert_eq!(app.get("/hooked").header("x-hooked"), Some("9007199254740992"));
        assert_eq!(app.get("/json").text(), format!("[{N},\"x\"]"));
        assert!(app.get("/message").text().contains(N), "{}", app.get("/message").text());
        assert_eq!(app.get("/half").text(), "0.5");
        assert_eq!(app.get("/large").text(), "1e+300");
        assert_eq!(app.get("/negative").text(), "-0");
    });
}
