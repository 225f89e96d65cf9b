//! What every engine keeps.

use std::time::Duration;

use rover_data::{Argument, Begin, Class, Database, Datum, Sql, Value, Violation};

use crate::support::*;

async fn table(database: &Database, key: &str) {
    done(database, &format!("create table t (id {key}, name text not null unique, n integer check (n >= 0))")).await;
}

#[test]
fn rows_come_back_with_their_columns() {
    each(async |database, key| {
        table(&database, key).await;
        let sql = Sql::read("insert into t (name, n) values (?, ?)", database.dialect()).unwrap();
        for n in 1..=3 {
            let values = vec![Value::text(format!("n{n}")).into(), Value::Integer(n).into()];
            let answer = database.run(sql.with(values).unwrap()).await.unwrap();
            assert_eq!((answer.affected, answer.id), (1, Some(n)));
        }
        let sql =
            Sql::read("select name, n, null as none from t where id > ? order by id", database.dialect()).unwrap();
        let answer = database.run(sql.with(vec![Value::Integer(1).into()]).unwrap()).await.unwrap();
        let names: Vec<&str> = answer.rows.columns().iter().map(|column| &*column.name).collect();
        assert_eq!(names, ["name", "n", "none"]);
        assert_eq!(answer.rows.len(), 2);
        let row: Vec<Datum<'_>> = answer.rows.row(1).collect();
        assert_eq!(row, [Datum::Text(b"n3"), Datum::Integer(3), Datum::Null]);
        // Answers to one statement share their columns, those without rows too.
        let again = database.run(sql.with(vec![Value::Integer(9).into()]).unwrap()).await.unwrap();
        assert!(again.rows.is_empty());
        assert!(std::sync::Arc::ptr_eq(answer.rows.columns(), again.rows.columns()));
        let answer = done(&database, "update t set n = n + 1 where id < 3").await;
        assert_eq!((answer.affected, answer.id), (2, None));
        assert_eq!(done(&database, "delete from t").await.affected, 3);
        assert_eq!(done(&database, "delete from t").await.affected, 0);
    });
}

#[test]
fn a_changed_table_changes_the_columns() {
    each(async |database, key| {
        table(&database, key).await;
        done(&database, "insert into t (name) values ('a')").await;
        let sql = Sql::read("select * from t", database.dialect()).unwrap();
        let before = database.run(sql.with(vec![]).unwrap()).await.unwrap();
        done(&database, "alter table t add column more integer default 7").await;
        let after = database.run(sql.with(vec![]).unwrap()).await.unwrap();
        assert_eq!((before.rows.columns().len(), after.rows.columns().len()), (3, 4));
        assert_eq!(after.rows.get(0, 3), Datum::Integer(7));
    });
}

#[test]
fn what_values_break_is_told() {
    each(async |database, key| {
        table(&database, key).await;
        done(&database, "create table c (t_id integer references t (id))").await;
        done(&database, "insert into t (name) values ('a')").await;
        let unique = run(&database, "insert into t (name) values (?)", &[Value::text("a")]).await;
        assert_eq!(violation(&unique), Some(Violation::Unique));
        let error = unique.unwrap_err();
        assert_eq!((error.table(), error.columns()), (Some("t"), &["name".to_owned()][..]));
        assert!(error.code().is_some());
        let null = run(&database, "insert into t (name) values (?)", &[Value::Null]).await;
        assert_eq!(violation(&null), Some(Violation::NotNull));
        let check = run(&database, "insert into t (name, n) values ('b', -1)", &[]).await;
        assert_eq!(violation(&check), Some(Violation::Check));
        let foreign = run(&database, "insert into c values (99)", &[]).await;
        assert_eq!(violation(&foreign), Some(Violation::ForeignKey));
        done(&database, "insert into c values (1)").await;
        let foreign = run(&database, "delete from t", &[]).await;
        assert_eq!(violation(&foreign), Some(Violation::ForeignKey));
        assert_eq!(value(&database, "select count(*) from t").await, "1");
    });
}

#[test]
fn wrong_sql_is_told_with_its_place() {
    each(async |database, key| {
        table(&database, key).await;
        let error = run(&database, "select nme\nfrom t where id = ?", &[Value::Null]).await.unwrap_err();
        assert_eq!(error.class(), Class::Mistake);
        assert_eq!(error.offset(), Some(7));
        assert_eq!(error.picture().unwrap(), "select nme\n       ^");
        let sql = Sql::read("select 1 where 1 in (?) and nme = 1", database.dialect()).unwrap();
        let list = Argument::List(vec![Value::Integer(1); 3]);
        let error = database.run(sql.with(vec![list]).unwrap()).await.unwrap_err();
        assert_eq!(error.offset(), Some(28));
        for text in ["select 1 frm t", "insert into nowhere values (1)", "nonsense", "delete from t where"] {
            assert!(is_mistake(&run(&database, text, &[]).await), "{text}");
        }
        for text in ["begin", "commit", "rollback", "savepoint a", "release a"] {
            let result = run(&database, text, &[]).await;
            assert!(is_mistake(&result), "{text}: {result:?}");
            assert!(result.unwrap_err().message().contains("transaction(fn)"), "{text}");
        }
        assert_eq!(value(&database, "select 1").await, "1");
    });
}

#[test]
fn a_transaction_is_all_or_nothing() {
    each(async |database, key| {
        table(&database, key).await;
        let insert = |name: &str| statement(&database, "insert into t (name) values (?)", &[Value::text(name)]);
        let count = async || value(&database, "select count(*) from t").await;

        let tx = database.begin(Begin::default()).await.unwrap();
        tx.run(insert("a")).await.unwrap();
        assert_eq!(first(&tx.run(statement(&database, "select count(*) from t", &[])).await.unwrap()), "1");
        if database.settings().path.is_some() {
            assert_eq!(count().await, "0", "uncommitted rows are seen");
        }
        tx.commit().await.unwrap();
        assert_eq!(count().await, "1");

        let tx = database.begin(Begin::default()).await.unwrap();
        tx.run(insert("b")).await.unwrap();
        tx.roll_back().await.unwrap();
        assert_eq!(count().await, "1");

        let tx = database.begin(Begin::default()).await.unwrap();
        tx.run(insert("c")).await.unwrap();
        drop(tx);
        assert_eq!(count().await, "1");
        // The next one begins anew.
        let tx = database.begin(Begin::default()).await.unwrap();
        assert_eq!(first(&tx.run(statement(&database, "select count(*) from t", &[])).await.unwrap()), "1");
        drop(tx);
    });
}

#[test]
fn a_failed_statement_forbids_the_commit() {
    each(async |database, key| {
        table(&database, key).await;
        let insert = |name: &str| statement(&database, "insert into t (name) values (?)", &[Value::text(name)]);
        let tx = database.begin(Begin::default()).await.unwrap();
        tx.run(insert("a")).await.unwrap();
        assert_eq!(violation(&tx.run(insert("a")).await), Some(Violation::Unique));
        let next = tx.run(insert("b")).await;
        assert!(is_mistake(&next), "{next:?}");
        assert_eq!(violation(&tx.commit().await), Some(Violation::Unique));
        assert_eq!(value(&database, "select count(*) from t").await, "0");

        // Within a savepoint, what is around it goes on.
        let tx = database.begin(Begin::default()).await.unwrap();
        tx.run(insert("a")).await.unwrap();
        tx.save().await.unwrap();
        tx.run(insert("b")).await.unwrap();
        tx.save().await.unwrap();
        assert!(tx.run(insert("a")).await.is_err());
        assert!(tx.release().await.is_err());
        tx.roll_back_to().await.unwrap();
        tx.run(insert("c")).await.unwrap();
        tx.release().await.unwrap();
        tx.commit().await.unwrap();
        let names = done(&database, "select name from t order by name").await;
        assert_eq!(names.rows.len(), 3);
    });
}

#[test]
fn a_batch_is_all_or_nothing() {
    each(async |database, key| {
        table(&database, key).await;
        let insert = |name: &str| statement(&database, "insert into t (name) values (?)", &[Value::text(name)]);
        let count = |database: &Database| statement(database, "select count(*) from t", &[]);
        let answers = database.batch(vec![insert("a"), insert("b"), count(&database)]).await.unwrap();
        assert_eq!(first(&answers[2]), "2");
        let failed = database.batch(vec![insert("c"), insert("a")]).await;
        assert_eq!(violation(&failed), Some(Violation::Unique));
        let answers = database.batch(vec![count(&database), count(&database)]).await.unwrap();
        assert_eq!(answers.iter().map(first).collect::<Vec<_>>(), ["2", "2"]);
        assert!(database.batch(vec![]).await.unwrap().is_empty());
    });
}

#[test]
fn a_reading_transaction_sees_one_state() {
    each(async |database, key| {
        if database.settings().path.is_none() {
            return; // Its readers and its writer wait for each other.
        }
        table(&database, key).await;
        let count = || statement(&database, "select count(*) from t", &[]);
        let tx = database.begin(Begin { read_only: true }).await.unwrap();
        done(&database, "insert into t (name) values ('a')").await;
        assert_eq!(first(&tx.run(count()).await.unwrap()), "0");
        assert!(is_mistake(&tx.run(statement(&database, "delete from t", &[])).await));
        drop(tx);
        assert_eq!(value(&database, "select count(*) from t").await, "1");
    });
}

#[test]
fn streams_bring_rows_as_they_are_wanted() {
    const MANY: &str =
        "with recursive c (n) as (select 1 union all select n + 1 from c where n < 100000) select n from c";
    each(async |database, _| {
        let mut stream = database.stream(statement(&database, MANY, &[])).await.unwrap();
        let (mut sum, mut largest) = (0, 0);
        while let Some(rows) = stream.next().await.unwrap() {
            largest = largest.max(rows.size());
            for row in 0..rows.len() {
                if let Datum::Integer(n) = rows.get(row, 0) {
                    sum += n;
                }
            }
        }
        assert_eq!(sum, 100_000 * 100_001 / 2);
        assert!(largest < 128 << 10, "a portion of {largest} bytes");

        let mut stream = database.stream(statement(&database, MANY, &[])).await.unwrap();
        assert!(stream.next().await.unwrap().is_some());
        drop(stream);
        until("the stream has ended", || database.stats().streams == 0);

        let none = database.stream(statement(&database, "select 1 as a where false", &[])).await.unwrap();
        assert_eq!(&*none.columns()[0].name, "a");
        assert!(is_mistake(&database.stream(statement(&database, "select nme", &[])).await));
        assert!(is_mistake(&database.stream(statement(&database, "create table x (a)", &[])).await));
        let late = "with recursive c (n) as (select 1 union all select n + 1 from c where n < 99)
            select abs(case n when 99 then -9223372036854775808 else n end) from c";
        let mut stream = database.stream(statement(&database, late, &[])).await.unwrap();
        let failed = loop {
            match stream.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended as if nothing were wrong"),
                Err(error) => break error,
            }
        };
        assert_eq!(failed.class(), Class::Mistake);
    });
}

#[test]
fn an_answer_that_is_too_large_is_a_mistake() {
    let (_folder, database) = file(|settings| settings.answer_limit = 1 << 20);
    wait(async {
        let result = run(&database, "select randomblob(700000) union all select randomblob(700000)", &[]).await;
        assert!(is_mistake(&result));
        assert!(result.unwrap_err().message().contains("stream"));
        assert_eq!(value(&database, "select 1").await, "1");
    });
}

#[test]
fn what_is_counted_is_right() {
    each(async |database, key| {
        table(&database, key).await;
        let before = database.stats();
        done(&database, "insert into t (name) values ('a')").await;
        let _ = run(&database, "insert into t (name) values ('a')", &[]).await;
        done(&database, "select * from t").await;
        let after = database.stats();
        assert_eq!(after.statements - before.statements, 3);
        assert_eq!(after.errors - before.errors, 1);
        assert_eq!(after.commits - before.commits, 1);
        assert!(after.connections >= 1 && after.waiting == 0);
        let tx = database.begin(Begin::default()).await.unwrap();
        assert_eq!(database.stats().transactions, 1);
        tx.commit().await.unwrap();
        until("the transaction is counted out", || database.stats().transactions == 0);
    });
}

#[test]
fn slow_statements_are_told_with_their_plan() {
    let (_folder, database) = file(|settings| settings.slow = Some(Duration::ZERO));
    let (sender, told) = std::sync::mpsc::channel();
    database.tell_of_slow(move |slow| {
        let _ = sender.send((slow.sql.to_owned(), slow.place.map(str::to_owned), slow.plan.clone()));
    });
    wait(async {
        done(&database, "create table t (a)").await;
        let statement = statement(&database, "select * from t where a = ?", &[Value::Null]).at("app.lua:7");
        database.run(statement).await.unwrap();
    });
    let (sql, place, plan) = told.iter().nth(1).unwrap();
    assert_eq!((sql.as_str(), place.as_deref()), ("select * from t where a = ?", Some("app.lua:7")));
    assert!(plan.unwrap().contains("SCAN t"));
}
