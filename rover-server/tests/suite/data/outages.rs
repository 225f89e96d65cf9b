//! A database that cannot answer is a 503, and never "no such row".

use serde_json::json;

use super::{Folder, serve};
use crate::support::{App, body, each_worker_count};

/// Every call of the contract, as a handler makes it.
const CALLS: &[&str] = &[
    "db:query('select * from users')",
    "db:one('select * from users')",
    "db:value('select count(*) from users')",
    "db:column('select id from users')",
    "db:exec('delete from users')",
    "db:insert('users', { name = 'a' })",
    "db:update('users', { age = 1 }, { id = 1 })",
    "db:delete('users', { id = 1 })",
    "db:batch { { 'select * from users' } }",
    "db:batch { { 'delete from users' } }",
    "db:page('select * from users')",
    "db:stream('select * from users')()",
    "db:transaction(function(tx) return tx:one 'select * from users' end)",
    "db:transaction(function(tx) return tx:one 'select * from users' end, { read_only = true })",
];

#[test]
fn no_call_takes_an_outage_for_an_answer() {
    let folder = Folder::new();
    let path = folder.path().join("text.db");
    std::fs::write(&path, "this is no database, however long one looks at it; ".repeat(100)).expect("a file");
    let mut code = format!("local api = rover.server {{ db = \"sqlite:{}\" }}\nlocal db = rover.db\n", path.display());
    for (n, call) in CALLS.iter().enumerate() {
        code += &format!("api['{n}'].get = function(ctx) return {call} or api:error(404, 'no such row') end\n");
    }
    code += "function api.caught.get(ctx) local ok, err = pcall(db.one, db, 'select 1') return tostring(err) end\nreturn api";
    each_worker_count(|workers| {
        let app = App::start(&code, workers);
        for (n, call) in CALLS.iter().enumerate() {
            let answer = app.get(&format!("/{n}"));
            assert_eq!(answer.status, 503, "{call}: {}", answer.text());
            let answer: serde_json::Value = serde_json::from_str(answer.text()).expect("JSON");
            assert_eq!(answer["error"], "Service Unavailable", "{call}");
        }
        let caught = app.get("/caught");
        assert!(caught.text().starts_with("the database cannot answer: "), "{}", caught.text());
    });
}

#[test]
fn an_exhausted_pool_is_told_in_time_and_others_are_served() {
    let code = r#"
        function api.hold.get(ctx)
          return db:transaction(function(tx) rover.sleep(tonumber(ctx:query().s)) return "held" end)
        end
        function api.write.get(ctx) return tostring(db:exec("delete from users").affected) end
        function api.read.get(ctx) return tostring(db:value "select count(*) from users") end
        function api.plain.get(ctx) return "served" end
        function api.waiting.get(ctx) return tostring(db:stats().transactions) end"#;
    let (_folder, app) = serve(code, "queue_timeout = 0.15", 2);
    let mut holder = app.connect();
    holder.send("GET /hold?s=0.8 HTTP/1.1\r\nHost: test\r\n\r\n");
    crate::support::wait_until(|| app.get("/waiting").text() == "1");
    let started = std::time::Instant::now();
    let mut writer = app.connect();
    writer.send("GET /write HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(app.get("/plain").text(), "served");
    assert_eq!(app.get("/read").text(), "0");
    let answer = writer.answer();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(started.elapsed() >= std::time::Duration::from_millis(150));
    assert_eq!(holder.answer().text(), "held");
    assert_eq!(app.get("/write").text(), "0");
}

#[test]
fn a_long_query_does_not_hold_up_its_worker() {
    let code = r#"
        local long = [[with recursive c (n) as (select 1 union all select n + 1 from c where n < 100000000)
          select count(*) from c]]
        function api.long.get(ctx) return tostring(db:value(long)) end
        function api.plain.get(ctx) return "served" end
        function api.read.get(ctx) return tostring(db:value "select 1") end"#;
    let (_folder, app) = serve(code, "statement_timeout = 0.5", 1);
    let mut asker = app.connect();
    asker.send("GET /long HTTP/1.1\r\nHost: test\r\n\r\n");
    for _ in 0..20 {
        assert_eq!(app.get("/plain").text(), "served");
        assert_eq!(app.get("/read").text(), "1");
    }
    let answer = asker.answer();
    assert_eq!(answer.status, 503, "{}", answer.text());
}

#[test]
fn versions_of_an_app_share_their_database() {
    let folder = Folder::new();
    let file = folder.path().join("app.lua");
    let code = |answer: &str| {
        format!(
            "local api = rover.server {{ db = 'sqlite:data.db' }}
            function api.on_start() rover.db:exec 'create table if not exists n (n)' end
            function api.get(ctx)
              rover.db:exec 'insert into n values (1)'
              return {{ {answer} = rover.db:value 'select count(*) from n', open = rover.db:stats().connections > 0 }}
            end
            return api"
        )
    };
    std::fs::write(&file, code("first")).expect("a file");
    let app = App::start_server(rover_server::Server::from_file(&file).workers(2));
    assert_eq!(body(&app, "/"), json!({ "first": 1, "open": true }));
    std::fs::write(&file, code("second")).expect("a file");
    app.reload().expect("it loads");
    assert_eq!(body(&app, "/"), json!({ "second": 2, "open": true }));
    assert!(folder.path().join("data.db").exists(), "the file lies beside the app");
}
