-- Three calls side by side, so that the page takes as long as the slowest: `rover examples/fanout.lua`. SHOP is the URL of a
-- service with /product/ID, /stock/ID and /reviews/ID.
local api = rover.server {}

local shop = rover.http.create {
  name = "shop",
  base_url = rover.env.SHOP or "http://127.0.0.1:9001",
  timeout = 2,
  retry = true,
  breaker = true,
  limit = { concurrent = 50, queue = 200 },
}

-- The data of one call; an error where it is needed, nil where the page can do without.
local function fetch(path, needed)
  return function()
    local res, err = shop.get(path)
    if res and res.ok then return res.data end
    if needed then error { status = res and res.status == 404 and 404 or 502, error = err or "no such product" } end
    rover.log.warn("left out", { path = path, error = err or res.status })
  end
end

function api.product.p_id.get(ctx)
  local id = ctx:params().id
  local product, stock, reviews = rover.all {
    fetch("/product/" .. id, true), fetch("/stock/" .. id), fetch("/reviews/" .. id),
  }
  return { product = product, stock = stock or rover.null, reviews = reviews or rover.array {} }
end

return api
