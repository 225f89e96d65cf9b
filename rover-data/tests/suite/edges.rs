//! SQLite's edges: the right value, or a clear error.

use rover_data::{Argument, Datum, Sql, Value};

use crate::support::*;

#[test]
fn values_come_back_as_they_went() {
    let (_folder, database) = file(|_| {});
    let same: &[(Value, Datum<'_>)] = &[
        (Value::Null, Datum::Null),
        (Value::Bool(true), Datum::Integer(1)),
        (Value::Integer((1 << 53) - 1), Datum::Integer((1 << 53) - 1)),
        (Value::Integer(1 << 53), Datum::Integer(1 << 53)),
        (Value::Integer((1 << 53) + 1), Datum::Integer((1 << 53) + 1)),
        (Value::Integer(i64::MIN), Datum::Integer(i64::MIN)),
        (Value::Integer(i64::MAX), Datum::Integer(i64::MAX)),
        (Value::Real(0.1), Datum::Real(0.1)),
        (Value::Real(f64::INFINITY), Datum::Real(f64::INFINITY)),
        (Value::Real(5e-324), Datum::Real(5e-324)),
        (Value::Real(1e300), Datum::Real(1e300)),
        (Value::text(""), Datum::Text(b"")),
        (Value::text("a\0b"), Datum::Text(b"a\0b")),
        (Value::text("'; drop table t; --"), Datum::Text(b"'; drop table t; --")),
        (Value::text("h\u{e9}\u{1f600}"), Datum::Text("h\u{e9}\u{1f600}".as_bytes())),
        (Value::Text((*b"\xff\xfe").into()), Datum::Text(b"\xff\xfe")),
        (Value::Blob((*b"").into()), Datum::Blob(b"")),
        (Value::Blob((*b"\0\0\x01\0").into()), Datum::Blob(b"\0\0\x01\0")),
    ];
    wait(async {
        done(&database, "create table v (id integer primary key, a)").await;
        for (value, expected) in same {
            let answer =
                run(&database, "insert into v (a) values (?) returning a", std::slice::from_ref(value)).await.unwrap();
            assert_eq!(answer.rows.get(0, 0), *expected, "{value:?}");
        }
        let answer = done(&database, "select a from v order by id").await;
        for (n, (value, expected)) in same.iter().enumerate() {
            assert_eq!(answer.rows.get(n, 0), *expected, "{value:?}");
        }
        let nan = run(&database, "select ?", &[Value::Real(f64::NAN)]).await;
        assert!(is_mistake(&nan) && nan.unwrap_err().message().contains("NaN"));
        let large = Value::Blob(vec![7; 8 << 20].into());
        let answer = run(&database, "select ?, length(?)", &[large.clone(), large]).await.unwrap();
        assert_eq!(answer.rows.get(0, 1), Datum::Integer(8 << 20));
        assert!(matches!(answer.rows.get(0, 0), Datum::Blob(bytes) if bytes.len() == 8 << 20));
    });
}

/// What a statement says, or why it cannot.
#[test]
fn statements_at_the_edges() {
    let table: &[(&str, &str)] = &[
        // Declared types.
        ("select b, j, d from kinds", "Bool(true) {\"a\":[1]} 2026-01-31"),
        ("select b from kinds where b", "Bool(true)"),
        ("select b + 0 from kinds", "1"),
        ("select typeof(r), r from kinds", "real 3.0"),
        ("select dec from kinds", "1.5"),
        // STRICT tables.
        ("insert into strict_one values ('x')", "invalid value"),
        ("insert into strict_one values ('12')", "ok"),
        ("insert into strict_one values (1.5)", "invalid value"),
        ("insert into keyed values ('x')", "invalid value"),
        // Generated columns, RETURNING.
        ("insert into made (a) values (20) returning twice, a", "40 20"),
        ("insert into made (a, twice) values (1, 2)", "mistake"),
        ("update made set a = 21 returning twice", "42"),
        ("delete from made returning a", "21"),
        ("insert into made (a) values (1), (2) returning a", "1"),
        // JSON.
        ("select json_extract('{\"a\":{\"b\":[1,2]}}', '$.a.b[1]')", "2"),
        ("select '{\"a\":\"x\"}' ->> 'a'", "x"),
        ("select json_group_array(value) from json_each('[1,2,3]')", "[1,2,3]"),
        ("select json('{')", "mistake"),
        // Arithmetic.
        ("select 9223372036854775807 + 1", "9.223372036854776e18"),
        ("select abs(-9223372036854775808)", "mistake"),
        ("select 1 / 0", "Null"),
        ("select 9e999", "inf"),
        // A misspelt name is no string.
        ("delete from keyed where \"nmae\" = 'nmae'", "mistake"),
        ("select \"text\"", "mistake"),
        // Shared state.
        ("attach ':memory:' as other", "mistake"),
        ("pragma foreign_keys = off", "mistake"),
        ("pragma query_only = off", "mistake"),
        ("pragma foreign_keys", "1"),
        ("pragma user_version = 7", "ok"),
        ("pragma user_version", "7"),
        ("pragma journal_mode", "wal"),
        ("select name from pragma_table_info('keyed')", "k"),
        ("pragma table_info(keyed)", "0 k INTEGER 0 Null 1"),
        ("vacuum", "ok"),
        ("analyze", "ok"),
        ("explain query plan select 1", "1 0 0 SCAN CONSTANT ROW"),
        ("create trigger tr after insert on keyed begin select 1; select raise(abort, 'no'); end", "ok"),
        ("insert into keyed values (1)", "trigger violation"),
        ("insert into keyed values (1); select 1", "mistake"),
        ("select load_extension('x')", "mistake"),
        ("values (1)", "1"),
        ("with a as (select 5 as x) select x from a", "5"),
        ("with a as (select 8 as x) insert into made (a) select x from a returning a", "8"),
        ("", "mistake"),
        ("-- nothing", "mistake"),
    ];
    let (_folder, database) = file(|_| {});
    wait(async {
        for sql in [
            "create table kinds (b boolean, j json, d date, r real, dec decimal(10, 2))",
            "insert into kinds values (true, '{\"a\":[1]}', '2026-01-31', 3, 1.5)",
            "create table strict_one (a integer) strict",
            "create table keyed (k integer primary key)",
            "create table made (a integer, twice integer generated always as (a * 2))",
        ] {
            done(&database, sql).await;
        }
        for (text, expected) in table {
            let result = match Sql::read(text, database.dialect()).and_then(|sql| sql.with(vec![])) {
                Ok(statement) => database.run(statement).await,
                Err(error) => Err(error),
            };
            let told = match &result {
                Ok(answer) if answer.rows.is_empty() => "ok".to_owned(),
                Ok(answer) => answer.rows.row(0).map(shown).collect::<Vec<_>>().join(" "),
                Err(error) => match error.class() {
                    rover_data::Class::Mistake => "mistake".to_owned(),
                    rover_data::Class::Violation(violation) => violation.as_str().to_owned(),
                    rover_data::Class::Unavailable(outage) => format!("{outage:?}"),
                },
            };
            assert_eq!(told, *expected, "{text}: {result:?}");
        }
    });
}

#[test]
fn wide_and_long_statements() {
    let (_folder, database) = file(|_| {});
    let list = |n: usize, part: &str| vec![part; n].join(",");
    wait(async {
        let answer = done(&database, &format!("select {}", list(2000, "1"))).await;
        assert_eq!((answer.rows.columns().len(), answer.rows.get(0, 1999)), (2000, Datum::Integer(1)));
        assert!(is_mistake(&run(&database, &format!("select {}", list(2001, "1")), &[]).await));
        let long = format!("select 1 /*{}*/", "x".repeat(1 << 20));
        assert_eq!(value(&database, &long).await, "1");
        let long = format!("select length('{}')", "y".repeat(1 << 20));
        assert_eq!(value(&database, &long).await, (1 << 20).to_string());
        let values = vec![Value::Integer(1); 32_766];
        let sum = |n: usize| format!("select count(*) from (values {})", list(n, "(?)"));
        assert_eq!(first(&run(&database, &sum(32_766), &values).await.unwrap()), "32766");
        let sql = Sql::read(&sum(32_767), database.dialect()).unwrap();
        let statement = sql.with(vec![Argument::One(Value::Null); 32_767]).unwrap();
        assert!(is_mistake(&database.run(statement).await));
        let deep = format!("select {}1{}", "abs(".repeat(2000), ")".repeat(2000));
        assert!(is_mistake(&run(&database, &deep, &[]).await));
        // Many texts, each once: the statements that are kept are bounded.
        for n in 0..1000 {
            assert_eq!(value(&database, &format!("select {n}")).await, n.to_string());
        }
    });
}
