//! Pieces of Lua code that run in one server, where starting one for each would take most of a test's time.

use rover_server::Server;

use super::App;

/// What the app runs: the piece of code in a request's body, which begins in line 4 of `app.lua`, as it would between the
/// lines of a handler.
const APP: &str = r#"
local api = rover.server {}
function api.post(ctx)
  local code, problem = load("local api, J, ctx = ...\n\n\n" .. ctx:body():text(), "=app.lua")
  return assert(code, problem)(api, rover.json, ctx)
end
return api
"#;

/// A server for pieces of code that leave nothing behind.
pub struct Snippets(App);

impl Snippets {
    pub fn start(workers: usize) -> Snippets {
        Snippets(App::start_server(Server::from_source("snippets.lua", APP).workers(workers)))
    }

    /// What a handler of this code answers. It knows `api`, `ctx`, and `rover.json` as `J`.
    pub fn run(&self, code: &str) -> String {
        let head = format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", code.len());
        self.0.send(head + code).text().to_owned()
    }
}
