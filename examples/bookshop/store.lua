-- The books. They are kept in the memory of this worker's VM: another worker would have books of its own, and a restart
-- loses them all. That is enough for an example, and why app.lua asks for one worker; a shop would use a database.
local store = {}

local books, last = {}, 0

function store.add(book)
  last = last + 1
  book.id = last
  book.reviews = rover.array {}
  books[last] = book
  return book
end

function store.find(id) return books[id] end

function store.remove(id) books[id] = nil end

--- The books that `matches` accepts, by id.
function store.select(matches)
  local found = rover.array {}
  for id = 1, last do
    local book = books[id]
    if book and matches(book) then found[#found + 1] = book end
  end
  return found
end

store.add { title = "The Left Hand of Darkness", author = "Ursula K. Le Guin", year = 1969, price = 9.5 }
store.add { title = "Kindred", author = "Octavia E. Butler", year = 1979, price = 11 }
store.add { title = "The Dispossessed", author = "Ursula K. Le Guin", year = 1974, price = 10.25 }

return store
