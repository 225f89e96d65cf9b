//! The rules of JSON in Rover, seen from Lua.
#![allow(clippy::unwrap_used)]

mod both_ways;
mod from_json;
mod to_json;

use std::rc::Rc;

use bytes::Bytes;

use super::{Vocabulary, decode, encode, encode_pretty};
use crate::{Kind, OwnedMeta, Raise, Shared};

/// A VM with `encode`, `decode`, `array`, `null` and `body(s)`.
fn vm() -> mlua::Lua {
    let lua = mlua::Lua::new();
    let build = || -> mlua::Result<()> {
        let texts = Rc::new(OwnedMeta::<Bytes>::new(&lua, &lua.create_table()?)?);
        let metatable = lua.create_table()?;
        let vocabulary = Rc::new(Vocabulary::new(&lua, &metatable, texts.clone())?);
        let shared = Shared::new(&lua, texts)?;
        let body = shared.function(&lua, |stack, texts| {
            let bytes = Bytes::copy_from_slice(stack.bytes(1).unwrap_or_default());
            texts.push(stack, bytes);
            Ok(1)
        })?;
        let json = Shared::new(&lua, vocabulary)?;
        let globals = lua.globals();
        let to_json = json.function(&lua, |stack, vocabulary| {
            let mut is_pretty = false;
            if stack.kind(2) == Kind::Table {
                stack.push_bytes(b"pretty");
                stack.get_field(2);
                is_pretty = stack.boolean(stack.top());
            }
            let write = if is_pretty { encode_pretty } else { encode };
            let mut out = Vec::new();
            write(stack, 1, vocabulary, &mut out).map_err(|error| Raise::mistake(error.to_string()))?;
            stack.push_bytes(&out);
            Ok(1)
        })?;
        let from_json = json.function(&lua, |stack, vocabulary| {
            let text = stack.bytes(1).unwrap_or_default().to_vec();
            match decode(stack, &text, vocabulary) {
                Ok(()) => Ok(1),
                Err(error) => {
                    stack.push_nil();
                    stack.push_bytes(error.to_string().as_bytes());
                    Ok(2)
                }
            }
        })?;
        globals.set("encode", to_json)?;
        globals.set("decode", from_json)?;
        globals.set("array_metatable", metatable)?;
        globals.set("null", mlua::Value::NULL)?;
        globals.set("body", body)?;
        lua.load("function array(t) return setmetatable(t, array_metatable) end").exec()
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

#[test]
fn failures_leave_stack_and_output_as_they_were() {
    let lua = mlua::Lua::new();
    let texts = Rc::new(OwnedMeta::<Bytes>::new(&lua, &lua.create_table().unwrap()).unwrap());
    let vocabulary = Vocabulary::new(&lua, &lua.create_table().unwrap(), texts).unwrap();
    let shared = Shared::new(&lua, Rc::new(vocabulary)).unwrap();
    let check = shared
        .function(&lua, |stack, vocabulary| {
            let top = stack.top();
            let mut out = b"before".to_vec();
            for index in 1..=top {
                encode(stack, index, vocabulary, &mut out).unwrap_err();
                assert_eq!((out.as_slice(), stack.top()), (&b"before"[..], top));
            }
            for text in ["[1,{\"a\":[2,", "[[[]],x]", "{\"a\":1}}", "[] []", "1 1", "nul"] {
                decode(stack, text.as_bytes(), vocabulary).unwrap_err();
                assert_eq!(stack.top(), top, "{text}");
            }
            decode(stack, b"[{}]", vocabulary).unwrap();
            assert_eq!(stack.top(), top + 1);
            encode(stack, top + 1, vocabulary, &mut out).unwrap();
            assert_eq!((out.as_slice(), stack.top()), (&b"before[{}]"[..], top + 1));
            Ok(0)
        })
        .unwrap();
    lua.globals().set("check", check).unwrap();
    lua.load("check(print, { 1, { a = print } }, { x = { [true] = 1 } }, { [2] = 1, [1] = print }, 0/0)")
        .exec()
        .unwrap();
}
