//! Rows from tables: names are quoted, values are values, and nothing empties a table by mistake.

use serde_json::json;

use super::serve;
use crate::support::{body, each_worker_count};

#[test]
fn rows_are_stored_changed_and_removed() {
    let code = r#"
        function api.get(ctx)
          db:exec "delete from users"
          local ann = db:insert("users", { name = "ann", age = 3, extra = { a = 1 } })
          local again, err, info = db:insert("users", { name = "ann" })
          local kept = db:insert("users", { name = "ann", age = 9 }, { on_conflict = "nothing" })
          local replaced = db:insert("users", { name = "ann", age = 9 }, { on_conflict = { "name" } })
          db:insert("users", { name = "bob" })
          local none, null_err, null_info = db:insert("users", { age = 1 })
          local check = select(2, db:update("users", { age = -1 }, { name = "ann" }))
          return {
            ann = { ann.name, ann.age, ann.ok == nil, ann.extra },
            unique = { again == nil, err, info.table, info.columns, info.code },
            kept = kept == nil, replaced = replaced.age, same = replaced.id == ann.id,
            null = { none == nil, null_err, null_info.columns },
            check = check,
            updated = db:update("users", { age = 5, ok = true }, { name = rover.list { "ann", "bob", "x" } }),
            cleared = db:update("users", { age = rover.null }, { name = "bob" }),
            by_null = db:update("users", { age = 7 }, { age = rover.null, name = "bob" }),
            left = db:query "select name, age, ok from users order by name",
            gone = db:delete("users", { name = "ann" }),
            nobody = db:delete("users", { name = "ann" }),
          }
        end"#;
    each_worker_count(|workers| {
        let (_folder, app) = serve(code, "", workers);
        let expected = json!({
            "ann": ["ann", 3, true, { "a": 1 }],
            "unique": [true, "unique violation", "users", ["name"], "SQLITE_CONSTRAINT_UNIQUE"],
            "kept": true, "replaced": 9, "same": true,
            "null": [true, "not null violation", ["name"]],
            "check": "check violation",
            "updated": 2, "cleared": 1, "by_null": 1,
            "left": [{ "name": "ann", "age": 5, "ok": true }, { "name": "bob", "age": 7, "ok": true }],
            "gone": 1, "nobody": 0,
        });
        assert_eq!(body(&app, "/"), expected);
    });
}

#[test]
fn no_condition_empties_a_table_and_no_name_is_sql() {
    let code = r#"
        local function told(...) local ok, err = pcall(...) assert(not ok, "it did") return tostring(err) end
        function api.get(ctx)
          db:insert("users", { name = "ann" })
          local evil = [[name" = 'x' or 1=1 --]]
          local told = {
            told(db.delete, db, "users", {}), told(db.delete, db, "users", { id = nil }), told(db.delete, db, "users"),
            told(db.update, db, "users", { age = 1 }, {}), told(db.update, db, "users", {}, { id = 1 }),
            told(db.update, db, "users", { age = 1 }),
            told(db.delete, db, "users", { [evil] = 1 }), told(db.insert, db, "users", { [evil] = 1 }),
            told(db.delete, db, "users; drop table users", { id = 1 }),
            told(db.insert, db, "users", { "ann" }), told(db.insert, db, "users", { name = rover.list { 1 } }),
            told(db.insert, db, "users", { name = "x" }, { on_conflict = "replace" }),
            told(db.insert, db, "users", { name = "x" }, { on_conflct = "nothing" }),
          }
          for _, value in ipairs { "' or '1'='1", "\" or 1=1 --", "x'); drop table users; --", "?", ":a", "??" } do
            assert(db:delete("users", { name = value }) == 0)
            assert(#db:query("select * from users where name in (?)", rover.list { value, value }) == 0)
            assert(db:insert("users", { name = value }).name == value)
            assert(db:delete("users", { name = value }) == 1)
          end
          return { count = db:value "select count(*) from users", told = told }
        end"#;
    let (_folder, app) = serve(code, "", 1);
    let found = body(&app, "/");
    assert_eq!(found["count"], 1, "{found}");
    let told: Vec<String> = serde_json::from_value(found["told"].clone()).expect("texts");
    let parts = [
        "db:delete expects conditions",
        "db:delete expects conditions",
        "db:delete expects where as a table, not nil",
        "db:update expects conditions",
        "db:update expects at least one value",
        "db:update expects where as a table, not nil",
        "no such column",
        "has no column named",
        "no such table",
        "the keys of row must be names of columns",
        "name is a list",
        "on_conflict must be",
        "has one option",
    ];
    for (told, part) in told.iter().zip(parts) {
        assert!(told.contains(part), "{told}: {part}");
    }
    assert_eq!(told.len(), parts.len());
}
