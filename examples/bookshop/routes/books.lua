-- /books and /books/{id}
local auth = require "auth"
local store = require "store"
local validate = require "validate"

local function summary(book)
  return { id = book.id, title = book.title, author = book.author, year = book.year, price = book.price }
end

return function(api)
  api.books.before.auth = auth.for_changes(api)

  -- GET /books?author=…&sort=year&limit=…
  function api.books.get(ctx)
    local query = ctx:query()
    local limit = validate.whole("limit", query.limit, 20, 1, 100)
    local author = query.author and query.author:lower()
    local found = store.select(function(book) return not author or book.author:lower():find(author, 1, true) end)
    if query.sort == "year" then
      table.sort(found, function(a, b) return a.year < b.year end)
    elseif query.sort then
      return api:error(400, "books can be sorted by year")
    end
    local page = rover.array {}
    for i = 1, math.min(limit, #found) do page[i] = summary(found[i]) end
    return { total = #found, books = page }
  end

  function api.books.post(ctx)
    local book = store.add(validate.fields("book", ctx:json()))
    return api.json:status(201, summary(book)):header("Location", "/books/" .. book.id)
  end

  -- Everything about one book, below this path too, finds it in ctx:get("book").
  function api.books.p_id.before.book(ctx)
    local id = ctx:params().id
    local book = store.find(tonumber(id, 10))
    if not book then return api:error(404, { error = "no book " .. id }) end
    ctx:set("book", book)
  end

  function api.books.p_id.get(ctx) return summary(ctx:get("book")) end

  function api.books.p_id.put(ctx)
    local book = ctx:get("book")
    for name, value in pairs(validate.fields("book", ctx:json())) do book[name] = value end
    return summary(book)
  end

  function api.books.p_id.delete(ctx)
    store.remove(ctx:get("book").id)
    return api.no_content()
  end
end
