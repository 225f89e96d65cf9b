-- The hooks that an app declares, and which of them run.
--
-- Comes in: `native`, which knows how paths lie to each other, and what `dsl.lua` lends to name places and to note mistakes.
-- Goes out: `stage_of` for `api.x.before`, `settle`, `of_route`, and `choose`, for paths that no route has for itself.

local native, dsl = ...

local getinfo, getlocal, type, tostring, tonumber = debug.getinfo, debug.getlocal, type, tostring, tonumber
local setmetatable, ipairs, next, unpack, sort = setmetatable, ipairs, next, unpack, table.sort
local where, place_of, note, a = dsl.where, dsl.place_of, dsl.note, dsl.a

local stage_meta = {}
local entries = {} -- stage -> array of { name, function, place, file, line, is_loose }, in the order written
local places = {}  -- the places that have stages, in the order written
local guards = {}  -- those of them that have hooks, by the numbers that Rust knows

-- `api.x.before` or `api.x.after`, made where there is none.
local function stage_of(place, name)
  local stages = place.stages
  if not stages then
    stages = {}
    place.stages = stages
    places[#places + 1] = place
  end
  local stage = stages[name]
  if not stage then
    stage = setmetatable({}, stage_meta)
    entries[stage] = {}
    stages[name] = stage
  end
  return stage
end

-- Whether a loop over `pairs` runs: what it declares comes in another order in each VM.
local function is_in_pairs_loop()
  local level = 3
  while getinfo(level, "l") do
    local n = 1
    local name, value = getlocal(level, n)
    while name do
      if name == "(for generator)" and value == next then return true end
      n = n + 1
      name, value = getlocal(level, n)
    end
    level = level + 1
  end
  return false
end

function stage_meta.__newindex(stage, name, value)
  dsl.refuse_when_sealed("adding the hook '" .. tostring(name) .. "'")
  if type(value) ~= "function" then
    return note(("the hook '%s' must be a function, not %s"):format(tostring(name), a(value)))
  end
  local list = entries[stage]
  for i = 1, #list do
    if list[i][1] == name then
      return note(("the hook '%s' is already declared (%s); give one of the two another name"):format(
        tostring(name), list[i][3]))
    end
  end
  local file, line = where()
  list[#list + 1] = { name, value, place_of(file, line), file, line, is_in_pairs_loop() }
end

function stage_meta.__index(stage, name)
  local list = entries[stage]
  for i = 1, #list do
    if list[i][1] == name then return list[i][2] end
  end
end

local function is_before(one, other)
  if one[4] ~= other[4] then return one[4] < other[4] end
  if one[5] ~= other[5] then return one[5] < other[5] end
  return tostring(one[1]) < tostring(other[1])
end

-- Puts hooks that one loop over `pairs` declared in the order of their lines, then of their names.
local function order(list)
  local ordered, run = {}, {}
  for i = 1, #list + 1 do
    local entry = list[i]
    if entry and entry[6] then
      run[#run + 1] = entry
    else
      sort(run, is_before)
      for _, loose in ipairs(run) do ordered[#ordered + 1] = loose end
      run = {}
      ordered[#ordered + 1] = entry
    end
  end
  return ordered
end

local function hooks_of(place, name)
  local stage = place.stages[name]
  return stage and entries[stage] or {}
end

-- Tells Rust which places have hooks. From now on none are added.
local function settle()
  for _, place in ipairs(places) do
    for _, name in ipairs { "before", "after" } do
      local stage = place.stages[name]
      if stage then entries[stage] = order(entries[stage]) end
    end
    local first = hooks_of(place, "before")[1] or hooks_of(place, "after")[1]
    if first then
      local segments, n = dsl.segments(place)
      if native.guard(first[4], first[5], unpack(segments, 1, n)) then guards[#guards + 1] = place end
    end
  end
end

local function functions(numbers, name)
  local all = {}
  for _, number in ipairs(numbers) do
    for _, entry in ipairs(hooks_of(guards[number], name)) do all[#all + 1] = entry[2] end
  end
  return all
end

-- The hooks of the places in `key`, numbers from the outermost place inward.
local function choose(key)
  local numbers = {}
  for number in key:gmatch("%d+") do numbers[#numbers + 1] = tonumber(number) end
  return functions(numbers, "before"), functions(numbers, "after")
end

local none = {}

-- Notes in a route, the last one that Rust was told of, which hooks run before and after it.
local function of_route(route)
  route.before, route.after = none, none
  if #guards == 0 then return end
  local numbers, depends = native.guards_of_route()
  if depends then
    route.choose = choose
  elseif #numbers > 0 then
    route.before, route.after = functions(numbers, "before"), functions(numbers, "after")
  end
end

-- A hook that nothing declared runs is mostly one whose path is misspelt, and guards nothing. Those of all paths may stand
-- in an app that has none.
local function note_idle()
  for _, number in ipairs(#guards > 0 and native.idle_guards() or none) do
    local place = guards[number]
    for _, name in ipairs { "before", "after" } do
      for _, entry in ipairs(place.parent and hooks_of(place, name) or none) do
        dsl.mistakes[#dsl.mistakes + 1] = {
          entry[4], entry[5],
          ("the hook '%s' never runs, for there is no route or folder of files at %s or below; correct its path"):format(
            entry[1], dsl.written(place)),
        }
      end
    end
  end
end

return {
  stage_of = stage_of, is_in_pairs_loop = is_in_pairs_loop, settle = settle, of_route = of_route, note_idle = note_idle,
  -- What chooses hooks by the path alone, if there are any.
  choose = function() return #guards > 0 and choose or nil end,
}
