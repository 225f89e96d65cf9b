//! All or nothing, whoever leaves and whatever fails.

use serde_json::json;

use super::serve;
use crate::support::{body, each_worker_count, wait_until};

#[test]
fn what_a_function_returns_decides() {
    let code = r#"
        local function count() return db:value "select count(*) from users" end
        local function list(...)
          local list = rover.array {}
          for n = 1, select('#', ...) do
            local value = select(n, ...)
            list[n] = value == nil and rover.null or value
          end
          list[#list + 1] = count()
          return list
        end
        local function try(f) return list(pcall(db.transaction, db, f)) end
        function api.get(ctx)
          db:exec "delete from users"
          local function add(tx) return tx:insert("users", { name = "n" .. tx:value "select count(*) from users" }) end
          return {
            nothing = try(function(tx) add(tx) end),
            values = try(function(tx) add(tx) return 1, nil, 3 end),
            err = try(function(tx) add(tx) return nil, "no" end),
            only_nil = try(function(tx) add(tx) return nil end),
            answer = { #try(function(tx) add(tx) return api:error(409, "no") end), count() },
            good_answer = { #try(function(tx) add(tx) return api.json:status(201, {}) end), count() },
            raised = try(function(tx) add(tx) error("oops", 0) end),
            table_raised = { try(function(tx) add(tx) error({ status = 418 }) end)[2].status, count() },
            failed = try(function(tx) add(tx) tx:insert("users", { name = "n0" }) end),
            nested = try(function(tx)
              add(tx)
              local ok = tx:transaction(function(inner) add(inner) return nil, "undone" end)
              local err = select(2, tx:transaction(function(inner) inner:insert("users", { name = "n0" }) end))
              pcall(tx.transaction, tx, function(inner) add(inner) error("x") end)
              return { ok == nil, err, tx:transaction(function(inner) add(inner) return "kept" end) }
            end),
            read_only = { db:transaction(function(tx) return tx:value "select count(*) from users" end, { read_only = true }) },
          }
        end"#;
    each_worker_count(|workers| {
        let (_folder, app) = serve(code, "", workers);
        let expected = json!({
            "nothing": [true, true, 1],
            "values": [true, 1, null, 3, 2],
            "err": [true, null, "no", 2],
            "only_nil": [true, null, 3],
            "answer": [3, 3],
            "good_answer": [3, 4],
            "raised": [false, "oops", 4],
            "table_raised": [418, 4],
            "failed": [true, null, "unique violation", { "code": "SQLITE_CONSTRAINT_UNIQUE", "table": "users", "columns": ["name"], "detail": "UNIQUE constraint failed: users.name" }, 4],
            "nested": [true, [true, "unique violation", "kept"], 6],
            "read_only": [6],
        });
        assert_eq!(body(&app, "/"), expected);
    });
}

#[test]
fn the_database_cannot_be_asked_from_within_its_own_transaction() {
    let code = r#"
        local function told(f) local ok, err = pcall(f) assert(not ok, "it did") return tostring(err) end
        function api.get(ctx)
          local kept
          local list = db:transaction(function(tx)
            kept = tx
            local spawned = rover.spawn(function() return told(function() db:query "select 1" end) end)
            local list = {
              told(function() db:query "select 1" end),
              told(function() db:transaction(print) end),
              rover.all { function() return told(function() db:stream "select 1" end) end },
              coroutine.wrap(function() return told(function() db:insert("users", {}) end) end)(),
              (rover.timeout(5, function() return told(function() rover.db:exec "select 1" end) end)),
              spawned:join(),
              tx:transaction(function() return told(function() tx:query "select 1" end) end),
            }
            list[#list + 1] = tostring(tx:stats().transactions)
            return list
          end)
          list[#list + 1] = told(function() kept:query "select 1" end)
          list[#list + 1] = tostring(db:value "select 'free again'")
          return list
        end"#;
    each_worker_count(|workers| {
        let (_folder, app) = serve(code, "", workers);
        let list: Vec<String> = serde_json::from_value(body(&app, "/")).expect("texts");
        for text in &list[..6] {
            assert!(text.contains("within a transaction of its own"), "{text}");
        }
        assert!(list[6].contains("a transaction within this one is open"), "{}", list[6]);
        assert_eq!(list[7], "1");
        assert!(list[8].contains("this transaction has ended"), "{}", list[8]);
        assert_eq!(list[9], "free again");
    });
}

/// Clients that leave while their handler is anywhere between the beginning and the end of a transaction.
#[test]
fn clients_that_leave_leave_nothing_half_done() {
    let code = r#"
        function api.pair.p_n.get(ctx)
          return db:transaction(function(tx)
            local n = tonumber(ctx:params().n)
            tx:exec("insert into halves values (?, 'one')", n)
            rover.sleep(n % 7 / 2000)
            tx:exec("insert into halves values (?, 'other')", n)
            return "done"
          end)
        end
        function api.odd.get(ctx)
          return db:one [[select (select count(*) from (select n from halves group by n having count(*) <> 2)) as odd,
            (select count(*) from halves) as all_of_them]]
        end
        function api.free.get(ctx) return { open = db:stats().transactions, waiting = db:stats().waiting } end"#;
    let (_folder, app) = serve(code, "", 2);
    for n in 0..120_u64 {
        let mut client = app.connect();
        client.send(format!("GET /pair/{n} HTTP/1.1\r\nHost: test\r\n\r\n"));
        if n % 10 == 0 {
            assert_eq!(client.answer().text(), "done");
        } else {
            // Not to wait for something, but to leave at ever other moments.
            std::thread::sleep(std::time::Duration::from_micros(n * 53 % 6000));
        }
        drop(client);
        assert_eq!(body(&app, "/odd")["odd"], 0, "after {n}");
    }
    wait_until(|| body(&app, "/free") == json!({ "open": 0, "waiting": 0 }));
    let found = body(&app, "/odd");
    assert!(found["all_of_them"].as_u64() >= Some(24), "{found}");
}

#[test]
fn a_handler_out_of_time_rolls_back() {
    let code = r#"
        function api.slow.get(ctx)
          return rover.timeout(0.03, function()
            return db:transaction(function(tx)
              tx:insert("users", { name = "never" })
              rover.sleep(60)
            end)
          end) or "out of time"
        end
        function api.get(ctx) return tostring(db:value "select count(*) from users") .. db:exec("delete from users").affected end"#;
    each_worker_count(|workers| {
        let (_folder, app) = serve(code, "", workers);
        assert_eq!(app.get("/slow").text(), "out of time");
        assert_eq!(app.get("/").text(), "00");
    });
}
