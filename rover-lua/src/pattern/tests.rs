//! Random patterns and texts: the functions must agree with LuaJIT's own, errors and quirks included.
#![allow(clippy::unwrap_used)]

use mlua::{Lua, Table, Value};
use proptest::prelude::*;

use crate::new_vm;

/// Everything that one case gives, as text.
const RUN: &str = r#"
local c = ...
local function shown(...)
  local parts = {}
  for n = 1, select('#', ...) do parts[n] = type((select(n, ...))) .. ":" .. tostring((select(n, ...))) end
  return table.concat(parts, "|")
end
local text, pattern, init, template, most = c.text, c.pattern, c.init, c.template, c.most
local seen = {}
local function called(raises)
  return function(...)
    seen[#seen + 1] = shown(...)
    if #seen == 3 then return nil end
    if #seen == 4 then return false end
    if #seen == 5 then return 12.5 end
    if #seen == 6 and raises == 1 then error("raised", 0) end
    if #seen == 6 and raises == 2 then return {} end
    return "<" .. tostring(...) .. ">"
  end
end
local looked = setmetatable({ a = "A", b = false, [1] = "one", ["%"] = {} }, {
  __index = function(_, key) if key == "c" then return "C" end end,
})
local function all()
  local found = {}
  for a, b, d in text:gmatch(pattern) do found[#found + 1] = shown(a, b, d) end
  return table.concat(found, ";")
end
return table.concat({
  shown(pcall(string.find, text, pattern, init)),
  shown(pcall(function() local a, b, d = string.find(text, pattern, init) return a, b, d end)),
  shown(pcall(function() return string.find(text, pattern) end)),
  shown(pcall(string.find, text, pattern, init, true)),
  shown(pcall(string.match, text, pattern, init)),
  shown(pcall(function() local a = text:match(pattern) return a end)),
  shown(pcall(all)),
  shown(pcall(string.gsub, text, pattern, template, most)),
  shown(pcall(function() local a = text:gsub(pattern, template) return a end)),
  shown(pcall(string.gsub, text, pattern, called(0), most)),
  shown(pcall(string.gsub, text, pattern, called(1))),
  shown(pcall(function() local a = text:gsub(pattern, called(2)) return a end)),
  shown(pcall(string.gsub, text, pattern, looked)),
  table.concat(seen, ";"),
}, "\n")
"#;

const PIECES: [&str; 52] = [
    "a", "b", "c", "1", " ", "_", ".", "%a", "%w", "%s", "%d", "%p", "%c", "%x", "%u", "%L", "%S", "%W", "%z", "%Z",
    "%g", "%%", "%", "[ab]", "[^a]", "[%w_]", "[a-c]", "[^%s]", "[]", "[^]", "[]a]", "[a-]", "[a-%%]", "[%", "[", "]",
    "(", ")", "()", "%1", "%2", "%0", "*", "+", "-", "?", "^", "$", "%b()", "%bab", "%f[%w]", "%f",
];
const MORE: [&str; 6] = ["(a*)", "(.-)", "(%w+)", "\0", "%b", "é"];
const TEXTS: [&str; 18] =
    ["a", "b", "c", "aa", "ab", " ", "  ", "(", ")", "1", "2", "_", "\0", "%", "é", "\n", "A", "key=value"];
const TEMPLATES: [&str; 12] = ["", "x", "%0", "%1", "%2", "%9", "%%", "%", "%a", "<%1>%0", "a%", "\0%1"];

fn joined(pieces: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(pieces), 0..most).prop_map(|pieces| pieces.concat())
}

fn pattern() -> impl Strategy<Value = String> {
    let piece = prop_oneof![6 => prop::sample::select(&PIECES[..]), 1 => prop::sample::select(&MORE[..])];
    prop::collection::vec(piece, 0..7).prop_map(|pieces| pieces.concat())
}

/// A number, or text that is one.
fn number() -> impl Strategy<Value = Option<&'static str>> {
    let numbers =
        ["1", "0", "2", "3", "-1", "-3", "7", "100", "-100", "2.7", "1e10", "-1e10", "2^31", "2^32+2", "0/0", "'2'"];
    prop_oneof![3 => Just(None), 2 => prop::sample::select(numbers.to_vec()).prop_map(Some)]
}

fn outcome(
    lua: &Lua,
    (text, pattern, template): (&str, &str, &str),
    init: Option<&str>,
    most: Option<&str>,
) -> Vec<u8> {
    let value = |code: Option<&str>| lua.load(format!("return {}", code.unwrap_or("nil"))).eval::<Value>().unwrap();
    let case: Table = lua.create_table().unwrap();
    case.set("text", text).unwrap();
    case.set("pattern", pattern).unwrap();
    case.set("template", template).unwrap();
    case.set("init", value(init)).unwrap();
    case.set("most", value(most)).unwrap();
    lua.load(RUN).set_name("=run").call::<mlua::LuaString>(case).unwrap().as_bytes().to_vec()
}

fn agree(old: &Lua, new: &Lua, case: (&str, &str, &str), init: Option<&str>, most: Option<&str>) {
    let (before, after) = (outcome(old, case, init, most), outcome(new, case, init, most));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&before), text(&after), "{case:?} {init:?} {most:?}");
    assert_eq!(before, after);
}

/// A VM with LuaJIT's own functions.
fn old_vm() -> Lua {
    // SAFETY: a test's own code.
    #[allow(unsafe_code)]
    unsafe {
        Lua::unsafe_new()
    }
}

#[test]
fn what_comes_of_random_patterns_is_what_luajit_says() {
    let (old, new) = (old_vm(), new_vm());
    let cases = (joined(&TEXTS, 12), pattern(), prop::sample::select(&TEMPLATES[..]), number(), number());
    let config = ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |((text, pattern, template, init, most) in cases)| {
        agree(&old, &new, (&text, &pattern, template), init, most);
    });
}

#[test]
fn what_comes_of_known_hard_cases_is_what_luajit_says() {
    let (old, new) = (old_vm(), new_vm());
    let deep = "(".repeat(33);
    let many = "()".repeat(32);
    let complex = "a?".repeat(210) + "b";
    let nested = format!("{}a{}", "(".repeat(31), ")".repeat(31));
    let long = "ab ".repeat(20_000);
    for (text, pattern) in [
        ("aaaa", deep.as_str()),
        ("aaaa", &many),
        (&"a".repeat(300), &complex),
        ("xaay", &nested),
        (&long, "%w+"),
        (&long, "(.-) (.-) "),
        (&long, "^%s*(.-)%s*$"),
        (&long, "[^ ]* ?$"),
        (&long, "%f[%a]%a+%f[%A]"),
        ("THE (quick) fox", "%((%a+)%)"),
        ("f(a(b)c)d", "%b()"),
        ("\0a\0", "%z"),
        ("abab", "(ab)%1"),
        ("", ""),
        ("", "^$"),
        ("a,b,,c", "([^,]*)"),
    ] {
        for template in ["%0", "[%1]", "%2"] {
            agree(&old, &new, (text, pattern, template), None, None);
        }
    }
}

/// Wrong arguments are told with the name, the number and the place that LuaJIT tells.
#[test]
fn mistakes_in_arguments_are_told_in_luajit_s_words() {
    let (old, new) = (old_vm(), new_vm());
    for code in [
        "string.find()",
        "string.find('x')",
        "string.find({}, 'x')",
        "('x'):find({})",
        "('x'):find(nil, 1)",
        "('x'):find('x', {})",
        "('x'):find('%a', 'y')",
        "string.match()",
        "('x'):match()",
        "('x'):match('x', true)",
        "string.gmatch('x')",
        "('x'):gmatch({})",
        "('x'):gsub()",
        "('x'):gsub('x')",
        "('x'):gsub('x', true)",
        "('x'):gsub('x', 'y', {})",
        "string.gsub(print, 'x', 'y')",
        "('x'):gsub('x', function() return print end)",
        "('x'):gsub('x', function() error({}) end)",
        "('x'):gsub('(', 'y')",
        "pcall(string.find, 'x', '[')",
        "return string.find('x', '[')",
        "return ('x'):match('%')",
        "return 5, string.find(12321, 23), (12321):find(1)",
        "return string.gsub(1221, 2, 3)",
        "return string.gsub('axb', 'x', 3)",
        "for w in ('x'):gmatch('[') do end",
        "table.sort({ 3, 1, 2 }, 5)",
        "table.sort()",
        "table.sort({ 1, 'x' })",
        "table.insert()",
        "table.insert({}, 1, 2, 3)",
        "table.insert({})",
        "table.insert(nil, 1)",
        "table.insert({}, 'x', 1)",
        "local t = {} table.insert(t, nil) table.insert(t, 1, nil) table.insert(t, '1', 'a') return #t, t[1]",
    ] {
        let told = |lua: &Lua| {
            let run = "local code = ... local function shown(ok, ...)
                if type((...)) == 'table' then return 'a table' end
                return tostring(ok) .. ' ' .. tostring((...)) .. ' ' .. tostring((select(2, ...))) end
                return shown(pcall(assert(loadstring(code, '=code'))))";
            // A function in Lua does not know an argument that is missing from one that is nil.
            lua.load(run).call::<String>(code).unwrap().replace("got no value", "got nil")
        };
        assert_eq!(told(&old), told(&new), "{code}");
    }
}

#[test]
fn sorting_many_and_inserting_far_below_end() {
    let lua = new_vm();
    let code = "
        local list = {}
        for n = 1, 5000 do list[n] = (n * 7919) % 5003 end
        table.sort(list)
        for n = 2, #list do assert(list[n - 1] <= list[n]) end
        table.insert(list, 1, -1)
        table.insert(list, #list + 1, 9999)
        assert(#list == 5002 and list[1] == -1 and list[5002] == 9999)
        local told = {}
        for n, place in ipairs { -2^31, 2^31, 0/0, '-3e9' } do
          local _, problem = pcall(function() table.insert(list, place, 'x') end)
          told[n] = problem
        end
        return table.concat(told, ';')";
    let told: String = lua.load(code).set_name("=code").eval().unwrap();
    let each = "code:11: bad argument #2 to 'insert' (position out of bounds)";
    assert_eq!(told, [each; 4].join(";"));
}

/// What a function gives is loaded as LuaJIT itself does it.
#[test]
fn code_that_comes_in_pieces() {
    let (old, new) = (old_vm(), new_vm());
    for arguments in [
        "pieces('return ', '1')",
        "pieces('return 1', '', 'x')",
        "pieces('x = =')",
        "pieces('return ', 5)",
        "pieces()",
        "pieces('return 7'), '@named', 't'",
        "pieces('return x'), '=named', 't', { x = 3 }",
        "pieces('return 7'), 'named', 'b'",
        "pieces(string.dump(function() return 9 end))",
        "function() error('raised', 0) end",
        "function() error({}) end",
        "'return 1'",
        "nil",
    ] {
        let run = "local arguments = ...
            function pieces(...) local all = { ... } return function() return table.remove(all, 1) end end
            local run = assert(loadstring('local f, problem = load(' .. arguments .. ') return f, problem', '=run'))
            local ok, f, problem = pcall(run)
            if not ok then return 'raised ' .. tostring(f) end
            if not f then return type(problem) == 'string' and problem or type(problem) end
            return tostring((f())) .. ' ' .. debug.getinfo(f, 'S').source";
        let told = |lua: &Lua| lua.load(run).set_name("=test").call::<String>(arguments).unwrap();
        assert_eq!(told(&old), told(&new), "{arguments}");
    }
}
