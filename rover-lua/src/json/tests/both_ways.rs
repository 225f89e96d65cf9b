//! From JSON to Lua and back.

use proptest::prelude::*;
use serde_json::Value;

use super::{run, vm};

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
fn wide_and_deep_documents_find_room_on_the_stack() {
    let mut document = "1".to_owned();
    for _ in 0..127 {
        document = format!("[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,{document}]");
    }
    assert_eq!(run(&format!("return encode(decode('{document}'))")), document.as_bytes());
}

/// Integers become doubles on the way through Lua.
fn as_doubles(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::from(number.as_f64().unwrap() + 0.0),
        Value::Array(items) => items.into_iter().map(as_doubles).collect(),
        Value::Object(pairs) => Value::Object(pairs.into_iter().map(|(key, value)| (key, as_doubles(value))).collect()),
        other => other,
    }
}

fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-(1i64 << 53)..=1 << 53).prop_map(Value::from),
        any::<f64>().prop_filter_map("finite", |n| n.is_finite().then(|| Value::from(n))),
        prop::collection::vec(any::<char>(), 0..24).prop_map(|chars| Value::from(String::from_iter(chars))),
    ];
    leaf.prop_recursive(6, 256, 24, |inner| {
        let key = prop::collection::vec(any::<char>(), 0..10).prop_map(String::from_iter);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..40).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..24).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
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
