//! What lines look like, byte for byte.

use std::time::Duration;

use super::*;

fn show(form: Form, worker: u32, event: &LogEvent<'_>) -> String {
    let stamp = Timestamp::fixed(Duration::from_millis(1_767_323_045_678), worker);
    let mut out = Vec::new();
    event.write(form, &stamp, &mut out);
    String::from_utf8(out).unwrap()
}

fn plain(event: &LogEvent<'_>) -> String {
    show(Form::Terminal(Colour::Off), 0, event)
}

#[test]
fn json_lines() {
    let event = LogEvent::new(Level::Warn, "a \"b\"\n\u{1b}[31m")
        .field("k", "v\n")
        .field("list", FieldValue::Json("[1,2]"))
        .field("n", 7)
        .field("msg", "x");
    assert_eq!(
        show(Form::Json, 3, &event),
        "{\"time\":\"2026-01-02T03:04:05.678Z\",\"level\":\"warn\",\"msg\":\"a \\\"b\\\"\\n\\u001b[31m\",\
         \"worker\":3,\"k\":\"v\\n\",\"list\":[1,2],\"n\":7,\"msg_\":\"x\"}\n"
    );
}

#[test]
fn a_taken_name_gets_one_that_is_free() {
    let event = LogEvent::new(Level::Info, "m").field("level", "a").field("level_", "b").field("level__", "c");
    let line = show(Form::Json, 0, &event);
    assert!(line.ends_with(",\"level___\":\"a\",\"level_\":\"b\",\"level__\":\"c\"}\n"), "{line}");
}

#[test]
fn terminal_lines() {
    let event = LogEvent::new(Level::Error, "it broke").field("path", "/x").field("why", "no reason");
    assert_eq!(plain(&event), "03:04:05 error it broke path=/x why=\"no reason\"\n");
    assert_eq!(
        show(Form::Terminal(Colour::On), 2, &LogEvent::new(Level::Info, "hi")),
        "03:04:05 \u{1b}[32minfo \u{1b}[0m hi\u{1b}[2m worker=2\u{1b}[0m\n"
    );
}

#[test]
fn nothing_steers_the_terminal() {
    let event = LogEvent::new(Level::Info, "a\u{1b}[2J\rb\u{9b}\u{202e}é").field("k", "x\ny\u{7}");
    assert_eq!(plain(&event), "03:04:05 info  a\\u{1b}[2J\\rb\\u{9b}\\u{202e}é k=x\\ny\\u{7}\n");
}

#[test]
fn tracebacks_keep_their_lines_and_are_indented() {
    let event = LogEvent::new(Level::Error, "boom\nstack traceback:\n\tapp.lua:3\n");
    assert_eq!(plain(&event), "03:04:05 error boom\n    stack traceback:\n    \tapp.lua:3\n");
}

#[test]
fn long_text_is_cut_between_characters() {
    let long = "é".repeat(LONGEST_TEXT);
    let line = plain(&LogEvent::new(Level::Info, &long));
    assert!(line.len() < LONGEST_TEXT + 100);
}
