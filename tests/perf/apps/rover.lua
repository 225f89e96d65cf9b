-- The workloads of tests/perf as a Rover app. nginx.lua, bun.js and node.js answer with the same bytes.
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

local names = {}
for i = 1, 100 do names[i] = ("Item %d <fresh> & \"ripe\", it's"):format(i) end

local entities = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#x27;" }

function api.html.get()
  local page = {
    "<!DOCTYPE html><html><head><title>Items</title></head><body><table>",
    "<tr><th>id</th><th>name</th><th>price</th></tr>",
  }
  for id, name in ipairs(names) do
    local escaped = name:gsub("[&<>\"']", entities)
    page[#page + 1] = ("<tr><td>%d</td><td>%s</td><td>%.2f</td></tr>"):format(id, escaped, id * 1.5)
  end
  page[#page + 1] = "</table></body></html>"
  return api.html(table.concat(page))
end

local hundred_kilobytes = ("0123456789abcdef"):rep(6400)

function api.body100k.get() return hundred_kilobytes end

local function element(i, j) return 1 / ((i + j) * (i + j + 1) / 2 + i + 1) end

local function times(x, y, n)
  for i = 0, n - 1 do
    local sum = 0
    for j = 0, n - 1 do sum = sum + element(i, j) * x[j] end
    y[i] = sum
  end
end

local function times_transposed(x, y, n)
  for i = 0, n - 1 do
    local sum = 0
    for j = 0, n - 1 do sum = sum + element(j, i) * x[j] end
    y[i] = sum
  end
end

local function spectral_norm(n)
  local u, v, t = {}, {}, {}
  for i = 0, n - 1 do u[i] = 1 end
  for _ = 1, 10 do
    times(u, t, n)
    times_transposed(t, v, n)
    times(v, t, n)
    times_transposed(t, u, n)
  end
  local uv, vv = 0, 0
  for i = 0, n - 1 do
    uv = uv + u[i] * v[i]
    vv = vv + v[i] * v[i]
  end
  return math.sqrt(uv / vv)
end

function api.cpu.get() return ("%.9f"):format(spectral_norm(100)) end

return api
