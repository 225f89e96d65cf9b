//! Holds spans that wait to be sent: bytes, in batches, up to a limit.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use tokio::sync::Notify;

use super::{figures, wire};

/// The most spans in one request to the collector, as the specification of the batch processor has it.
const BATCH: usize = 512;

/// The field of a `ScopeSpans` that holds a span.
const SPAN: u32 = 2;

/// Spans that go out together, each as a field of a `ScopeSpans`.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) spans: usize,
}

/// The queue of one version of the app in a worker.
pub(super) struct SpanQueue {
    /// Batches that are full.
    full: RefCell<VecDeque<Batch>>,
    filling: RefCell<Batch>,
    /// The buffer into which a span is written first, because its length comes before it.
    scratch: RefCell<Vec<u8>>,
    /// How many spans wait.
    waiting: Cell<usize>,
    limit: usize,
    batch: usize,
    /// Told when a batch is full.
    pub(super) is_full: Notify,
}

impl SpanQueue {
    /// For up to `limit` spans.
    pub(super) fn new(limit: usize) -> SpanQueue {
        SpanQueue {
            full: RefCell::default(),
            filling: RefCell::default(),
            scratch: RefCell::default(),
            waiting: Cell::new(0),
            limit,
            batch: limit.min(BATCH),
            is_full: Notify::new(),
        }
    }

    /// Takes the span that `write` writes, where there is room.
    pub(super) fn push(&self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.waiting.get() >= self.limit {
            return figures::count_dropped(1);
        }
        let (Ok(mut filling), Ok(mut scratch)) = (self.filling.try_borrow_mut(), self.scratch.try_borrow_mut()) else {
            return;
        };
        scratch.clear();
        write(&mut scratch);
        wire::bytes(&mut filling.bytes, SPAN, &scratch);
        filling.spans += 1;
        self.waiting.set(self.waiting.get() + 1);
        if filling.spans >= self.batch {
            let room = filling.bytes.len();
            let next = Batch { bytes: Vec::with_capacity(room), spans: 0 };
            self.full.borrow_mut().push_back(std::mem::replace(&mut *filling, next));
            self.is_full.notify_one();
        }
    }

    /// The next batch: the oldest that is full, else what there is.
    pub(super) fn take(&self) -> Option<Batch> {
        let batch = self.full.borrow_mut().pop_front().or_else(|| {
            let filling = self.filling.take();
            (filling.spans > 0).then_some(filling)
        })?;
        self.waiting.set(self.waiting.get() - batch.spans);
        Some(batch)
    }

    /// Whether a batch is full.
    pub(super) fn has_full(&self) -> bool {
        !self.full.borrow().is_empty()
    }
}

/// What was not taken is lost.
impl Drop for SpanQueue {
    fn drop(&mut self) {
        figures::count_dropped(self.waiting.get() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_and_so_is_the_queue() {
        let queue = SpanQueue::new(1200);
        for _ in 0..1300 {
            queue.push(|out| out.push(7));
        }
        let sizes: Vec<usize> = std::iter::from_fn(|| queue.take()).map(|batch| batch.spans).collect();
        assert_eq!(sizes, [512, 512, 176]);
        queue.push(|out| out.extend([8, 9]));
        let batch = queue.take().unwrap();
        assert_eq!((batch.spans, &batch.bytes[..]), (1, &[SPAN as u8 * 8 + 2, 2, 8, 9][..]));
        assert!(queue.take().is_none());
    }

    #[test]
    fn a_small_queue_has_small_batches() {
        let queue = SpanQueue::new(2);
        for _ in 0..3 {
            queue.push(|_| {});
        }
        assert!(queue.has_full());
        assert_eq!(queue.take().map(|batch| batch.spans), Some(2));
        assert!(!queue.has_full());
    }
}
