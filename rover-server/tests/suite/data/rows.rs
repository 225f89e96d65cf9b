//! What statements bring.

use serde_json::json;

use super::serve;
use crate::support::{App, body, each_worker_count};

#[test]
fn each_call_gives_what_it_says() {
    let code = r#"
        function api.get(ctx)
          db:exec "delete from users"
          local first = db:exec("insert into users (name, age, ok) values (?, ?, ?)", "ann", 30, true)
          db:exec("insert into users (name, age) values (:name, :age)", { name = "bob", age = 0/1 })
          db:exec("insert into users (name) values (?)", "cid")
          local n = 0
          for row in db:stream "select name from users order by name" do n = n + #row.name end
          return {
            first = first,
            all = db:query "select name, age, ok from users order by id",
            one = db:one("select name from users where age = ?", 30),
            none = db:one("select name from users where age = ?", 99) == nil,
            value = db:value "select count(*) from users",
            column = db:column "select age from users order by id",
            within = db:column("select name from users where name in (?) order by 1", rover.list { "ann", "cid", "x" }),
            nobody = db:column("select name from users where name in (?)", rover.list {}),
            changed = db:exec("update users set age = 1"),
            letters = n,
            batch = db:batch { { "select ? as a", 1 }, { "delete from users where name = :n", { n = "bob" } }, { "select ? as b, ? as c", nil, 2 } },
            empty = db:query "select * from users where false",
          }
        end"#;
    each_worker_count(|workers| {
        let (_folder, app) = serve(code, "", workers);
        let expected = json!({
            "first": { "affected": 1, "id": 1 },
            "all": [
                { "name": "ann", "age": 30, "ok": true },
                { "name": "bob", "age": 0, "ok": null },
                { "name": "cid", "age": null, "ok": null },
            ],
            "one": { "name": "ann" },
            "none": true,
            "value": 3,
            "column": [30, 0, null],
            "within": ["ann", "cid"],
            "nobody": [],
            "changed": { "affected": 3 },
            "letters": 9,
            "batch": [[{ "a": 1 }], { "affected": 1 }, [{ "b": null, "c": 2 }]],
            "empty": [],
        });
        assert_eq!(body(&app, "/"), expected);
    });
}

#[test]
fn rows_are_written_whole_and_in_order() {
    let code = r#"
        function api.get(ctx)
          return db:query [[select 1 as z, null as y, 'x' as a, null as b
            union all select null, null, null, null union all select 2, 'k"', null, 4]]
        end
        function api.pretty.get(ctx) return rover.json.encode(db:one "select null as b, 1 as a", { pretty = true }) end
        function api.more.get(ctx)
          local row = db:one "select 2 as b, null as a"
          row.c, row.b = { 1 }, nil
          return row
        end
        function api.twice.get(ctx) return db:one "select 1 as a, 2 as a, null as b" end
        function api.wide.get(ctx)
          local columns = {}
          for n = 1, 100 do columns[n] = (n % 3 == 0 and "null" or n) .. " as c" .. n end
          return db:one("select " .. table.concat(columns, ","))
        end
        function api.many.get(ctx)
          for n = 1, 700 do db:one("select 1 as c" .. n) end
          collectgarbage() collectgarbage()
          return { db:one "select 1 as c1, null as d", setmetatable({ c1 = 1 }, {}) }
        end"#;
    each_worker_count(|workers| {
        let (_folder, app) = serve(code, "", workers);
        let text = |path: &str| app.get(path).text().to_owned();
        let rows = r#"[{"z":1,"y":null,"a":"x","b":null},{"z":null,"y":null,"a":null,"b":null},{"z":2,"y":"k\"","a":null,"b":4}]"#;
        assert_eq!(text("/"), rows);
        assert_eq!(text("/pretty"), "{\n  \"b\": null,\n  \"a\": 1\n}");
        assert_eq!(text("/more"), r#"{"b":null,"a":null,"c":[1]}"#);
        assert_eq!(text("/twice"), r#"{"a":2,"b":null}"#);
        let wide: Vec<String> = (1..=100)
            .map(|n| format!("\"c{n}\":{}", if n % 3 == 0 { "null".to_owned() } else { n.to_string() }))
            .collect();
        assert_eq!(text("/wide"), format!("{{{}}}", wide.join(",")));
        assert_eq!(text("/many"), r#"[{"c1":1,"d":null},{"c1":1}]"#);
    });
}

#[test]
fn values_keep_what_they_are() {
    let code = r#"
        function api.get(ctx)
          local function back(value) return db:value("select ?", value) end
          local stored = db:insert("users", { name = "j", extra = { list = { 1, 2 }, none = rover.array {} } })
          return {
            small = back(2^53), large = back("9007199254740993"), wide = back(9007199254740993LL),
            integer = db:value "select 9007199254740993", low = db:value "select -9007199254740993",
            half = back(0.5), yes = back(true), bytes = #back(rover.blob "a\0b"), text = #back("a\0b"),
            kind = db:value("select typeof(?)", rover.blob "x"), number = db:value("select typeof(?)", 3),
            null = back(nil) == nil and back(rover.null) == nil,
            json = stored.extra, quoted = back("'; drop table users; --"),
            huge = db:value "select 1e300", infinite = db:value "select 9e999" == math.huge,
          }
        end
        function api.nan.get(ctx) return db:value("select ?", 0/0) end
        function api.fn.get(ctx) return db:value("select ?", print) end"#;
    each_worker_count(|workers| {
        let (_folder, app) = serve(code, "", workers);
        let expected = json!({
            "small": 9_007_199_254_740_992_u64, "large": "9007199254740993", "wide": "9007199254740993",
            "integer": "9007199254740993", "low": "-9007199254740993", "half": 0.5, "yes": 1, "bytes": 3, "text": 3,
            "kind": "blob", "number": "integer", "null": true,
            "json": { "list": [1, 2], "none": [] }, "quoted": "'; drop table users; --",
            "huge": 1e300, "infinite": true,
        });
        assert_eq!(body(&app, "/"), expected);
        assert_eq!(app.get("/nan").status, 500);
        assert_eq!(app.get("/fn").status, 500);
    });
}

#[test]
fn mistakes_are_told_at_the_line_of_the_app() {
    let code = "
        local function told(f, ...) local ok, err = pcall(f, ...) assert(not ok) return tostring(err) end
        function api.get(ctx)
          return {
            told(function() db:query('select nme\\nfrom users where id = ?', 1) end),
            told(function() db:query('select ?') end),
            told(function() db:query('select :a', {}) end),
            told(function() db:query('select :a', 1) end),
            told(function() db.query('select 1') end),
            told(function() db:query({}) end),
            told(function() db:query('select 1; select 2') end),
            told(function() rover.database 'reports':query('select 1') end),
            told(function() db:exec('begin') end),
            told(function() db:query('select 1', rover.list { 1 }) end),
          }
        end";
    let (_folder, app) = serve(code, "", 1);
    let told: Vec<String> = serde_json::from_value(body(&app, "/")).expect("texts");
    let expected = [
        "no such column: nme\n    select nme\n           ^",
        "the statement needs 1 value, not 0\n    select ?",
        "there is no value for :a\n    select :a",
        "db:query: the placeholders have names: give one table, such as { a = … }",
        "call it with a colon: db:query(…)",
        "db:query expects SQL as a string, not table",
        "there is a second statement: run one at a time, several with batch\n    select 1; select 2\n              ^",
        "there is no database \"reports\": name it, as in rover.server { databases = { reports = \"sqlite:reports.db\" } }",
        "a transaction would begin or end on a shared connection: use transaction(fn)\n    begin",
        "the statement needs 0 values, not 1\n    select 1",
    ];
    for (n, (told, expected)) in told.iter().zip(expected).enumerate() {
        // The table's first item is in line 13 of the app.
        assert_eq!(*told, format!("app.lua:{}: {expected}", n + 13), "{told}");
    }
    assert_eq!(told.len(), expected.len());
}

#[test]
fn pages_go_on_behind_the_last_row() {
    let code = r#"
        function api.fill.get()
          for n = 1, 25 do db:insert("users", { name = ("u%02d"):format(n), age = n % 5 }) end
        end
        function api.get(ctx)
          local rows, after = db:page("select id, name, age from users where age <> ?",
            { by = { "age", "id" }, desc = true, limit = 9, args = { 3 }, after = ctx:query().after })
          if not rows then return api:error(400, after) end
          return { rows = rows, after = after }
        end
        function api.named.get(ctx)
          local seen, after = {}
          repeat
            local rows
            rows, after = db:page("select * from users where age = :age;", { args = { age = 2 }, limit = 2, after = after })
            for _, row in ipairs(rows) do seen[#seen + 1] = row.id end
          until not after
          return seen
        end"#;
    let (_folder, app) = serve(code, "", 1);
    assert_eq!(app.get("/fill").status, 204);
    let mut seen = Vec::new();
    let mut target = "/".to_owned();
    loop {
        let page = body(&app, &target);
        let rows = page["rows"].as_array().expect("rows").clone();
        assert!(rows.len() <= 9);
        seen.extend(rows.iter().map(|row| (row["age"].as_i64(), row["id"].as_i64())));
        match page["after"].as_str() {
            Some(after) => target = format!("/?after={after}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 20);
    assert!(seen.is_sorted_by(|one, other| one > other), "{seen:?}");
    assert_eq!(body(&app, "/named"), json!([2, 7, 12, 17, 22]));
    for bad in ["x", "zz", "5b5d", "5b312c"] {
        assert_eq!(app.get(&format!("/?after={bad}")).status, 400, "{bad}");
    }
}

#[test]
fn a_loop_over_a_stream_may_be_left() {
    let code = r#"
        local many = "with recursive c (n) as (select 1 union all select n + 1 from c where n < 100000) select n from c"
        function api.get(ctx)
          for row in db:stream(many) do
            if row.n == 3 then return "left" end
          end
        end
        function api.closed.get(ctx)
          local rows = db:stream(many)
          rows() rows:close()
          return { after = rows() == nil }
        end
        function api.csv.get(ctx)
          local rows = db:stream(many .. " limit 3")
          return api.stream(200, "text/csv", function()
            local row = rows()
            return row and row.n .. "\n"
          end)
        end
        function api.late.get(ctx)
          local ok, err = pcall(function()
            for row in db:stream("select abs(case n when 500 then -9223372036854775808 else n end) as n from (" .. many .. ")") do end
          end)
          return tostring(ok) .. " " .. tostring(err)
        end"#;
    each_worker_count(|workers| {
        let (_folder, app) = serve(code, "queue_timeout = 2", workers);
        for _ in 0..30 {
            assert_eq!(app.get("/").text(), "left");
        }
        assert_eq!(body(&app, "/closed"), json!({ "after": true }));
        for _ in 0..10 {
            let mut client = app.connect();
            client.send("GET /csv HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
            let answer = client.rest();
            assert!(answer.contains("1\n") && answer.contains("3\n"), "{answer}");
        }
        let late = app.get("/late");
        assert!(late.text().starts_with("false ") && late.text().contains("integer overflow"), "{}", late.text());
    });
}

#[test]
fn the_top_level_declares_and_does_not_ask() {
    let folder = super::Folder::new();
    let code = |rest: &str| {
        let url = folder.path().join("app.db");
        format!("local api = rover.server {{ db = \"sqlite:{}\" }}\n{rest}\nreturn api", url.display())
    };
    let server = rover_server::Server::from_source("app.lua", code("rover.db:query 'select 1'"));
    let error = server.workers(1).port(0).bind().expect_err("it asks").to_string();
    assert!(error.contains("app.lua:2: db:query cannot be called at the top level of the app"), "{error}");
    let none = "local api = rover.server {}\nfunction api.get() return rover.db:query 'select 1' end\nreturn api";
    let app = App::start(none, 1);
    assert_eq!(app.get("/").status, 500);
    let misspelt = "local api = rover.server { db = { url = 'sqlite:a.db', pol = 1 } } return api";
    let error = rover_server::Server::from_source("app.lua", misspelt).port(0).bind().expect_err("it is misspelt");
    assert!(error.to_string().contains("db must be a URL"), "{error}");
}
