//! Nobody gets what another has asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rover_data::{Argument, Begin, Database, Datum, Outage, Sql, Value};

use crate::support::*;

/// How many statements each asker sends. A run for longer sets `ROVER_DATA_STATEMENTS`.
fn statements() -> u64 {
    std::env::var("ROVER_DATA_STATEMENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(400)
}

/// Statements that are cached, new, wrong, cancelled at any moment, out of time, within transactions: each answer has the
/// number that was asked for.
#[test]
fn every_answer_is_its_askers() {
    const ASKERS: u64 = 24;
    let (_folder, database) = file(|settings| {
        settings.statement_cache = 8;
        settings.statement_timeout = Some(Duration::from_millis(40));
    });
    let told = Arc::new(AtomicU64::new(0));
    wait(done(&database, "create table t (id integer primary key, asker integer not null, n integer not null)"));
    let workers: Vec<_> = (0..3)
        .map(|worker| {
            let (database, told) = (database.clone(), told.clone());
            std::thread::spawn(move || {
                let local = tokio::task::LocalSet::new();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                local.block_on(&runtime, async move {
                    let askers: Vec<_> = (0..ASKERS / 3)
                        .map(|n| tokio::task::spawn_local(ask(database.clone(), worker * 100 + n, told.clone())))
                        .collect();
                    for asker in askers {
                        asker.await.unwrap();
                    }
                });
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    assert!(told.load(Ordering::Relaxed) > statements() * ASKERS / 2, "too few have been answered");
    let stats = database.stats();
    assert_eq!((stats.waiting, stats.transactions, stats.streams), (0, 0, 0), "{stats:?}");
    // Nothing is left open behind: the file can be changed as a whole.
    wait(done(&database, "vacuum"));
}

async fn ask(database: Database, asker: u64, told: Arc<AtomicU64>) {
    let mut random = asker * 7919 + 17;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let cached = Sql::read("select ? as asker, ? as n", database.dialect()).unwrap();
    let insert = "insert into t (asker, n) values (?, ?) returning asker, n";
    for n in 0..statements() {
        let id = [Value::Integer(asker as i64), Value::Integer(n as i64)];
        let ids = || id.iter().cloned().map(Argument::One).collect::<Vec<_>>();
        let check = |answer: &rover_data::Answer| {
            assert_eq!(answer.rows.get(0, 0), Datum::Integer(asker as i64));
            assert_eq!(answer.rows.get(0, 1), Datum::Integer(n as i64));
            told.fetch_add(1, Ordering::Relaxed);
        };
        match next(10) {
            0..=2 => check(&database.run(cached.with(ids()).unwrap()).await.unwrap()),
            3 => check(&run(&database, &format!("select ?, ? /* {asker} {n} */"), &id).await.unwrap()),
            4 | 5 => check(&run(&database, insert, &id).await.unwrap()),
            6 => {
                let wrong = format!("select no_{asker}_{n}");
                let error = run(&database, &wrong, &[]).await.unwrap_err();
                assert!(error.message().contains(&format!("no_{asker}_{n}")), "{error}");
                assert_eq!(error.sql(), Some(wrong.as_str()));
                told.fetch_add(1, Ordering::Relaxed);
            }
            7 => {
                let pause = Duration::from_micros(next(800));
                let asked = run(&database, if next(2) == 0 { insert } else { LONG }, &id);
                if let Ok(Ok(answer)) = tokio::time::timeout(pause, asked).await
                    && answer.rows.columns().len() == 2
                {
                    check(&answer);
                }
            }
            8 => {
                let result = run(&database, LONG, &id).await;
                assert_eq!(outage(&result), Some(Outage::TimedOut), "{result:?}");
                told.fetch_add(1, Ordering::Relaxed);
            }
            _ => {
                let pause = Duration::from_micros(next(3000));
                let whole = async {
                    let tx = database.begin(Begin { read_only: next(3) == 0 }).await?;
                    let answer = tx.run(cached.with(ids()).unwrap()).await?;
                    tx.commit().await?;
                    Ok::<_, rover_data::Error>(answer)
                };
                if let Ok(answer) = tokio::time::timeout(pause, whole).await {
                    check(&answer.unwrap());
                }
            }
        }
    }
}

/// Takes a second and more.
const LONG: &str = "with recursive c (n) as (select ? union all select n + 1 from c where n < 100000000)
    select count(*), ? from c";

#[test]
fn a_cancelled_statement_ends_soon_and_no_other_with_it() {
    let (_folder, database) = file(|settings| settings.statement_timeout = None);
    wait(async {
        for _ in 0..20 {
            let long = run(&database, LONG, &[Value::Integer(0), Value::Null]);
            assert!(tokio::time::timeout(Duration::from_millis(5), long).await.is_err());
            for n in 0..5 {
                let answer = run(&database, "select ?", &[Value::Integer(n)]).await.unwrap();
                assert_eq!(answer.rows.get(0, 0), Datum::Integer(n));
            }
        }
    });
    until("what was cancelled has ended", || database.stats().busy == 0);
}

#[test]
fn what_is_cancelled_while_it_waits_never_runs() {
    let (_folder, database) = file(|_| {});
    wait(async {
        done(&database, "create table t (a)").await;
        let tx = database.begin(Begin::default()).await.unwrap();
        for _ in 0..50 {
            let insert = run(&database, "insert into t values (1)", &[]);
            assert!(tokio::time::timeout(Duration::from_millis(1), insert).await.is_err());
        }
        assert_eq!(database.stats().waiting, 0, "the queue keeps what nobody waits for");
        tx.commit().await.unwrap();
        assert_eq!(value(&database, "select count(*) from t").await, "0");
    });
}

/// A transaction whose owner goes at any moment leaves nothing behind but what was committed.
#[test]
fn a_transaction_that_is_dropped_anywhere_is_whole_or_gone() {
    let (_folder, database) = file(|_| {});
    wait(async {
        done(&database, "create table pair (n integer primary key, half text not null, of integer not null)").await;
        for n in 0..300_u64 {
            let half = |half: &str| {
                let sql = "insert into pair (half, of) values (?, ?)";
                statement(&database, sql, &[Value::text(half), Value::Integer(n as i64)])
            };
            let whole = async {
                let tx = database.begin(Begin::default()).await?;
                tx.run(half("one")).await?;
                tx.run(half("other")).await?;
                tx.commit().await
            };
            let _ = tokio::time::timeout(Duration::from_micros(n * 7 % 900), whole).await;
            let odd =
                value(&database, "select count(*) from (select of from pair group by of having count(*) <> 2)").await;
            assert_eq!(odd, "0", "after transaction {n}");
        }
        assert_eq!(database.stats().transactions, 0);
    });
}

#[test]
fn a_commit_that_was_sent_is_finished() {
    let (_folder, database) = file(|_| {});
    wait(async {
        done(&database, "create table t (a)").await;
        for n in 1..=20 {
            let tx = database.begin(Begin::default()).await.unwrap();
            tx.run(statement(&database, "insert into t values (1)", &[])).await.unwrap();
            let commit = tx.commit();
            // Polled once, and never again.
            let mut commit = Box::pin(commit);
            std::future::poll_fn(|context| {
                let _ = commit.as_mut().poll(context);
                std::task::Poll::Ready(())
            })
            .await;
            drop(commit);
            let tx = database.begin(Begin::default()).await.unwrap();
            let count = tx.run(statement(&database, "select count(*) from t", &[])).await.unwrap();
            assert_eq!(first(&count), n.to_string());
        }
    });
}

#[test]
fn many_writers_are_committed_together_and_none_is_busy() {
    let (_folder, database) = file(|settings| settings.synchronous = rover_data::Synchronous::Full);
    wait(async {
        done(&database, "create table t (a unique)").await;
        let before = database.stats();
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let writers: Vec<_> = (0..64)
                    .map(|writer| {
                        let database = database.clone();
                        tokio::task::spawn_local(async move {
                            for n in 0..20 {
                                // Every tenth is refused, which costs the others nothing.
                                let value = if n % 10 == 9 { 0 } else { writer * 1000 + n };
                                let result = run(&database, "insert into t values (?)", &[Value::Integer(value)]).await;
                                assert_eq!(
                                    result.is_err(),
                                    n % 10 == 9 || (writer == 0 && value == 0 && n > 0),
                                    "{result:?}"
                                );
                            }
                        })
                    })
                    .collect();
                for writer in writers {
                    writer.await.unwrap();
                }
            })
            .await;
        let after = database.stats();
        assert_eq!(value(&database, "select count(*) from t").await, (64 * 18).to_string());
        assert!(after.commits - before.commits < 64 * 18 / 2, "{} commits", after.commits - before.commits);
    });
}

/// A write that takes the whole transaction with it costs those beside it nothing.
#[test]
fn those_beside_a_rollback_are_not_lost() {
    let (_folder, database) = file(|_| {});
    wait(async {
        done(&database, "create table t (a unique on conflict rollback)").await;
        done(&database, "create table parent (id integer primary key)").await;
        done(&database, "create table late (p references parent (id) deferrable initially deferred)").await;
        let tx = database.begin(Begin::default()).await.unwrap();
        let writes = (0..30).map(|n| {
            let (sql, value) = match n % 3 {
                0 => ("insert into t values (?)", n),
                1 => ("insert into t values (?)", 0),
                _ => ("insert into late values (?)", n),
            };
            let statement = statement(&database, sql, &[Value::Integer(n.min(value))]);
            let database = database.clone();
            async move { database.run(statement).await }
        });
        let local = tokio::task::LocalSet::new();
        let results = local
            .run_until(async {
                let tasks: Vec<_> = writes.map(tokio::task::spawn_local).collect();
                tokio::task::yield_now().await;
                until("they wait", || database.stats().waiting == 30);
                tx.commit().await.unwrap();
                let mut results = Vec::new();
                for task in tasks {
                    results.push(task.await.unwrap());
                }
                results
            })
            .await;
        for (n, result) in results.iter().enumerate() {
            assert_eq!(result.is_ok(), n % 3 == 0, "{n}: {result:?}");
        }
        assert_eq!(value(&database, "select count(*) from t").await, "10");
        assert_eq!(value(&database, "select count(*) from late").await, "0");
    });
}
