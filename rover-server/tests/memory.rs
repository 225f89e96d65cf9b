//! What a VM takes, it gives back. In a process of its own, because resident memory is the whole process's.
#![allow(clippy::unwrap_used, reason = "a test's failure is its report")]

use rover_server::{LocalApp, Server};

const APP: &str = "
local api = rover.server {}
local hold
function api.fill.get() hold = {} for i = 1, 1000000 do hold[i] = { i } end end
function api.drop.get() hold = nil collectgarbage() collectgarbage() end
function api.post(ctx) if #ctx:body() ~= 1000000 then error('not all of it') end end
return api";

/// Resident memory in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn load() -> LocalApp {
    Server::from_source("app.lua", APP).load().unwrap()
}

fn get(app: &LocalApp, target: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let response = runtime.block_on(app.request(http::Request::get(target).body("").unwrap()));
    assert_eq!(response.status(), 204, "{target}");
}

#[test]
fn bursts_and_closed_vms_are_given_back() {
    let app = load();
    get(&app, "/fill");
    let full = resident();
    get(&app, "/drop");
    assert!(resident() < full - 40_000_000, "{} of {full} bytes are left after a burst", resident());

    // Bodies hang on no userdata until a collection.
    let before = resident();
    for _ in 0..300 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let request = http::Request::post("/").body(vec![b'x'; 1_000_000]).unwrap();
        assert_eq!(runtime.block_on(app.request(request)).status(), 204);
    }
    assert!(resident() < before + 20_000_000, "{before} bytes grew to {} over 300 bodies", resident());

    drop(app);
    drop(load());
    let before = resident();
    for _ in 0..200 {
        drop(load());
    }
    assert!(resident() < before + 8_000_000, "{before} bytes grew to {} over 200 VMs", resident());
}
