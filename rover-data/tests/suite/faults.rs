//! Faults of the disk, of other processes, of the machine: each is an outage, and none reads as an empty answer.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rover_data::{Begin, Database, Journal, Outage, Settings, Synchronous};

use crate::support::*;

/// Tries every way to ask, each of which is to fail with this outage.
fn all_fail(database: &Database, writes_too: bool, expected: Outage) {
    let is_it = |name: &str, found: Option<Outage>| assert_eq!(found, Some(expected), "{name}");
    wait(async {
        is_it("run", outage(&run(database, "select * from t", &[]).await));
        is_it("batch", outage(&database.batch(vec![statement(database, "select * from t", &[])]).await));
        is_it("stream", outage(&database.stream(statement(database, "select * from t", &[])).await));
        is_it("begin", outage(&database.begin(Begin { read_only: true }).await));
        if writes_too {
            is_it("write", outage(&run(database, "insert into t values (1)", &[]).await));
            is_it("begin to write", outage(&database.begin(Begin::default()).await));
        }
    });
}

#[test]
fn what_cannot_be_opened_is_an_outage() {
    let folder = Folder::new();
    let nowhere = Database::open(&Settings::of_file(&folder.path().join("none/app.db"))).unwrap();
    all_fail(&nowhere, true, Outage::CannotOpen);
    let mut settings = Settings::of_file(&folder.path().join("absent.db"));
    settings.create = false;
    all_fail(&Database::open(&settings).unwrap(), true, Outage::CannotOpen);
    let text = folder.path().join("text.db");
    fs::write(&text, "no database at all, but long enough to be read as one".repeat(100)).unwrap();
    all_fail(&Database::open(&Settings::of_file(&text)).unwrap(), true, Outage::Corrupt);
    all_fail(&Database::open(&Settings::of_file(folder.path())).unwrap(), true, Outage::CannotOpen);
}

#[test]
fn a_damaged_page_is_an_outage() {
    let (folder, database) = file(|settings| settings.journal = Journal::Delete);
    wait(async {
        done(&database, "create table t (a)").await;
        done(&database, "insert into t select randomblob(3000) from json_each('[1,2,3,4,5,6,7,8,9]')").await;
    });
    assert!(database.close(Duration::from_secs(10)));
    let path = folder.path().join("app.db");
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096..].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let database = Database::open(&Settings::of_file(&path)).unwrap();
    wait(async {
        let result = run(&database, "select * from t", &[]).await;
        assert_eq!(outage(&result), Some(Outage::Corrupt), "{result:?}");
    });
}

#[test]
fn a_full_disk_fails_writes_and_reads_go_on() {
    // A file system of 1 MB, where the test may mount one.
    let folder = Folder::new();
    let mount = folder.path().to_str().unwrap().to_owned();
    let script = format!(
        "mount -t tmpfs -o size=1m none {mount} && exec \"$0\" --exact faults::within_a_small_disk --nocapture"
    );
    let child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env("ROVER_DATA_SMALL_DISK", &mount)
        .output();
    let Ok(output) = child else { return };
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if text.contains("Operation not permitted") || text.contains("unshare failed") {
        return;
    }
    assert!(output.status.success() && text.contains("the disk was full"), "{text}");
}

/// Run by the test above, where the disk is small.
#[test]
fn within_a_small_disk() {
    let Some(folder) = std::env::var_os("ROVER_DATA_SMALL_DISK") else { return };
    let database = Database::open(&Settings::of_file(&std::path::Path::new(&folder).join("app.db"))).unwrap();
    wait(async {
        done(&database, "create table t (id integer primary key, a blob)").await;
        let mut kept = 0;
        let error = loop {
            match run(&database, "insert into t (a) values (randomblob(20000))", &[]).await {
                Ok(_) => kept += 1,
                Err(error) => break error,
            }
            assert!(kept < 1000);
        };
        assert_eq!(error.class(), rover_data::Class::Unavailable(Outage::Full), "{error:?}");
        assert_eq!(value(&database, "select count(*) from t").await, kept.to_string());
        let tx = database.begin(Begin::default()).await.unwrap();
        // What is not much is written by the commit.
        tx.run(statement(&database, "insert into t (a) values (randomblob(900000))", &[])).await.unwrap();
        assert_eq!(outage(&tx.commit().await), Some(Outage::Full));
        assert_eq!(value(&database, "select count(*) from t").await, kept.to_string());
        println!("the disk was full");
    });
}

#[test]
fn a_file_that_cannot_be_written_is_still_read() {
    let (folder, database) = file(|settings| settings.journal = Journal::Delete);
    wait(async {
        done(&database, "create table t (a)").await;
        done(&database, "insert into t values (1)").await;
    });
    assert!(database.close(Duration::from_secs(10)));
    let path = folder.path().join("app.db");
    let mut settings = Settings::of_file(&path);
    settings.read_only = true;
    let database = Database::open(&settings).unwrap();
    wait(async {
        assert_eq!(value(&database, "select a from t").await, "1");
        assert_eq!(outage(&run(&database, "insert into t values (2)", &[]).await), Some(Outage::ReadOnly));
    });
    // Whoever may do anything is not held up by permissions.
    if rustix::process::geteuid().is_root() {
        return;
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let mut settings = Settings::of_file(&path);
    settings.journal = Journal::Delete;
    let database = Database::open(&settings).unwrap();
    wait(async {
        assert_eq!(value(&database, "select a from t").await, "1");
        assert_eq!(outage(&run(&database, "insert into t values (2)", &[]).await), Some(Outage::ReadOnly));
    });
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
}

/// A process of its own that does `what` to the database in `ROVER_DATA_FILE`.
fn other(what: &str, path: &std::path::Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "faults::another_process", "--nocapture"])
        .env("ROVER_DATA_FILE", path)
        .env("ROVER_DATA_DO", what)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Run by the tests below, as another process.
#[test]
fn another_process() {
    let (Some(path), Ok(what)) = (std::env::var_os("ROVER_DATA_FILE"), std::env::var("ROVER_DATA_DO")) else { return };
    let mut settings = Settings::of_file(std::path::Path::new(&path));
    settings.synchronous = if what.contains("full") { Synchronous::Full } else { Synchronous::Normal };
    let database = Database::open(&settings).unwrap();
    wait(async {
        match what.as_str() {
            "hold" => {
                let tx = database.begin(Begin::default()).await.unwrap();
                println!("\nheld");
                std::io::stdin().read_line(&mut String::new()).unwrap();
                tx.roll_back().await.unwrap();
            }
            "count" => {
                for _ in 0..50 {
                    done(&database, "update n set n = n + 1").await;
                }
            }
            _ => {
                done(&database, "create table if not exists t (id integer primary key)").await;
                println!();
                for _ in 0..100_000 {
                    let answers = (run(&database, "insert into t default values", &[]).await, ());
                    println!("ack {}", answers.0.unwrap().id.unwrap());
                    std::io::stdout().flush().unwrap();
                }
            }
        }
    });
}

#[test]
fn a_lock_of_another_process_is_waited_for_and_told() {
    let (folder, database) = file(|settings| settings.busy_timeout = Duration::from_millis(150));
    wait(done(&database, "create table t (a)"));
    let mut holder = other("hold", &folder.path().join("app.db"));
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line == "held"));
    wait(async {
        let started = Instant::now();
        let result = run(&database, "insert into t values (1)", &[]).await;
        assert_eq!(outage(&result), Some(Outage::Busy), "{result:?}");
        assert!(started.elapsed() >= Duration::from_millis(150));
        assert_eq!(outage(&database.begin(Begin::default()).await), Some(Outage::Busy));
        assert_eq!(value(&database, "select count(*) from t").await, "0");
    });
    drop(holder.stdin.take());
    holder.wait().unwrap();
    wait(done(&database, "insert into t values (1)"));
}

#[test]
fn two_processes_write_to_one_file() {
    let (folder, database) = file(|_| {});
    wait(async {
        done(&database, "create table n (n integer)").await;
        done(&database, "insert into n values (0)").await;
    });
    let mut children: Vec<_> = (0..2).map(|_| other("count", &folder.path().join("app.db"))).collect();
    wait(async {
        for _ in 0..50 {
            done(&database, "update n set n = n + 1").await;
        }
    });
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(wait(value(&database, "select n from n")), "150");
}

/// A process that is killed in the middle of writing loses nothing that it has acknowledged. A run for longer sets
/// `ROVER_DATA_KILLS`.
#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let kills: u64 = std::env::var("ROVER_DATA_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let folder = Folder::new();
    let path = folder.path().join("app.db");
    let mut last = 0;
    for kill in 0..kills {
        let mut child = other(if kill % 2 == 0 { "write full" } else { "write" }, &path);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = last + 1 + kill * 7 % 60;
        while last < wanted {
            let line = lines.next().unwrap().unwrap();
            if let Some(id) = line.strip_prefix("ack ") {
                last = id.parse().unwrap();
            }
        }
        child.kill().unwrap();
        for line in lines.map_while(Result::ok) {
            // The last line may be half written.
            if let Some(id) = line.strip_prefix("ack ").and_then(|id| id.parse::<u64>().ok()) {
                last = last.max(id.min(last + 1));
            }
        }
        child.wait().unwrap();
        let database = Database::open(&Settings::of_file(&path)).unwrap();
        wait(async {
            let found: u64 = value(&database, "select max(id) from t").await.parse().unwrap();
            assert!(found >= last, "{last} was acknowledged, {found} is there");
            assert_eq!(value(&database, "select count(*) = max(id) from t").await, "1");
            last = found;
        });
        if kill % 4 == 3 {
            assert_eq!(wait(value(&database, "pragma integrity_check")), "ok");
        }
        assert!(database.close(Duration::from_secs(10)));
    }
}

#[test]
fn a_pool_that_is_exhausted_says_so_in_time() {
    let (_folder, database) = file(|settings| settings.queue_timeout = Duration::from_millis(100));
    wait(async {
        done(&database, "create table t (a)").await;
        let tx = database.begin(Begin::default()).await.unwrap();
        let started = Instant::now();
        let result = run(&database, "insert into t values (1)", &[]).await;
        assert_eq!(outage(&result), Some(Outage::Exhausted));
        assert!(result.unwrap_err().message().starts_with("pool exhausted"));
        assert!(started.elapsed() >= Duration::from_millis(100) && started.elapsed() < Duration::from_secs(5));
        // Who reads does not wait for who writes.
        assert_eq!(value(&database, "select count(*) from t").await, "0");
        tx.commit().await.unwrap();
        done(&database, "insert into t values (1)").await;
        // Streams leave one reader to the others.
        let many = "with recursive c (n) as (select 1 union all select n + 1 from c where n < 1000000) select n from c";
        let mut streams = Vec::new();
        let refused = loop {
            match database.stream(statement(&database, many, &[])).await {
                Ok(stream) => streams.push(stream),
                Err(error) => break Err::<(), _>(error),
            }
        };
        assert_eq!(outage(&refused), Some(Outage::Exhausted));
        assert_eq!(streams.len(), database.settings().readers - 1);
        assert_eq!(value(&database, "select count(*) from t").await, "1");
    });
}

#[test]
fn a_statement_that_takes_too_long_is_told() {
    let (_folder, database) = file(|settings| settings.statement_timeout = Some(Duration::from_millis(50)));
    let long =
        "with recursive c (n) as (select 1 union all select n + 1 from c where n < 1000000000) select count(*) from c";
    wait(async {
        done(&database, "create table t (a)").await;
        assert_eq!(outage(&run(&database, long, &[]).await), Some(Outage::TimedOut));
        assert_eq!(outage(&run(&database, &format!("insert into t {long}"), &[]).await), Some(Outage::TimedOut));
        let tx = database.begin(Begin::default()).await.unwrap();
        tx.run(statement(&database, "insert into t values (1)", &[])).await.unwrap();
        assert_eq!(
            outage(&tx.run(statement(&database, &format!("insert into t {long}"), &[])).await),
            Some(Outage::TimedOut)
        );
        assert_eq!(outage(&tx.commit().await), Some(Outage::TimedOut));
        assert_eq!(value(&database, "select count(*) from t").await, "0");
    });
}

#[test]
fn a_file_that_is_replaced_is_an_outage() {
    let (folder, database) = file(|_| {});
    let (path, aside) = (folder.path().join("app.db"), folder.path().join("aside.db"));
    let reads_fail = || {
        // Readers look once in a second.
        until("reads fail", || outage(&wait(run(&database, "select * from t", &[]))) == Some(Outage::Lost));
        all_fail(&database, true, Outage::Lost);
    };
    wait(async {
        done(&database, "create table t (a)").await;
        done(&database, "insert into t values ('old')").await;
        assert_eq!(value(&database, "select a from t").await, "old");
    });
    fs::rename(&path, &aside).unwrap();
    // Not one write goes where nobody finds it, and no new file takes the old one's place.
    assert_eq!(outage(&wait(run(&database, "insert into t values (1)", &[]))), Some(Outage::Lost));
    reads_fail();
    assert!(!path.exists());
    fs::write(&path, "").unwrap();
    assert_eq!(outage(&wait(run(&database, "insert into t values (1)", &[]))), Some(Outage::Lost));
    reads_fail();
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    fs::rename(&aside, &path).unwrap();
    wait(async {
        done(&database, "insert into t values ('more')").await;
        assert_eq!(value(&database, "select group_concat(a) from t").await, "old,more");
        assert_eq!(value(&database, "pragma integrity_check").await, "ok");
    });
}

#[test]
fn a_database_that_is_closed_leaves_one_file() {
    let (folder, database) = file(|_| {});
    wait(async {
        done(&database, "create table t (a)").await;
        done(&database, "insert into t values (1)").await;
        done(&database, "select * from t").await;
    });
    assert!(folder.path().join("app.db-wal").exists());
    assert!(database.close(Duration::from_secs(10)));
    assert!(!folder.path().join("app.db-wal").exists(), "the log is still there");
}
