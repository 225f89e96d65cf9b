//! The rules of JSON in Rover, seen from Lua.

use std::rc::Rc;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::{MOST_LEVELS, Vocabulary, functions};
use crate::lua::{OwnedMeta, Shared};

/// A VM with `encode`, `decode`, `array`, `null` and `body(s)`.
fn vm() -> mlua::Lua {
    let lua = mlua::Lua::new();
    let build = || -> mlua::Result<()> {
        let texts = Rc::new(OwnedMeta::<Bytes>::new(&lua, &lua.create_table()?)?);
        let metatable = lua.create_table()?;
        let vocabulary = Rc::new(Vocabulary::new(&lua, &metatable, Rc::clone(&texts))?);
        let shared = Shared::new(&lua, texts)?;
        let body = shared.function(&lua, |stack, texts| {
            let bytes = Bytes::copy_from_slice(stack.bytes(1).unwrap_or_default());
            texts.push(stack, bytes);
            Ok(1)
        })?;
        let json = functions(&lua, vocabulary)?;
        let globals = lua.globals();
        globals.set("encode", json.get::<mlua::Function>("encode")?)?;
        globals.set("decode", json.get::<mlua::Function>("decode")?)?;
        globals.set("array_metatable", metatable)?;
        globals.set("null", mlua::Value::NULL)?;
        globals.set("body", body)?;
        lua.load("function array(t) return setmetatable(t, array_metatable) end")
            .exec()
    };
    build().unwrap();
    lua
}

/// What a Lua chunk returns, as bytes.
fn run(chunk: &str) -> Vec<u8> {
    let lua = vm();
    let result: mlua::LuaString = lua.load(chunk).set_name("=app.lua").eval().unwrap();
    result.as_bytes().to_vec()
}

/// The JSON of a Lua expression.
fn encoded(expression: &str) -> String {
    String::from_utf8(run(&format!("return encode({expression})"))).unwrap()
}

/// The message that encoding raises after `setup` for the value `v`.
fn encode_error(setup: &str) -> String {
    let chunk = format!(
        "{setup}\nlocal ok, e = pcall(function() local s = encode(v) end)\nassert(not ok)\nreturn e"
    );
    let message = String::from_utf8(run(&chunk)).unwrap();
    // The position is that of the call, on the line below the set-up.
    message.strip_prefix("app.lua:2: ").unwrap().to_owned()
}

/// The message of decoding `text`.
fn decode_error(text: &[u8]) -> String {
    let lua = vm();
    let decode: mlua::Function = lua.globals().get("decode").unwrap();
    let (value, error): (mlua::Value, String) =
        decode.call(lua.create_string(text).unwrap()).unwrap();
    assert!(value.is_nil());
    error
}

#[test]
fn scalars() {
    assert_eq!(encoded("nil"), "null");
    assert_eq!(encoded("null"), "null");
    assert_eq!(encoded("true"), "true");
    assert_eq!(encoded("false"), "false");
    assert_eq!(encoded("'a/b\"'"), r#""a/b\"""#);
    assert_eq!(encoded("body('text\\n')"), r#""text\n""#);
    assert_eq!(encoded("{ b = body('t'), n = null }").len(), 18);
}

#[test]
fn numbers_are_as_short_as_they_can_be() {
    for (number, text) in [
        ("0", "0"),
        ("7", "7"),
        ("10", "10"),
        ("-1", "-1"),
        ("1e3", "1000"),
        ("2^53", "9007199254740992"),
        ("-2^53", "-9007199254740992"),
        ("0.1", "0.1"),
        ("-1.5", "-1.5"),
        ("1/3", "0.3333333333333333"),
        ("5e-324", "5e-324"),
    ] {
        assert_eq!(encoded(number), text);
    }
    for (number, value) in [
        ("2^53 + 2", 9_007_199_254_740_994.0),
        ("2^63", 9_223_372_036_854_775_808.0),
        ("-2^63", -9_223_372_036_854_775_808.0),
        ("1e300", 1e300),
        ("1.7976931348623157e308", f64::MAX),
    ] {
        let read: f64 = serde_json::from_str(&encoded(&format!("0 + ({number})"))).unwrap();
        assert_eq!(read, value, "{number}");
    }
    let lua = vm();
    let encode: mlua::Function = lua.globals().get("encode").unwrap();
    let text: String = encode.call(-0.0).unwrap();
    let read: f64 = serde_json::from_str(&text).unwrap();
    assert!(read == 0.0 && read.is_sign_negative(), "{text}");
}

#[test]
fn keys_from_1_to_n_make_an_array() {
    assert_eq!(encoded("{ 1, 'b', { 3 } }"), r#"[1,"b",[3]]"#);
    // These keys are kept in the hash part, in any order.
    assert_eq!(encoded("{ [3] = 'c', [1] = 'a', [2] = 'b' }"), r#"["a","b","c"]"#);
    assert_eq!(
        encoded("(function() local t = {} for i = 100, 1, -1 do t[i] = i end return t end)()"),
        format!("[{}]", (1..=100).map(|n| n.to_string()).collect::<Vec<_>>().join(","))
    );
    // Deep inside, where tables are looked at before they are written.
    assert_eq!(encoded("{{{{{{ 1, 2 }}}}}}"), "[[[[[[1,2]]]]]]");
    assert_eq!(encoded("{{{{{{ x = 1 }}}}}}"), r#"[[[[[{"x":1}]]]]]"#);
}

#[test]
fn everything_else_is_an_object() {
    assert_eq!(encoded("{}"), "{}");
    assert_eq!(encoded("{ a = {} }"), r#"{"a":{}}"#);
    for (table, expected) in [
        ("{ 1, 2, nil, 4, x = 5 }", r#"{"1":1,"2":2,"4":4,"x":5}"#),
        ("{ 1, nil, 3 }", r#"{"1":1,"3":3}"#),
        ("{ [0] = 0, 1 }", r#"{"0":0,"1":1}"#),
        ("{ [-1] = 0 }", r#"{"-1":0}"#),
        ("{ [1.5] = 'a', [2^40] = 'b' }", r#"{"1.5":"a","1099511627776":"b"}"#),
        ("{ ['1'] = 'a', ['2'] = 'b' }", r#"{"1":"a","2":"b"}"#),
        ("{ 'a', ['2'] = 'b' }", r#"{"1":"a","2":"b"}"#),
        ("array { 1, x = 2 }", r#"{"1":1,"x":2}"#),
        ("array { x = array {} }", r#"{"x":[]}"#),
        ("{{{{{{ 1, x = 2 }}}}}}", r#"[[[[[{"1":1,"x":2}]]]]]"#),
    ] {
        let value: Value = serde_json::from_str(&encoded(table)).unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(expected).unwrap(), "{table}");
    }
}

#[test]
fn tagged_arrays_may_be_empty_and_have_holes() {
    assert_eq!(encoded("array {}"), "[]");
    assert_eq!(encoded("array { 1, nil, 3 }"), "[1,null,3]");
    assert_eq!(encoded("array { [3] = 'c' }"), r#"[null,null,"c"]"#);
    assert_eq!(encoded("array { [1024] = 1 }").matches("null").count(), 1023);
    assert_eq!(
        encode_error("v = { list = array { 'a', [1000000] = 'b' } }"),
        "list is an array with too many holes: 2 items up to index 1000000"
    );
}

#[test]
fn metatables_of_others_are_ignored() {
    assert_eq!(
        encoded(
            "setmetatable({ a = 1 }, { __index = error, __pairs = error, __len = error, \
             __tostring = error, __metatable = false })"
        ),
        r#"{"a":1}"#
    );
    assert_eq!(encoded("setmetatable({}, {})"), "{}");
}

#[test]
fn long_arrays_are_whole() {
    let chunk = "local t = {} for i = 1, 100000 do t[i] = i end
        local text = encode(t)
        local back = decode(text)
        assert(#back == 100000 and back[1] == 1 and back[100000] == 100000)
        return text";
    let list: Vec<u32> = serde_json::from_slice(&run(chunk)).unwrap();
    assert!(list.into_iter().eq(1..=100_000));
    run("for n = 1, 70 do
           local a, o = {}, {}
           for i = 1, n do a[i] = i; o['k' .. i] = i end
           local a2, o2 = decode(encode(a)), decode(encode(o))
           assert(#a2 == n)
           for i = 1, n do assert(a2[i] == i and o2['k' .. i] == i) end
           for k in pairs(o2) do assert(o[k]) end
         end
         return ''");
}

#[test]
fn what_json_cannot_hold_raises_and_names_the_path() {
    for (setup, message) in [
        (
            "v = { data = { items = { 1, 2, { fn = print } } } }",
            "data.items[3].fn is a function, which JSON cannot hold",
        ),
        ("v = print", "the value is a function, which JSON cannot hold"),
        ("v = { 1, 0/0 }", "[2] is nan, which JSON cannot hold"),
        ("v = { a = 1/0 }", "a is inf, which JSON cannot hold"),
        ("v = { a = -1/0 }", "a is -inf, which JSON cannot hold"),
        (
            "v = { a = { coroutine.create(print) } }",
            "a[1] is a thread, which JSON cannot hold",
        ),
        (
            "v = { ['a b'] = { [''] = io.stdout } }",
            "[\"a b\"][\"\"] is a userdata, which JSON cannot hold",
        ),
        (
            "v = { a = { [true] = 1 } }",
            "a has a boolean as a key, which JSON cannot hold",
        ),
        ("v = { [{}] = 1 }", "the value has a table as a key, which JSON cannot hold"),
        (
            "v = { a = { [1/0] = 1 } }",
            "a has inf as a key, which JSON cannot hold",
        ),
        (
            "v = { [2] = print, [1] = 1 }",
            "[2] is a function, which JSON cannot hold",
        ),
        (
            "v = { [1.5] = print }",
            "[1.5] is a function, which JSON cannot hold",
        ),
    ] {
        assert_eq!(encode_error(setup), message);
    }
}

#[test]
fn a_cycle_is_called_one() {
    assert_eq!(
        encode_error("v = {}; v.self = v"),
        "self is a cycle: the same table as the value itself"
    );
    assert_eq!(
        encode_error("local a, b = {}, {}; a.list = { 1, b }; b.up = a; v = { a = a }"),
        "a.list[2].up is a cycle: the same table as a"
    );
    // The same table twice is none.
    assert_eq!(encoded("(function() local t = { 1 } return { t, t } end)()"), "[[1],[1]]");
}

#[test]
fn levels_are_limited_both_ways() {
    let nest = |levels: i32| format!("v = 1; for _ = 1, {levels} do v = {{ v }} end");
    let deepest = "[".repeat(128) + "1" + &"]".repeat(128);
    assert_eq!(MOST_LEVELS, 128);
    assert_eq!(run(&format!("{}; return encode(v)", nest(128))), deepest.as_bytes());
    let error = encode_error(&nest(129));
    assert_eq!(error, format!("{} is nested more than 128 levels", "[1]".repeat(128)));
    assert_eq!(
        run(&format!("return encode(decode('{deepest}'))")),
        deepest.as_bytes()
    );
    assert_eq!(
        decode_error(format!("[{deepest}]").as_bytes()),
        "nested more than 128 levels at line 1 column 129"
    );
    // Siblings do not add up.
    let wide = format!("[{}]", vec![&deepest[1..deepest.len() - 1]; 20].join(","));
    assert_eq!(run(&format!("return encode(decode('{wide}'))")), wide.as_bytes());
}

#[test]
fn a_nest_of_mistaken_arrays_takes_no_exponential_time() {
    run("local v = 1 for _ = 1, 127 do v = { v, x = 1 } end return encode(v)");
}

#[test]
fn wide_and_deep_documents_find_room_on_the_stack() {
    let mut document = "1".to_owned();
    for _ in 0..127 {
        document = format!("[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,{document}]");
    }
    assert_eq!(run(&format!("return encode(decode('{document}'))")), document.as_bytes());
}

#[test]
fn pretty_is_indented_by_two_spaces() {
    let chunk = "return encode({ { a = { 1, true } }, {}, array {}, { [2] = 'x', [1] = 'y' } }, \
                 { pretty = true })";
    let expected = r#"[
  {
    "a": [
      1,
      true
    ]
  },
  {},
  [],
  [
    "y",
    "x"
  ]
]"#;
    assert_eq!(String::from_utf8(run(chunk)).unwrap(), expected);
    assert_eq!(run("return encode({ 1 }, { pretty = false })"), b"[1]");
}

#[test]
fn decoded_values_are_what_lua_expects() {
    run(r#"
        assert(decode('null') == null and decode(' true ') == true and decode('1.5e3') == 1500)
        assert(decode('9007199254740993') == 2^53 and decode('18446744073709551616') == 2^64)
        assert(1 / decode('-0') == -1/0)
        local t = decode('{ "a": [1, "x\\u00e9\\n", null, false], "b": {}, "": 1 }')
        assert(t.a[1] == 1 and t.a[2] == 'x\195\169\n' and t.a[3] == null and t.a[4] == false and #t.a == 4)
        assert(next(t.b) == nil and getmetatable(t.b) == nil and t[''] == 1)
        assert(decode('{"a":1,"b":0,"a":2}').a == 2 and decode('{"a":1,"a":2}').a == 2)
        assert(decode('"\\ud83d\\ude00"') == '\240\159\152\128')
        assert(decode('"a\\u0000b"') == 'a\0b')
        return ''
    "#);
}

#[test]
fn arrays_and_objects_stay_apart() {
    for text in ["[]", "{}", "[[],{}]", r#"{"a":[]}"#] {
        assert_eq!(run(&format!("return encode(decode('{text}'))")), text.as_bytes());
    }
    assert_eq!(run("local t = decode('[1]'); t[1] = nil; return encode(t)"), b"[]");
}

#[test]
fn broken_texts_are_explained() {
    for (text, message) in [
        (&b""[..], "the text is empty"),
        (b" \n", "the text is empty"),
        (b"[1,", "unexpected end at line 1 column 3"),
        (b"[1\n,x]", "expected value at line 2 column 2"),
        (b"[1] 2", "trailing characters at line 1 column 5"),
        (b"{1:2}", "key must be a string at line 1 column 2"),
        (b"1e400", "number out of range at line 1 column 5"),
        (b"[\"a\xff\"]", "invalid UTF-8 at byte 4"),
        (b"\xef\xbb\xbf[]", "a byte order mark, which JSON does not allow, at line 1 column 1"),
        (b"nan", "expected ident at line 1 column 2"),
    ] {
        assert_eq!(decode_error(text), message);
    }
    assert!(decode_error(br#""\ud800""#).contains("line 1"));
    assert!(decode_error(b"\"a\nb\"").contains("control character"));
}

#[test]
fn wrong_arguments_raise_at_the_caller() {
    for (call, message) in [
        ("encode()", "rover.json.encode needs a value"),
        (
            "encode({}, true)",
            "the options of rover.json.encode must be a table, not a boolean",
        ),
        ("decode({})", "rover.json.decode needs a string, not a table"),
        ("decode(12)", "rover.json.decode needs a string, not a number"),
        ("decode()", "rover.json.decode needs a string, not a nil"),
    ] {
        let chunk = format!("local _, e = pcall(function()\n local x = {call}\nend) return e");
        assert_eq!(
            String::from_utf8(run(&chunk)).unwrap(),
            format!("app.lua:2: {message}")
        );
    }
}

/// Integers become doubles on the way through Lua.
fn as_doubles(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::from(number.as_f64().unwrap() + 0.0),
        Value::Array(items) => items.into_iter().map(as_doubles).collect(),
        Value::Object(pairs) => Value::Object(
            pairs
                .into_iter()
                .map(|(key, value)| (key, as_doubles(value)))
                .collect(),
        ),
        other => other,
    }
}

fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-(1i64 << 53)..=1 << 53).prop_map(Value::from),
        any::<f64>().prop_filter_map("finite", |n| n.is_finite().then(|| Value::from(n))),
        prop::collection::vec(any::<char>(), 0..24)
            .prop_map(|chars| Value::from(String::from_iter(chars))),
    ];
    leaf.prop_recursive(6, 256, 24, |inner| {
        let key = prop::collection::vec(any::<char>(), 0..10).prop_map(String::from_iter);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..40).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..24)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn documents_survive_the_way_through_lua(document in documents()) {
        let lua = vm();
        let chunk = "local v = decode(...) return encode(v), encode(v, { pretty = true })";
        let (text, pretty): (mlua::LuaString, mlua::LuaString) =
            lua.load(chunk).call(document.to_string()).unwrap();
        let document = as_doubles(document);
        prop_assert_eq!(&as_doubles(serde_json::from_slice(&text.as_bytes()).unwrap()), &document);
        prop_assert_eq!(&as_doubles(serde_json::from_slice(&pretty.as_bytes()).unwrap()), &document);
    }

    #[test]
    fn no_bytes_upset_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let lua = vm();
        let (value, error): (mlua::Value, mlua::Value) = lua
            .load("return decode(...)")
            .call(lua.create_string(&bytes).unwrap())
            .unwrap();
        let accepted = serde_json::from_slice::<Value>(&bytes).is_ok();
        prop_assert_eq!(accepted, error.is_nil());
        prop_assert!(accepted || value.is_nil());
    }
}
