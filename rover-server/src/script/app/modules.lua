-- Has `require` load the Lua files of the app's version, which stay as they were when the version first read them; and tells
-- Rover which files these are, so that a change of one can reload the app. A module that has failed is tried again.
--
-- Comes in: `known`, which gives the file and the code that the version has for a module; `keep`, which takes a module and
-- its file and gives the code; `note`, which takes the name of a file; `is_loaded`, which tells whether the app's top level has
-- run; `mistake`, which raises at the line of the app. Goes out: nothing; the loader of Lua files asks them, and where it finds
-- nothing, notes each name that it has looked for: one that is made later can reload the app too.

local known, keep, note, is_loaded, mistake = ...
local error, ipairs, load, open, package, require, type = error, ipairs, load, io.open, package, require, type
local running, status = coroutine.running, coroutine.status
local getinfo, loaded, loaders = debug.getinfo, package.loaded, package.loaders
local load_file = loaders[2]
local gmatch, gsub = string.gmatch, string.gsub

-- What the system says of files that are not there, or that nobody may read: ENOENT, EACCES, ENOTDIR, ENAMETOOLONG, ELOOP. Anything
-- else, such as that no descriptor is left, tells nothing of the file.
local missing = { [2] = true, [13] = true, [20] = true, [36] = true, [40] = true }

loaders[2] = function(name)
  local file, code = known(name)
  if not file then
    local path = package.path
    file = package.searchpath(name, path)
    if file then
      code = keep(name, file)
    else
      local part = gsub(name, "%.", "/")
      for template in gmatch(path, "[^;]+") do
        local candidate = gsub(template, "%?", function() return part end)
        note(candidate)
        local found, problem, number = open(candidate)
        if found then
          found:close()
        elseif not missing[number] then
          mistake(("cannot look for module '%s': %s"):format(name, problem))
        end
      end
    end
  end
  -- Says where it has looked, or why it cannot read the file.
  if not code then return load_file(name) end
  local chunk, problem = load(code, "@" .. file)
  if not chunk then mistake(("error loading module '%s' from file '%s':\n\t%s"):format(name, file, problem)) end
  return chunk
end

-- By module: the function that loads it, and the coroutine in which it does, from its start until it has returned.
local runs, places = {}, {}

-- Whether a module is being loaded: the function that loads it stands on the stack of its coroutine. One that has raised an
-- error does not.
local function is_loading(name)
  local run, place = runs[name], places[name]
  if not run or (place and status(place) == "dead") then return false end
  for level = 0, math.huge do
    local info
    if place then info = getinfo(place, level, "f") else info = getinfo(level + 1, "f") end
    if not info then return false end
    if info.func == run then return true end
  end
end

-- The function that loads a module, and what it gets beside the name.
local function find(name)
  local problems = ""
  for _, loader in ipairs(package.loaders) do
    local found, extra = loader(name)
    if type(found) == "function" then return found, extra end
    if type(found) == "string" then problems = problems .. found end
  end
  error(("module '%s' not found:%s"):format(name, problems), 4)
end

-- Calls `work` through Lua's own `require`, a C function, through which no call can wait.
local alone = "rover: a module without waits"
local function call_alone(work)
  package.preload[alone], loaded[alone] = work, nil
  require(alone)
  loaded[alone] = nil
end

local function load_module(name)
  local found, extra = find(name)
  local function run()
    -- Not a tail call: that `run` stands on the stack tells that the module is being loaded.
    local value = found(name, extra)
    if value ~= nil then loaded[name] = value end
  end
  runs[name], places[name] = run, running()
  if is_loaded() then
    -- Where requests are served, nobody is to find a module that is half loaded.
    call_alone(run)
  else
    -- What a C function has called cannot be cut into slices.
    run()
  end
  runs[name], places[name] = nil, nil
  if loaded[name] == nil then loaded[name] = true end
  return loaded[name]
end

-- Lua's own says "loop or previous error" of a module that has failed, and not what went wrong. This one tries again.
function _G.require(name, ...)
  local known = loaded[name]
  if known then return known end
  if type(name) ~= "string" then return require(name, ...) end
  if is_loading(name) then error(("loop while loading module '%s'"):format(name), 2) end
  -- Not a tail call: errors tell the line of whoever has called this.
  local result = load_module(name)
  return result
end
