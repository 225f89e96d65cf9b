//! Migrations around a start and a reload.

use std::fs;

use rover_server::Server;
use serde_json::json;

use super::Folder;
use crate::support::{App, body};

const APP: &str = "local api = rover.server { db = 'sqlite:app.db' }
function api.get(ctx) return rover.db:query 'select * from notes' end
return api";

fn write(folder: &Folder, name: &str, text: &str) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, text).expect("a file");
}

fn server(folder: &Folder) -> Server {
    Server::from_file(folder.path().join("app.lua")).workers(2)
}

fn refusal(server: Server) -> String {
    server.port(0).bind().expect_err("it is refused").to_string()
}

#[test]
fn what_is_pending_is_refused_or_run() {
    let folder = Folder::new();
    write(&folder, "app.lua", APP);
    write(&folder, "migrations/0001_notes.sql", "create table notes (id integer primary key, text text);");
    let told = refusal(server(&folder));
    assert!(told.contains("have not been run: 0001_notes") && told.contains("rover db migrate"), "{told}");
    let app = App::start_server(server(&folder).migrate(true));
    assert_eq!(body(&app, "/"), json!([]));

    // A reload looks too, and the version before serves on.
    write(&folder, "migrations/0002_more.sql", "alter table notes add column more text default 'x';");
    let mut databases = server(&folder).databases().expect("the app loads");
    let database = databases.pop().expect("a database");
    drop(app);
    let app = {
        fs::remove_file(folder.path().join("migrations/0002_more.sql")).expect("a file");
        let app = App::start_server(server(&folder));
        write(&folder, "migrations/0002_more.sql", "alter table notes add column more text default 'x';");
        app
    };
    let told = app.reload().expect_err("it is refused").to_string();
    assert!(told.contains("have not been run: 0002_more"), "{told}");
    assert_eq!(body(&app, "/"), json!([]));
    let mut run = Vec::new();
    database.migrate(|name| run.push(name.to_owned())).expect("it is right");
    assert_eq!(run, ["0002_more"]);
    app.reload().expect("nothing is pending");
    drop(app);

    // An older version runs beside a newer schema.
    fs::remove_file(folder.path().join("migrations/0002_more.sql")).expect("a file");
    drop(App::start_server(server(&folder)));
}

#[test]
fn a_wrong_file_stops_a_start_and_a_check() {
    let folder = Folder::new();
    write(&folder, "app.lua", APP);
    write(
        &folder,
        "migrations/0001_notes.sql",
        "create table notes (id integer primary key, text text);\n\ncreate tabel x;",
    );
    let told = refusal(server(&folder).migrate(true));
    assert!(told.contains("0001_notes.sql:3: near \"tabel\": syntax error"), "{told}");
    let told = server(&folder).check().expect_err("it is wrong").to_string();
    assert!(told.contains("0001_notes.sql:3: near \"tabel\": syntax error"), "{told}");
    write(&folder, "migrations/0001_notes.sql", "create table notes (id integer primary key, text text);");
    server(&folder).check().expect("it is right");
    let databases = server(&folder).databases().expect("the app loads");
    let status = databases[0].status().expect("a status");
    assert_eq!(status[0].state.as_str(), "pending", "a check runs them elsewhere");
}

#[test]
fn a_further_database_has_a_folder_of_its_own() {
    let folder = Folder::new();
    let app = "local api = rover.server { db = 'sqlite:app.db', databases = { reports = { url = 'sqlite:reports.db', pool = 1 } } }
        function api.get(ctx) return { rover.database 'reports':value 'select count(*) from r', rover.db:value 'select 1' } end
        return api";
    write(&folder, "app.lua", app);
    write(&folder, "migrations/reports/0001_r.sql", "create table r (a);");
    let told = refusal(server(&folder));
    assert!(told.contains("\"reports\" have not been run: 0001_r"), "{told}");
    let app = App::start_server(server(&folder).migrate(true));
    assert_eq!(body(&app, "/"), json!([0, 1]));
}
