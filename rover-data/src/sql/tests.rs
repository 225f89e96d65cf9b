//! The reader of placeholders, beside SQLite's own.

use proptest::prelude::*;
use rusqlite::Connection;

use super::*;

fn read(text: &str) -> Arc<Sql> {
    Sql::read(text, Dialect::Sqlite).unwrap()
}

fn refused(text: &str) -> (String, Option<usize>) {
    let error = Sql::read(text, Dialect::Sqlite).unwrap_err();
    (error.message().to_owned(), error.offset())
}

fn one(n: i64) -> Argument {
    Argument::One(Value::Integer(n))
}

fn list(n: i64) -> Argument {
    Argument::List((0..n).map(Value::Integer).collect())
}

#[test]
fn what_looks_like_a_placeholder_is_none() {
    for text in [
        "select '?', ':a', '$1', 'it''s ?'",
        "select 1 as \"?\", 2 as \"a\"\":b\", 3 as `?`, 4 as [:a]",
        "select 1 -- ? :a\n",
        "select /* ? ' */ 1",
        "select 1 as a$1",
        "select 1 /* ?",
        "select 1 -- ?",
        "select x'3f'",
    ] {
        assert_eq!(read(text).count(), 0, "{text}");
        assert_eq!(&*read(text).plain, text);
    }
}

#[test]
fn each_style_becomes_what_the_engine_knows() {
    let text = "select ?, '?' , ?";
    assert_eq!(read(text).with(vec![one(1), one(2)]).unwrap().text(), text);
    let names = read("select :a, :b, :a /* :c */");
    assert_eq!(names.names(), ["a".into(), "b".into()]);
    let statement = names.with_names(|name| Ok(Some(one(if name == "a" { 1 } else { 2 })))).unwrap();
    assert_eq!(statement.text(), "select ?1, ?2, ?1 /* :c */");
    assert_eq!(statement.values(), [Value::Integer(1), Value::Integer(2)]);
    assert_eq!(read("select $2, $1").with(vec![one(1), one(2)]).unwrap().text(), "select ?2, ?1");
    let of_postgres = |text: &str, n: i64| {
        let sql = Sql::read(text, Dialect::Postgres).unwrap();
        sql.with((0..n).map(one).collect()).unwrap().text().to_owned()
    };
    assert_eq!(of_postgres("select a::int, ? from t where j ?? 'k' and b = ?", 2), {
        "select a::int, $1 from t where j ? 'k' and b = $2"
    });
    assert_eq!(of_postgres("select $$ ? $$, $a$ $$ ? $a$, e'\\'?', ?", 1), "select $$ ? $$, $a$ $$ ? $a$, e'\\'?', $1");
    assert_eq!(of_postgres("select /* a /* ? */ ? */ ?, a[1:2]", 1), "select /* a /* ? */ ? */ $1, a[1:2]");
}

#[test]
fn lists_stand_for_the_placeholder_of_in() {
    let sql = read("select 1 where a = ? and b in ( ? ) and c = ?");
    let filled = |n| sql.with(vec![one(7), list(n), one(8)]).unwrap();
    assert_eq!(filled(0).text(), "select 1 where a = ?1 and b in (  ) and c = ?2");
    assert_eq!(filled(1).text(), "select 1 where a = ?1 and b in ( ?2 ) and c = ?3");
    assert_eq!(filled(3).text(), "select 1 where a = ?1 and b in ( ?2,?3,?4,?5 ) and c = ?6");
    let values: Vec<Value> = [7, 0, 1, 2, 2, 8].map(Value::Integer).into();
    assert_eq!(filled(3).values(), values);
    let rendered = filled(3).text().find(") and c").unwrap();
    assert_eq!(filled(3).original_offset(rendered), sql.source().find(") and c").unwrap());
    let names = read("select 1 where a in (:a) or b in (:a)");
    let statement = names.with_names(|_| Ok(Some(list(2)))).unwrap();
    assert_eq!(statement.text(), "select 1 where a in (?1,?2) or b in (?1,?2)");
    for text in ["select ?", "select (?)", "select max(?)", "select 1 where a in (?, 1)", "select 1 where a in (1, ?)"]
    {
        let error = read(text).with(vec![list(2)]).unwrap_err();
        assert!(error.message().contains("in (?)"), "{text}: {error}");
        assert_eq!(error.offset(), text.find('?'));
    }
    assert!(sql.with(vec![one(1), list(40_000), one(2)]).is_err());
    assert_eq!(sql.with(vec![one(1), list(30_000), one(2)]).unwrap().values().len(), 30_002);
}

#[test]
fn mistakes_are_told_with_their_place() {
    assert_eq!(refused("select ?, :a").1, Some(10));
    assert_eq!(refused("select ?1").1, Some(7));
    assert_eq!(refused("select @a").1, Some(7));
    assert_eq!(refused("select a ?? b").1, Some(9));
    assert_eq!(refused("select 1; select 2").1, Some(10));
    assert_eq!(refused(" -- nothing\n ;").0, "the SQL text is empty");
    assert_eq!(refused("select 1\0").1, Some(8));
    assert!(read("select 1 ; -- the end\n;").count() == 0);
    let count = |n: i64| read("select ?").with((0..n).map(one).collect()).map(|_| ()).map_err(|e| e.to_string());
    assert_eq!(count(0), Err("the statement needs 1 value, not 0".to_owned()));
    assert_eq!(count(2), Err("the statement needs 1 value, not 2".to_owned()));
    let missing = read("select :a").with_names(|_| Ok(None)).unwrap_err();
    assert_eq!(missing.message(), "there is no value for :a");
    assert!(read("select :a").with(vec![one(1)]).is_err());
    assert!(read("select ?").with_names(|_| Ok(Some(one(1)))).is_err());
}

/// A value of a list of columns, and how many placeholders are in it.
fn piece() -> impl Strategy<Value = (String, usize)> {
    let inside = "[ -~\n\t]{0,12}";
    prop_oneof![
        inside.prop_map(|text| (format!("'{}'", text.replace('\'', "''")), 0)),
        inside.prop_map(|text| (format!("1 as \"{}\"", text.replace('"', "\"\"")), 0)),
        inside.prop_map(|text| (format!("1 as `{}`", text.replace('`', "``")), 0)),
        inside.prop_map(|text| (format!("1 as [{}]", text.replace(']', "")), 0)),
        inside.prop_map(|text| (format!("1 /*{}*/", text.replace("*/", "").trim_end_matches('*')), 0)),
        inside.prop_map(|text| (format!("1 --{}\n", text.replace('\n', "")), 0)),
        "[a-z_][a-z0-9_$]{0,6}".prop_map(|name| (format!("1 as x_{name}"), 0)),
        Just(("?".to_owned(), 1)),
        Just(("-?".to_owned(), 1)),
        Just(("(?)".to_owned(), 1)),
        Just(("?/?".to_owned(), 2)),
        Just(("1 in(?)".to_owned(), 1)),
        Just(("'a'||?".to_owned(), 1)),
        Just(("x'3f3a'".to_owned(), 0)),
        Just(("1.5e3".to_owned(), 0)),
        Just(("'{\"a\":1}'->>'a'".to_owned(), 0)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// SQLite finds as many placeholders as the reader, in whatever surrounds them.
    #[test]
    fn sqlite_finds_the_same_placeholders(pieces in prop::collection::vec(piece(), 1..12)) {
        let connection = Connection::open_in_memory().unwrap();
        let parts: Vec<&str> = pieces.iter().map(|(text, _)| text.as_str()).collect();
        let text = format!("select {}", parts.join(" , "));
        let expected: usize = pieces.iter().map(|(_, count)| count).sum();
        let sql = read(&text);
        prop_assert_eq!(sql.count(), expected, "{}", text);
        let statement = sql.with((0..expected as i64).map(one).collect()).unwrap();
        let prepared = connection.prepare(statement.text());
        prop_assert_eq!(prepared.map(|prepared| prepared.parameter_count()).map_err(|e| e.to_string()), Ok(expected), "{}", text);
    }

    /// Whatever the text, SQLite never finds a placeholder that was not read, nor the other way round.
    #[test]
    fn any_text_is_read_as_sqlite_reads_it(text in "(select )?[-?:$@#a1 '\"`\\[\\]/*;,()\n]{0,40}") {
        let connection = Connection::open_in_memory().unwrap();
        if let Ok(sql) = Sql::read(&text, Dialect::Sqlite) {
            // Text that SQLite does not take at all says nothing of its placeholders.
            if let Ok(prepared) = connection.prepare(&sql.plain) {
                prop_assert_eq!(prepared.parameter_count(), sql.count(), "{}", text);
            }
        }
    }

    /// No text makes the reader panic, and what it makes of it without placeholders is the text itself.
    #[test]
    fn no_text_is_too_much(text in "\\PC{0,60}") {
        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
            if let Ok(sql) = Sql::read(&text, dialect) {
                for offset in 0..text.len() + 3 {
                    prop_assert!(sql.original_offset(offset, None) <= text.len());
                }
            }
        }
    }
}
