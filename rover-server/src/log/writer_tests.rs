//! The hand-over under pressure: several threads, a stuck sink, a failing sink.

use std::sync::mpsc;

use super::*;

/// A sink that a test can hold up or break.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    writes: usize,
    fails: bool,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.fails {
            return Err(ErrorKind::StorageFull.into());
        }
        state.writes += 1;
        state.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().bytes.clone()).unwrap()
    }
}

const LONG: Duration = Duration::from_secs(20);

fn start() -> (Output, LogWriter) {
    let output = Output::default();
    let writer = LogWriter::start(output.clone(), Form::Json).unwrap();
    (output, writer)
}

fn say(lane: &Lane, text: &str) {
    lane.append(false, |out| {
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    });
}

fn wait_for(what: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !what() {
        assert!(Instant::now() < end, "nothing came");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn lines_of_several_threads_all_come_out_in_each_thread_s_order() {
    let (output, writer) = start();
    thread::scope(|scope| {
        for id in 0..4 {
            let lane = writer.lane();
            scope.spawn(move || {
                for number in 0..1000 {
                    say(&lane, &format!("{id} {number}"));
                }
            });
        }
    });
    writer.flush(LONG);
    let text = output.text();
    for id in ["0", "1", "2", "3"] {
        let numbers: Vec<usize> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(who, _)| *who == id)
            .map(|(_, number)| number.parse().unwrap())
            .collect();
        assert!(numbers.iter().copied().eq(0..1000), "thread {id}");
    }
    assert!(output.0.lock().writes < 400, "lines share system calls");
}

#[test]
fn a_line_comes_out_by_itself() {
    let (output, writer) = start();
    let lane = writer.lane();
    say(&lane, "ordinary");
    wait_for(|| output.text() == "ordinary\n");
    lane.append(true, |out| out.extend_from_slice(b"urgent\n"));
    wait_for(|| output.text().ends_with("urgent\n"));
}

#[test]
fn a_stuck_output_blocks_nobody_and_the_loss_is_reported() {
    let (output, writer) = start();
    let lane = writer.lane();
    let stuck = output.0.lock();
    let line = "x".repeat(1023);
    let started = Instant::now();
    for _ in 0..5000 {
        say(&lane, &line);
    }
    lane.append(true, |out| out.extend_from_slice(b"an error\n"));
    writer.flush(Duration::from_millis(10));
    assert!(started.elapsed() < LONG);
    drop(stuck);
    writer.flush(LONG);
    let text = output.text();
    let kept = text.lines().filter(|text| **text == *line).count();
    assert!((ORDINARY_LIMIT / 1024..5000).contains(&kept), "{kept}");
    assert!(text.contains("an error\n"), "room is kept for errors");
    // A writer that came late reports twice: for what it missed before it was stuck, and for the rest.
    let reports = text.lines().filter_map(|line| line.split_once("\"lost\":"));
    let lost: usize = reports.map(|(_, count)| count.trim_end_matches('}').parse::<usize>().unwrap()).sum();
    assert_eq!(lost, 5000 - kept);
}

#[test]
fn a_failing_output_is_reported_when_it_works_again() {
    let (output, writer) = start();
    let lane = writer.lane();
    output.0.lock().fails = true;
    say(&lane, "one");
    say(&lane, "two");
    writer.flush(LONG);
    output.0.lock().fails = false;
    say(&lane, "three");
    writer.flush(LONG);
    let text = output.text();
    assert!(text.starts_with("three\n"), "{text}");
    assert!(text.contains("\"lost\":2"), "{text}");
}

#[test]
fn a_line_cut_by_an_error_does_not_spoil_the_next() {
    struct Half(Vec<u8>, usize);
    impl Write for Half {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.1);
            self.1 -= count;
            self.0.extend_from_slice(&bytes[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut sink = Sink::new(Half(Vec::new(), 7));
    let batch =
        |text: &str| PendingLines { bytes: text.as_bytes().to_vec(), lines: text.lines().count() as u64, dropped: 0 };
    sink.write(&mut batch("one\ntwo two\n"));
    assert_eq!((sink.lost, sink.works), (1, false));
    sink.inner.1 = 100;
    sink.write(&mut batch("three\n"));
    assert_eq!(sink.inner.0, b"one\ntwo\nthree\n");
}

#[test]
fn the_thread_ends_with_its_last_handle() {
    struct Tell(mpsc::Sender<()>);
    impl Write for Tell {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl Drop for Tell {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (sender, ended) = mpsc::channel();
    drop(LogWriter::start(Tell(sender), Form::Json).unwrap());
    ended.recv_timeout(LONG).unwrap();
}
