-- /books/{id}/reviews and /books/{id}/reviews/{n}; the hooks of /books and /books/{id} have run before.
local validate = require "validate"

return function(api)
  function api.books.p_id.reviews.get(ctx)
    local reviews = ctx:get("book").reviews
    local stars = 0
    for _, review in ipairs(reviews) do stars = stars + review.stars end
    return { average = #reviews > 0 and stars / #reviews or rover.null, reviews = reviews }
  end

  function api.books.p_id.reviews.post(ctx)
    local review = validate.fields("review", ctx:json())
    local book = ctx:get("book")
    review.by = ctx:get("user")
    table.insert(book.reviews, review)
    return api.json:status(201, review):header("Location", ("/books/%d/reviews/%d"):format(book.id, #book.reviews))
  end

  function api.books.p_id.reviews.p_n.get(ctx)
    local n = ctx:params().n
    return ctx:get("book").reviews[tonumber(n, 10)] or api:error(404, { error = "no review " .. n })
  end
end
