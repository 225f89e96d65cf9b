-- The workloads of tests/perf as a Rover app. nginx.lua, bun.js and node.js answer with the same bytes.
local work = require "work"

local api = rover.server {}

function api.plaintext.get() return "Hello, World!" end

function api.json.get() return { message = "Hello, World!" } end

function api.echo.get(ctx) return { message = ctx:query().message } end

function api.echo.post(ctx) return ctx:json() end

function api.echo.p_name.p_id.get(ctx)
  local params = ctx:params()
  return { name = params.name, id = params.id }
end

function api.update.post(ctx)
  local order = ctx:json()
  order.revision = order.revision + 1
  return order
end

local function item(ctx)
  local params = ctx:params()
  return {
    id = params.id,
    item = params.item,
    q = ctx:query().q,
    lang = ctx:header("Accept-Language"),
    client = ctx:header("X-Client"),
  }
end

for i = 0, 199 do
  api.api.v1["res" .. i].p_id.items.p_item.get = item
end

function api.html.get() return api.html(work.page()) end

function api.body100k.get() return work.hundred_kilobytes end

function api.cpu.get() return work.cpu() end

return api
