-- The smallest useful app: `rover examples/hello.lua`, then `curl localhost:4242/hello/Ada`.
local api = rover.server {}

function api.get(ctx) return "Hello from Rover " .. rover.version end

function api.hello.p_name.get(ctx)
  return { message = "Hello, " .. ctx:params().name .. "!" }
end

return api
