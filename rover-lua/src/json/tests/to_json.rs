//! From Lua to JSON.

use serde_json::Value;

use super::{run, vm};
use crate::json::MOST_LEVELS;

/// The JSON of a Lua expression.
fn encoded(expression: &str) -> String {
    String::from_utf8(run(&format!("return encode({expression})"))).unwrap()
}

/// The message that encoding raises after `setup` for the value `v`.
fn encode_error(setup: &str) -> String {
    let chunk = format!("{setup}\nlocal ok, e = pcall(function() local s = encode(v) end)\nassert(not ok)\nreturn e");
    let message = String::from_utf8(run(&chunk)).unwrap();
    // The position is that of the call, on the line below the set-up.
    message.strip_prefix("app.lua:2: ").unwrap().to_owned()
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
        ("v = { a = { coroutine.create(print) } }", "a[1] is a thread, which JSON cannot hold"),
        ("v = { ['a b'] = { [''] = io.stdout } }", "[\"a b\"][\"\"] is a userdata, which JSON cannot hold"),
        ("v = { a = { [true] = 1 } }", "a has a boolean as a key, which JSON cannot hold"),
        ("v = { [{}] = 1 }", "the value has a table as a key, which JSON cannot hold"),
        ("v = { a = { [1/0] = 1 } }", "a has inf as a key, which JSON cannot hold"),
        ("v = { [2] = print, [1] = 1 }", "[2] is a function, which JSON cannot hold"),
        ("v = { [1.5] = print }", "[1.5] is a function, which JSON cannot hold"),
    ] {
        assert_eq!(encode_error(setup), message);
    }
}

#[test]
fn a_cycle_is_called_one() {
    assert_eq!(encode_error("v = {}; v.self = v"), "self is a cycle: the same table as the value itself");
    assert_eq!(
        encode_error("local a, b = {}, {}; a.list = { 1, b }; b.up = a; v = { a = a }"),
        "a.list[2].up is a cycle: the same table as a"
    );
    // The same table twice is none.
    assert_eq!(encoded("(function() local t = { 1 } return { t, t } end)()"), "[[1],[1]]");
}

#[test]
fn a_nest_of_mistaken_arrays_takes_no_exponential_time() {
    run("local v = 1 for _ = 1, 127 do v = { v, x = 1 } end return encode(v)");
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
fn levels_are_limited() {
    let nest = |levels: i32| format!("v = 1; for _ = 1, {levels} do v = {{ v }} end");
    let deepest = "[".repeat(128) + "1" + &"]".repeat(128);
    assert_eq!(MOST_LEVELS, 128);
    assert_eq!(run(&format!("{}; return encode(v)", nest(128))), deepest.as_bytes());
    let error = encode_error(&nest(129));
    assert_eq!(error, format!("{} is nested more than 128 levels", "[1]".repeat(128)));
}

/// A value of many tables with the result of `expression` among them, as its JSON and that of its parts.
fn encoded_among_others(expression: &str) -> (Value, Value) {
    let chunk = format!(
        "local part = {expression}
         local whole = {{ {{ 1 }}, {{ 2, {{}} }}, array {{}}, {{ a = {{ b = 'c' }} }}, part = {{ part }} }}
         local list = {{ {{ 1 }}, {{ 2, {{}} }}, array {{}}, {{ a = {{ b = 'c' }} }}, {{ part }} }}
         return encode(whole) .. '\\n' .. encode(list) .. '\\n' .. encode {{ part }}"
    );
    let text = String::from_utf8(run(&chunk)).unwrap();
    let parts: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for key in ["1", "2", "3", "4"] {
        let place = key.parse::<usize>().unwrap() - 1;
        assert_eq!(parts[0][key], parts[1][place]);
    }
    assert_eq!(parts[1][0], serde_json::json!([1]));
    assert_eq!(parts[1][1], serde_json::json!([2, {}]));
    assert_eq!(parts[1][2], serde_json::json!([]));
    assert_eq!(parts[1][3], serde_json::json!({ "a": { "b": "c" } }));
    assert_eq!(parts[0]["part"], parts[1][4]);
    (parts[1][4].clone(), parts[2].clone())
}

#[test]
fn values_of_many_tables_are_encoded_as_their_parts_are() {
    for expression in [
        "'text'",
        "('long '):rep(100)",
        "('long '):rep(2000)",
        "'sixteen bytes ok'",
        "'quote \" in it'",
        "'a new\\nline, late in the text'",
        "'gr\\195\\188n \\255'",
        "''",
        "-0.5",
        "1e300",
        "2^53",
        "null",
        "true",
        "false",
        "body('text\\n')",
        "{ [1] = 1, [3] = 3 }",
        "{ [2] = 2, [1] = 1 }",
        "{ [0] = 0, 1, 2 }",
        "{ 1, 2, x = 3 }",
        "{ [2.5] = 1, [-1] = 2 }",
        "array { [3] = 3 }",
        "array { x = 1 }",
        "setmetatable({}, {})",
        "setmetatable({ 1 }, { __index = { 2 } })",
        "(function() local t = { 1, 2, 3 } t[3] = nil return t end)()",
        "(function() local t = { a = 1, b = 2 } t.a = nil return t end)()",
        "(function() local t = {} for n = 1, 300 do t[n] = n t['k' .. n] = nil end return t end)()",
        "(function() local t = {} for n = 1, 9000 do t[n] = 'item' end return t end)()",
        "(function() local t = {} for _ = 1, 110 do t = { t } end return t end)()",
    ] {
        let (among, alone) = encoded_among_others(expression);
        assert_eq!(among, alone, "{expression}");
    }
}

#[test]
fn what_is_wrong_in_a_value_of_many_tables_is_named_too() {
    let message = |part: &str| encode_error(&format!("v = {{ rows = {{ {{ 1 }}, {{ 2 }}, {{ 3 }}, {{ {part} }} }} }}"));
    assert_eq!(message("x = print"), "rows[4].x is a function, which JSON cannot hold");
    assert_eq!(message("x = 0/0"), "rows[4].x is nan, which JSON cannot hold");
    assert_eq!(message("[true] = 1"), "rows[4] has a boolean as a key, which JSON cannot hold");
    let cycle = "local t = { { {} }, { {} } } t[3] = { t } v = { {}, {}, {}, { { t = t } } }";
    assert_eq!(encode_error(cycle), "[4][1].t[3][1] is a cycle: the same table as [4][1].t");
}

#[test]
fn an_encoding_inside_an_encoding_disturbs_neither() {
    run("local value = { { { 1 } }, { { 2 } }, { { 3 } } }
         local expected, during = encode(value), 0
         for _ = 1, 3000 do
           local proxy = newproxy(true)
           getmetatable(proxy).__gc = function()
             during = during + 1
             assert(encode { { { 'other' } }, { {} }, { {} } } == '[[[\"other\"]],[{}],[{}]]')
             assert(decode('{\"a\":1,\"b\":[2]}').b[1] == 2)
           end
           proxy = nil
           assert(encode(value) == expected)
           local back = decode('[{\"a\":1,\"b\":{}},{\"a\":1,\"b\":{}}]')
           assert(back[2].a == 1 and next(back[1].b) == nil)
         end
         collectgarbage() collectgarbage()
         assert(during > 0)
         return ''");
}
