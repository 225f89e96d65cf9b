-- Checks what clients send. All that is wrong is answered at once, with 422 and a message for each field.
local validate = {}

local function is_blank(value) return type(value) ~= "string" or not value:find("%S") end

local function is_whole(value) return type(value) == "number" and value % 1 == 0 end

local rules = {
  book = {
    title = function(value) return is_blank(value) and "must be a text" end,
    author = function(value) return is_blank(value) and "must be a text" end,
    year = function(value) return not (is_whole(value) and value >= 1450 and value <= 2100) and "must be a year" end,
    price = function(value) return not (type(value) == "number" and value >= 0) and "must be a number, 0 or more" end,
  },
  review = {
    stars = function(value) return not (is_whole(value) and value >= 1 and value <= 5) and "must be 1 to 5" end,
    text = function(value) return value ~= nil and is_blank(value) and "must be a text or missing" end,
  },
}

--- A copy of `value` with the fields of a `kind` ("book", "review"); raises the answer where one is wrong or unknown.
function validate.fields(kind, value)
  if type(value) ~= "table" then error { status = 422, error = "send a JSON object" } end
  local checked, wrong = {}, {}
  for name, rule in pairs(rules[kind]) do
    checked[name] = value[name]
    wrong[name] = rule(value[name]) or nil
  end
  for name in pairs(value) do
    if not rules[kind][name] then wrong[tostring(name)] = "is not known" end
  end
  if next(wrong) then error { status = 422, error = "invalid " .. kind, fields = wrong } end
  return checked
end

--- A whole number that came as text, or `default` where none came; raises the answer where it is something else.
function validate.whole(name, text, default, least, most)
  if text == nil then return default end
  local number = tonumber(text)
  if is_whole(number) and number >= least and number <= most then return number end
  error { status = 400, error = ("%s must be a whole number from %d to %d"):format(name, least, most) }
end

return validate
