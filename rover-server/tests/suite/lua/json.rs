//! docs/json.md: the rules of JSON, both ways.

use serde_json::{Value, json};

use crate::support::{Snippets, each_worker_count};

#[test]
fn encode() {
    each_worker_count(|workers| {
        let lua = Snippets::start(workers);
        for (value, text) in [
            ("nil", "null"),
            ("rover.null", "null"),
            ("true", "true"),
            ("'a\"\\\\\\n\\t\\1é/'", "\"a\\\"\\\\\\n\\t\\u0001é/\""),
            ("'\\255\\254x'", "\"\u{fffd}\u{fffd}x\""),
            ("{}", "{}"),
            ("rover.array()", "[]"),
            ("rover.array {}", "[]"),
            ("{ 1, 2, 3 }", "[1,2,3]"),
            ("{ { 1 }, { {} } }", "[[1],[{}]]"),
            ("{ 1, rover.null, 3 }", "[1,null,3]"),
            ("{ [2] = 'b' }", r#"{"2":"b"}"#),
            ("{ [1.5] = 'b' }", r#"{"1.5":"b"}"#),
            ("{ [0] = 'b' }", r#"{"0":"b"}"#),
            ("rover.array { [3] = 'c' }", r#"[null,null,"c"]"#),
            ("0", "0"),
            ("-0", "-0"),
            ("3", "3"),
            ("0.1", "0.1"),
            ("1/3", "0.3333333333333333"),
            ("2^53", "9007199254740992"),
            ("-2^53", "-9007199254740992"),
            ("1e300", "1e300"),
            ("5e-324", "5e-324"),
            ("setmetatable({ a = 1 }, { __index = { b = 2 }, __pairs = error })", r#"{"a":1}"#),
        ] {
            let encoded = lua.run(&format!("return api.text(J.encode({value}))"));
            let same =
                encoded == text || serde_json::from_str::<Value>(&encoded).ok() == serde_json::from_str(text).ok();
            assert!(same, "{value}: {encoded}");
        }
    });
}

#[test]
fn large_numbers_are_written_in_their_shortest_form() {
    each_worker_count(|workers| {
        let lua = Snippets::start(workers);
        let text = lua.run("return { 2^53 + 2, -2^53 - 2, 1e15, 1e16, 1.5e20, 1e300, 1e-7, 2^60 }");
        let expected =
            "[9007199254740994,-9007199254740994,1000000000000000,1e16,1.5e20,1e300,1e-7,1.152921504606847e18]";
        assert_eq!(text, expected);
    });
}

#[test]
fn encode_refuses_what_json_cannot_hold() {
    let lua = Snippets::start(1);
    for (value, message) in [
        ("print", "the value is a function, which JSON cannot hold"),
        ("{ data = { items = { 1, 2, { fn = print } } } }", "data.items[3].fn is a function, which JSON cannot hold"),
        ("{ ['a b'] = { 0/0 } }", "[\"a b\"][1] is nan, which JSON cannot hold"),
        ("{ -1/0 }", "[1] is -inf, which JSON cannot hold"),
        ("{ [{}] = 1 }", "the value has a table as a key, which JSON cannot hold"),
        ("io.stdout", "the value is a userdata, which JSON cannot hold"),
        ("{ loop = cycle }", "loop.self is a cycle: the same table as loop"),
        ("nest", "is nested more than 128 levels"),
    ] {
        let code = format!(
            "local cycle = {{}} cycle.self = cycle local nest = {{}} for i = 1, 128 do nest = {{ nest }} end\nlocal ok, err = pcall(function() local s = J.encode({value}) return s end)\nreturn tostring(ok) .. ' ' .. err"
        );
        let result = lua.run(&code);
        assert!(result.starts_with("false app.lua:5: ") && result.ends_with(message), "{value}: {result}");
    }
    let fits = "local nest = {} for i = 1, 127 do nest = { nest } end return #J.encode(nest)";
    assert_eq!(lua.run(fits), "256");
}

#[test]
fn pretty() {
    let lua = Snippets::start(1);
    let text = lua.run("return J.encode({ { a = { 1, {} } }, rover.array {} }, { pretty = true })");
    assert_eq!(text, "[\n  {\n    \"a\": [\n      1,\n      {}\n    ]\n  },\n  []\n]");
    assert_eq!(lua.run("return J.encode({ 1 }, { pretty = false })"), "[1]");
}

#[test]
fn decode() {
    each_worker_count(|workers| {
        let lua = Snippets::start(workers);
        for text in [
            "{\"a\":[],\"b\":{},\"c\":[[],{}],\"d\":null}",
            "[1,2.5,-300,\"x\\ud83d\\ude00\\n\",true,null]",
            "\"s\"",
            "12",
        ] {
            let again = lua.run(&format!("return api.json(J.decode([==[{text}]==]))"));
            let (again, read): (Value, Value) =
                (serde_json::from_str(&again).expect("JSON"), serde_json::from_str(text).expect("JSON"));
            assert_eq!(again, read, "{text}");
        }
        assert_eq!(lua.run("return J.decode('{\"a\":1,\"a\":2}').a"), "2");
        assert_eq!(lua.run("local v = J.decode('[1]') v[1] = nil return v"), "[]");
        assert_eq!(lua.run("return tostring(J.decode('null') == rover.null)"), "true");
    });
}

#[test]
fn decode_answers_nil_and_what_is_wrong() {
    let lua = Snippets::start(1);
    for (text, message) in [
        ("", "the text is empty"),
        ("[1,", "unexpected end at line 1 column 3"),
        ("[1,]", "trailing comma at line 1 column 4"),
        ("{a:1}", "key must be a string at line 1 column 2"),
        ("1 2", "trailing characters at line 1 column 3"),
        ("NaN", "expected value at line 1 column 1"),
    ] {
        let code = format!("local v, err = J.decode('{text}') return tostring(v) .. ' ' .. err");
        assert_eq!(lua.run(&code), format!("nil {message}"), "{text}");
    }
    assert_eq!(lua.run("local v, err = J.decode('\"\\255\"') return err"), "invalid UTF-8 at byte 2");
    let deep = lua.run("local v, err = J.decode(('['):rep(129) .. (']'):rep(129)) return err");
    assert!(deep.starts_with("nested more than 128 levels"), "{deep}");
    assert_eq!(lua.run("return type(J.decode(('['):rep(128) .. (']'):rep(128)))"), "table");
}

#[test]
fn wrong_arguments_raise_at_the_caller() {
    let lua = Snippets::start(1);
    for (call, message) in [
        ("J.encode()", "rover.json.encode needs a value"),
        ("J.encode(1, 2)", "rover.json.encode expects a table of options, not number"),
        ("J.encode(1, { prety = true })", "rover.json.encode has no option \"prety\": there are pretty"),
        ("J.encode(1, { pretty = 'x' })", "rover.json.encode: pretty must be true or false, not string"),
        ("J.decode()", "rover.json.decode needs a string, not a nil"),
        ("J.decode({})", "rover.json.decode needs a string, not a table"),
        ("rover.array(5)", "rover.array expects a table, not a number"),
    ] {
        let code = format!("local ok, err = pcall(function()\nlocal x = {call}\nreturn x end)\nreturn err");
        assert_eq!(lua.run(&code), format!("app.lua:5: {message}"), "{call}");
        // A tail call leaves no line of its own; the nearest that is left is the one that called.
        let tail = format!("local ok, err = pcall(function() return {call} end)\nreturn err");
        assert_eq!(lua.run(&tail), format!("app.lua:4: {message}"), "{call}");
    }
}

#[test]
fn long_arrays_are_whole() {
    let lua = Snippets::start(1);
    let items: Vec<u32> = (1..=5000).collect();
    let text = lua.run("local t = {} for i = 1, 5000 do t[i] = i end return t");
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), json!(items));
    let backwards = lua.run("local t = {} for i = 5000, 1, -1 do t[i] = i end return t");
    assert_eq!(backwards, text);
}
