-- A bookshop as a JSON API: `cargo run --release -- examples/bookshop/app.lua`, then see README.md beside this file.
local api = rover.server {
  workers = 1, -- the books live in one VM's memory, see store.lua
  body_size_limit = "64KB",
  trailing_slash = "redirect",
}

-- For every route: an id that the client and the log share, and the time that the handler took.
function api.before.trace(ctx)
  ctx:request_id()
  ctx:set("began", rover.now())
end

function api.after.timing(ctx, res)
  local ms = (rover.now() - ctx:get("began")) * 1000
  res:header("Server-Timing", ("app;dur=%.3f"):format(ms))
end

require("routes.session")(api)
require("routes.books")(api)
require("routes.reviews")(api)

-- An error table with a status is an answer that some function asked for: Rover sends it. All else is a fault of ours,
-- which is in the log with its place in the code; the client gets the id to ask about it.
function api.on_error(ctx, err)
  if type(err) == "table" then return end
  return api:error(500, { error = "the shop has a problem, which we know of now", request_id = ctx:request_id() })
end

function api.not_found(ctx)
  return api:error(404, { error = "there is nothing at " .. ctx.path })
end

-- Fails, to show the handler above at work.
function api.crash.get()
  local shelf = nil
  return shelf.books
end

return api
