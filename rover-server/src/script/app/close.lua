-- Closes entries: what they do is refused from then on, without being run.
--
-- Comes in: `entries`, the list of the functions that answer requests; `build_error`, which makes the response of an error.
-- Goes out: the function that closes the entry of a number.

local entries, build_error = ...

local function refuse() return build_error(503) end

return function(entry) entries[entry] = refuse end
