//! A Rust program whose HTTP API is written in Lua: `cargo run -p rover-server --example embed`.
//!
//! The program owns the data and what may wait; the script decides what is served where. Ctrl-C ends it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rover_server::{Error, Server, mlua};

const SCRIPT: &str = r#"
local units = require "units"
local api = rover.server {}

function api.stock.p_item.get(ctx)
  local item = ctx:params().item
  local grams = stock(item)
  if not grams then return api:error(404, "no " .. item) end
  return { item = item, pounds = units.pounds(grams) }
end

function api.stock.p_item.post(ctx)
  local grams = ctx:json().grams
  if type(grams) ~= "number" or grams <= 0 then return api:error(422, "order some grams") end
  return { grams = order(ctx:params().item, grams) }
end

return api
"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    // All workers share what the closures own, so it is Send and Sync.
    let shelves = Arc::new(Mutex::new(HashMap::from([("flour".to_owned(), 25_000), ("sugar".to_owned(), 4_000)])));
    let read = shelves.clone();

    let server = Server::from_source("shop.lua", SCRIPT)
        .port(0)
        .workers(2)
        // A function of the program, called like any Lua function.
        .function("stock", move |_, item: String| {
            let shelves = read.lock().map_err(|_| mlua::Error::runtime("the shelves are in disorder"))?;
            Ok(shelves.get(&item).copied())
        })
        // One that waits: the handler is suspended, and its worker serves others meanwhile.
        .async_function("order", move |_, (item, grams): (String, i64)| {
            let shelves = shelves.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let mut shelves = shelves.lock().map_err(|_| mlua::Error::runtime("the shelves are in disorder"))?;
                let amount = shelves.entry(item).or_insert(0);
                *amount += grams;
                Ok(*amount)
            }
        })
        // A module for `require`.
        .module("units", |lua| {
            let units = lua.create_table()?;
            units.set("pounds", lua.create_function(|_, grams: f64| Ok(grams / 453.592_37))?)?;
            Ok(units)
        });

    let listening = server.bind()?;
    let address = &listening.addresses()[0];
    println!("Try   curl {address}/stock/flour");
    println!("      curl {address}/stock/salt -H Content-Type:application/json -d '{{\"grams\": 500}}'");
    listening
        .run_until(async {
            let _ = tokio::signal::ctrl_c().await;
        })
        .await
}
