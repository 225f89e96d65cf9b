-- A gateway in front of two services: `rover examples/gateway.lua`. USERS and ORDERS are their URLs, a comma between several.
local api = rover.server {}

local function upstreams(name, default)
  local urls = {}
  for url in (rover.env[name] or default):gmatch("[^,%s]+") do urls[#urls + 1] = url end
  return urls
end

local users = upstreams("USERS", "http://127.0.0.1:9001")
local orders = upstreams("ORDERS", "http://127.0.0.1:9002")

-- Everything below /users and /orders goes on, with its body however large, over WebSockets too.
api.users["{*path}"].any = api.proxy(users, { timeout = 5 })
api.orders["{*path}"].any = api.proxy(orders, { balance = "least_connections" })

-- Only those who show a key may order.
local key = rover.env.GATEWAY_KEY or "secret"

function api.orders.before.key(ctx)
  if ctx:header("Authorization") ~= "Bearer " .. key then return api:error(401, "a key is needed") end
end

function api.after.powered_by(ctx, res) res:header("X-Gateway", "rover") end

-- What the gateway knows of the services behind it.
function api.health.get() return rover.http.stats().proxy or {} end

return api
