//! From JSON to Lua.

use super::{run, vm};

/// The message of decoding `text`.
fn decode_error(text: &[u8]) -> String {
    let lua = vm();
    let decode: mlua::Function = lua.globals().get("decode").unwrap();
    let (value, error): (mlua::Value, String) = decode.call(lua.create_string(text).unwrap()).unwrap();
    assert!(value.is_nil());
    error
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
fn levels_are_limited() {
    let deepest = "[".repeat(128) + "1" + &"]".repeat(128);
    assert_eq!(run(&format!("return encode(decode('{deepest}'))")), deepest.as_bytes());
    assert_eq!(decode_error(format!("[{deepest}]").as_bytes()), "nested more than 128 levels at line 1 column 129");
    // Siblings do not add up.
    let wide = format!("[{}]", vec![&deepest[1..deepest.len() - 1]; 20].join(","));
    assert_eq!(run(&format!("return encode(decode('{wide}'))")), wide.as_bytes());
}

#[test]
fn objects_of_one_shape_are_like_any_other() {
    run(r#"local function check(text, expected)
             for _ = 1, 20 do
               local list = decode("[" .. text .. "," .. text .. "]")
               for _, object in ipairs(list) do
                 local keys = 0
                 for key, value in pairs(object) do
                   assert(expected[key] == value, key)
                   keys = keys + 1
                 end
                 for _ in pairs(expected) do keys = keys - 1 end
                 assert(keys == 0, text)
                 object.new, object.another = 1, 2
                 assert(object.new == 1 and object.another == 2)
               end
             end
           end
           check('{"a":1,"b":2}', { a = 1, b = 2 })
           check('{"b":2,"a":1}', { a = 1, b = 2 })
           check('{"a":null,"b":null}', { a = null, b = null })
           check('{"a":1,"a":2,"b":3,"a":4}', { a = 4, b = 3 })
           check('{"end":1,"function":2,"nil":3}', { ["end"] = 1, ["function"] = 2, ["nil"] = 3 })
           check('{"":1," ":2,"1":3}', { [""] = 1, [" "] = 2, ["1"] = 3 })
           local odd = { ['"'] = 1, ["\\"] = 2, ["\n"] = 3, ["\0"] = 4, ["]==]"] = 5, ["\r\n"] = 6, ["%q%s\26"] = 7 }
           check(encode(odd), odd)
           check([[{"gr\u00fcn":1,"ü":2}]], { ["grün"] = 1, ["ü"] = 2 })
           local long = ("k"):rep(1000)
           check('{"' .. long .. '":1,"a":2}', { [long] = 1, a = 2 })
           return ''"#);
}

#[test]
fn more_shapes_than_are_kept_take_turns() {
    run(r#"for round = 1, 30 do
             for shape = 1, 200 do
               local object = decode(('{"a%d":1,"b%d":[2],"c":{"d%d":3,"e":%d}}'):format(shape, shape, shape, round))
               assert(object["a" .. shape] == 1 and object["b" .. shape][1] == 2)
               assert(object.c["d" .. shape] == 3 and object.c.e == round)
             end
             collectgarbage()
           end
           return ''"#);
}
