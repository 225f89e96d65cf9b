-- `ctx:headers()`: keys are lower-case, and a look-up in another case finds them.

local lower, rawget, type = string.lower, rawget, type

return {
  __index = function(headers, name)
    if type(name) == "string" then return rawget(headers, lower(name)) end
  end,
}
