-- Times in the config of a call: `timeout` in seconds, `timeout_ms` in milliseconds; false is no limit.
--
-- Comes in: `mistake`, which raises at the line of the app, and `warn`, which tells the log of that line once for each name.
-- Goes out: checks of both kinds, and the way to a number.

local mistake, warn = ...

local type, format, tostring = type, string.format, tostring

-- In seconds.
local LONGEST = 1e6

-- Times were milliseconds once: whole numbers from here on may be so still.
local SUSPECT = { idle_timeout = 1000, fail_timeout = 1000, tunnel_timeout = 60000 }

local function wrong(name, unit, hint, value)
  local kind = type(value)
  local shown = kind == "string" and format("%q", value) or (kind == "number" or kind == "boolean") and tostring(value) or "a " .. kind
  mistake(format("%s is a number of %s above 0%s, or false for no limit, not %s", name, unit, hint, shown))
end

local times = {}
local warned = {}

function times.seconds(value, name)
  if value == false then return end
  if type(value) ~= "number" or not (value > 0 and value <= LONGEST) then
    wrong(name, "seconds", format(" (%s_ms: milliseconds)", name), value)
  end
  if value >= (SUSPECT[name] or 100) and value % 1 == 0 and not warned[name] then
    warned[name] = true
    warn(name, format("%s = %d is %d seconds; milliseconds are written %s_ms = %d", name, value, value, name, value))
  end
end

function times.milliseconds(value, name)
  if value ~= false and (type(value) ~= "number" or not (value > 0 and value <= LONGEST * 1000)) then
    wrong(name, "milliseconds", "", value)
  end
end

--- Raises where `cfg` says a time in both units.
function times.once(cfg, name, name_ms)
  if cfg[name] ~= nil and cfg[name_ms] ~= nil then mistake(format("give %s or %s, not both", name, name_ms)) end
end

--- The time in milliseconds: 0 for no limit, nil where `cfg` says nothing.
function times.of(cfg, name, name_ms)
  local value = cfg[name]
  if value ~= nil then return value and value * 1000 or 0 end
  value = cfg[name_ms]
  if value ~= nil then return value or 0 end
end

return times
