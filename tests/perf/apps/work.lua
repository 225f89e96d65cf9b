-- The work that the Lua apps do, the same for Rover and nginx; work.mjs is its twin for Bun and Node.
local M = {}

local names = {}
for i = 1, 100 do names[i] = ("Item %d <fresh> & \"ripe\", it's"):format(i) end

local entities = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#x27;" }

--- A page of a hundred rows, escaped.
function M.page()
  local page = {
    "<!DOCTYPE html><html><head><title>Items</title></head><body><table>",
    "<tr><th>id</th><th>name</th><th>price</th></tr>",
  }
  for id, name in ipairs(names) do
    local escaped = name:gsub("[&<>\"']", entities)
    page[#page + 1] = ("<tr><td>%d</td><td>%s</td><td>%.2f</td></tr>"):format(id, escaped, id * 1.5)
  end
  page[#page + 1] = "</table></body></html>"
  return table.concat(page)
end

M.hundred_kilobytes = ("0123456789abcdef"):rep(6400)

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

--- The spectral norm of a matrix of 100, as text.
function M.cpu() return ("%.9f"):format(spectral_norm(100)) end

return M
