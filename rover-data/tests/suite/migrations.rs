//! Files that bring a schema from one state to the next.

use std::fs;
use std::path::Path;

use rover_data::migrations::{self, MigrationState};
use rover_data::{Database, Settings};

use crate::support::*;

fn write(folder: &Path, files: &[(&str, &str)]) {
    let folder = folder.join("migrations");
    fs::create_dir_all(&folder).unwrap();
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
}

fn settings(folder: &Folder) -> Settings {
    Settings::of_file(&folder.path().join("app.db"))
}

fn migrate(folder: &Folder) -> Result<Vec<String>, String> {
    let mut told = Vec::new();
    let done =
        migrations::migrate(&settings(folder), &folder.path().join("migrations"), |name| told.push(name.to_owned()));
    done.map(|()| told).map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "…"))
}

fn states(folder: &Folder) -> Vec<(String, MigrationState)> {
    let found = migrations::status(&settings(folder), &folder.path().join("migrations")).unwrap();
    found.into_iter().map(|status| (status.name, status.state)).collect()
}

const USERS: (&str, &str) = ("0001_users.sql", "create table users (id integer primary key);\n-- a comment\n");
const POSTS: (&str, &str) =
    ("0002_posts.sql", "create table posts (id integer primary key, user_id integer references users (id));");

#[test]
fn files_are_run_once_and_in_order() {
    let folder = Folder::new();
    assert_eq!(migrate(&folder), Ok(vec![]));
    write(folder.path(), &[POSTS, USERS, ("notes.txt", "not SQL")]);
    assert_eq!(
        states(&folder),
        [("0001_users".into(), MigrationState::Pending), ("0002_posts".into(), MigrationState::Pending)]
    );
    assert_eq!(migrate(&folder), Ok(vec!["0001_users".into(), "0002_posts".into()]));
    assert_eq!(migrate(&folder), Ok(vec![]));
    assert_eq!(
        states(&folder),
        [("0001_users".into(), MigrationState::Applied), ("0002_posts".into(), MigrationState::Applied)]
    );
    // Line ends are no change; anything else is.
    write(folder.path(), &[(USERS.0, &USERS.1.replace('\n', "\r\n"))]);
    assert_eq!(states(&folder)[0].1, MigrationState::Applied);
    write(folder.path(), &[(USERS.0, "create table users (id integer primary key, name text);")]);
    assert_eq!(states(&folder)[0].1, MigrationState::Changed);
    assert!(migrate(&folder).unwrap_err().starts_with("0001_users has changed since it was run"));
    fs::remove_file(folder.path().join("migrations").join(USERS.0)).unwrap();
    assert_eq!(states(&folder)[0].1, MigrationState::Unknown);
    assert_eq!(migrate(&folder), Ok(vec![]));
}

#[test]
fn a_file_that_fails_leaves_nothing_behind() {
    let folder = Folder::new();
    let wrong = "create table a (x);\ninsert into a values (1);\n\ncreate table b (x,);\n";
    write(folder.path(), &[USERS, ("0002_wrong.sql", wrong), ("0003_c.sql", "create table c (x);")]);
    let error = migrate(&folder).unwrap_err();
    assert_eq!(error, "…/migrations/0002_wrong.sql:4: near \")\": syntax error");
    assert_eq!(migrations::dump(&settings(&folder)).unwrap(), "CREATE TABLE users (id integer primary key);\n");
    assert_eq!(states(&folder)[1].1, MigrationState::Pending);
    write(folder.path(), &[("0002_wrong.sql", "create table a (x not null);\n\ninsert into a\nvalues (null);")]);
    assert_eq!(migrate(&folder).unwrap_err(), "…/migrations/0002_wrong.sql:3: NOT NULL constraint failed: a.x");
    write(folder.path(), &[("0002_wrong.sql", "create table a (x);\ncommit;\ncreate table b (x);")]);
    assert!(migrate(&folder).unwrap_err().contains("0002_wrong.sql:2: a transaction would begin or end"));
    assert_eq!(states(&folder)[1].1, MigrationState::Pending);
    write(folder.path(), &[("0002_wrong.sql", "create table a (x);")]);
    assert_eq!(migrate(&folder), Ok(vec!["0002_wrong".into(), "0003_c".into()]));
}

#[test]
fn a_table_can_be_rebuilt_and_references_are_checked() {
    let folder = Folder::new();
    let rows = "insert into users values (1); insert into posts values (1, 1);";
    let rebuild = "create table new (id integer primary key, name text);
        insert into new (id) select id from users;
        drop table users;
        alter table new rename to users;";
    write(folder.path(), &[USERS, POSTS, ("0003_rows.sql", rows), ("0004_rebuild.sql", rebuild)]);
    migrate(&folder).unwrap();
    let database = Database::open(&settings(&folder)).unwrap();
    assert_eq!(wait(value(&database, "select count(*) from posts join users on users.id = user_id")), "1");
    write(folder.path(), &[("0005_gone.sql", "delete from users;")]);
    assert_eq!(migrate(&folder).unwrap_err(), "rows of posts refer to rows of users that are not there");
    assert_eq!(wait(value(&database, "select count(*) from users")), "1");
}

#[test]
fn what_cannot_be_in_a_transaction_says_so() {
    let folder = Folder::new();
    let vacuum = "-- Makes room.\n-- rover: no transaction\npragma auto_vacuum = full;\nvacuum;";
    write(folder.path(), &[USERS, ("0002_vacuum.sql", vacuum)]);
    assert_eq!(migrate(&folder).map(|names| names.len()), Ok(2));
    write(folder.path(), &[("0003_vacuum.sql", "vacuum;")]);
    assert!(migrate(&folder).is_err());
}

#[test]
fn the_last_ones_are_undone() {
    let folder = Folder::new();
    write(folder.path(), &[USERS, POSTS, ("0002_posts.down.sql", "drop table posts;")]);
    migrate(&folder).unwrap();
    let undo = |steps| {
        let mut told = Vec::new();
        let done = migrations::roll_back(&settings(&folder), &folder.path().join("migrations"), steps, |name| {
            told.push(name.to_owned());
        });
        (told, done.map_err(|error| error.to_string()))
    };
    let (told, done) = undo(2);
    assert_eq!(told, ["0002_posts"]);
    assert_eq!(done, Err("0001_users cannot be undone: there is no 0001_users.down.sql".to_owned()));
    assert_eq!(states(&folder)[1].1, MigrationState::Pending);
    assert_eq!(migrate(&folder), Ok(vec!["0002_posts".into()]));
    write(folder.path(), &[("0009_x.down.sql", "")]);
    assert!(migrate(&folder).unwrap_err().contains("there is no 0009_x.sql"));
}

#[test]
fn two_at_once_run_each_file_once() {
    let folder = Folder::new();
    for n in 0..12 {
        let text = format!("create table t{n} (x); insert into t{n} select value from json_each('[1,2,3]');");
        write(folder.path(), &[(&format!("{n:04}_t.sql"), &text)]);
    }
    let counts: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| migrate(&folder).unwrap().len())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(counts.iter().sum::<usize>(), 12, "{counts:?}");
    let database = Database::open(&settings(&folder)).unwrap();
    assert_eq!(wait(value(&database, "select count(*) from t11")), "3");
}

#[test]
fn new_ones_follow_the_last() {
    let folder = Folder::new();
    let migrations = folder.path().join("migrations");
    let name = |path: std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(name(migrations::create(&migrations, "users").unwrap()), "0001_users.sql");
    assert_eq!(name(migrations::create(&migrations, "add_email").unwrap()), "0002_add_email.sql");
    write(folder.path(), &[("20260131_x.sql", "")]);
    assert_eq!(name(migrations::create(&migrations, "y").unwrap()), "20260132_y.sql");
    for bad in ["", "a/b", "../x", "a b", ".x"] {
        assert!(migrations::create(&migrations, bad).is_err(), "{bad}");
    }
}

#[test]
fn a_backup_is_the_state_of_one_moment() {
    let folder = Folder::new();
    write(folder.path(), &[USERS]);
    migrate(&folder).unwrap();
    let database = Database::open(&settings(&folder)).unwrap();
    let copy = folder.path().join("copy.db");
    wait(async {
        done(&database, "insert into users values (1), (2)").await;
        let tx = database.begin(rover_data::Begin::default()).await.unwrap();
        tx.run(statement(&database, "insert into users values (3)", &[])).await.unwrap();
        migrations::backup(&settings(&folder), &copy).unwrap();
        tx.commit().await.unwrap();
    });
    assert!(migrations::backup(&settings(&folder), &copy).is_err());
    assert_eq!(
        fs::read_dir(folder.path())
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("copy") })
            .count(),
        1
    );
    let copy = Database::open(&Settings::of_file(&copy)).unwrap();
    assert_eq!(wait(value(&copy, "select count(*) from users")), "2");
    assert!(migrations::backup(&settings(&folder), Path::new("/nonexistent/x.db")).is_err());
}

#[test]
fn rows_to_begin_with_are_all_there_or_none() {
    let folder = Folder::new();
    write(folder.path(), &[USERS]);
    migrate(&folder).unwrap();
    let seed = folder.path().join("seed.sql");
    fs::write(&seed, "insert into users values (1);\ninsert into users values (1);").unwrap();
    let error = migrations::seed(&settings(&folder), &seed).unwrap_err();
    assert!(error.message().ends_with("seed.sql:2: UNIQUE constraint failed: users.id"), "{error}");
    fs::write(&seed, "insert into users values (1);\ninsert into users values (2);").unwrap();
    migrations::seed(&settings(&folder), &seed).unwrap();
    let database = Database::open(&settings(&folder)).unwrap();
    assert_eq!(wait(value(&database, "select count(*) from users")), "2");
}
