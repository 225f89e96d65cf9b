//! Doors for the `benches` crate into what the library keeps to itself. Not part of the public API.

use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::json::{self, Vocabulary};
use crate::lua::{OwnedMeta, Raise, Shared};

/// A VM that encodes and decodes as the server does, many times for one call from Rust.
#[derive(Debug)]
pub struct Json {
    encode: mlua::Function,
    decode: mlua::Function,
}

impl Json {
    /// Adds what JSON needs to `lua`.
    ///
    /// # Errors
    /// When Lua is out of memory.
    pub fn new(lua: &mlua::Lua) -> mlua::Result<Json> {
        let texts = OwnedMeta::new(lua, &lua.create_table()?)?;
        let array = lua.create_table()?;
        let vocabulary = Vocabulary::new(lua, &array, Rc::<OwnedMeta<Bytes>>::new(texts))?;
        let shared = Shared::new(lua, Rc::new(vocabulary))?;
        let encode = shared.function(lua, |stack, vocabulary| {
            let times = stack.number(2) as u64;
            let mut out = Vec::new();
            let start = Instant::now();
            for _ in 0..times {
                out.clear();
                json::encode(stack, 1, vocabulary, &mut out).map_err(|error| Raise::mistake(error.to_string()))?;
                black_box(out.as_slice());
            }
            stack.push_number(start.elapsed().as_secs_f64());
            Ok(1)
        })?;
        let decode = shared.function(lua, |stack, vocabulary| {
            let text = stack.bytes(1).unwrap_or_default().to_vec();
            let times = stack.number(2) as u64;
            let start = Instant::now();
            for _ in 0..times {
                json::decode(stack, black_box(&text), vocabulary).map_err(|error| Raise::mistake(error.to_string()))?;
                stack.pop(1);
            }
            stack.push_number(start.elapsed().as_secs_f64());
            Ok(1)
        })?;
        Ok(Json { encode, decode })
    }

    /// How long it takes to encode `value` so many `times`.
    ///
    /// # Errors
    /// When the value cannot be JSON.
    pub fn encode(&self, value: &mlua::Value, times: u64) -> mlua::Result<Duration> {
        self.encode.call((value, times as f64)).map(Duration::from_secs_f64)
    }

    /// How long it takes to decode `text` so many `times`.
    ///
    /// # Errors
    /// When the text is not JSON.
    pub fn decode(&self, text: &str, times: u64) -> mlua::Result<Duration> {
        self.decode.call((text, times as f64)).map(Duration::from_secs_f64)
    }
}
