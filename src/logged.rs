//! What a test's thread logs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::field::Field;
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Counts the lines that this thread logs from now on, until it is dropped.
pub(crate) struct Lines {
    count: Arc<AtomicUsize>,
    _guard: DefaultGuard,
    _other: Dispatch,
}

impl Lines {
    /// Those that hold this text.
    pub fn with(text: &'static str) -> Lines {
        // With one subscriber alone, whether a line is wanted would be decided for good by the first thread
        // that comes upon it, which may be another test's.
        let other = Dispatch::new(tracing_subscriber::registry());
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Counter(text, Arc::clone(&count));
        Lines {
            count,
            _guard: tracing::subscriber::set_default(tracing_subscriber::registry().with(counter)),
            _other: other,
        }
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

struct Counter(&'static str, Arc<AtomicUsize>);

impl<S: Subscriber> Layer<S> for Counter {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut |_: &Field, value: &dyn std::fmt::Debug| {
            let counts = format!("{value:?}").contains(self.0);
            self.1.fetch_add(usize::from(counts), Ordering::Relaxed);
        });
    }
}
