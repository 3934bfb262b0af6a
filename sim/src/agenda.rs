//! What will happen, and the clock that jumps from one happening to the next.

use std::time::Duration;

use super::World;
use super::happening::{Happening, Power};
use fyrd_core::node::Input;
use fyrd_core::time::Time;

impl World {
    /// Lets time pass.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass until `done` holds, which is looked at every 50 ms; `false` if it does not
    /// within `limit`.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&World) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            if done(self) {
                return true;
            }
            if self.now >= end {
                return false;
            }
            self.run_for(Duration::from_millis(50));
        }
    }

    /// Takes the next thing that happens up to `end`; `false` if there is none.
    fn step(&mut self, end: Time) -> bool {
        let Some(at) = self.agenda.next().filter(|&at| at <= end) else {
            return false;
        };
        let Some(happening) = self.agenda.pop_due(at) else {
            return false;
        };
        self.now = at;
        match happening {
            Happening::Arrive(id, arrival) => self.arrive(id, arrival),
            Happening::Disk(id) => self.work_disk(id),
            Happening::Finished(id) => self.finish_reading(id),
            Happening::Wake(id) => {
                // A wake-up that was overtaken by an earlier one means nothing any more.
                if self.hosts[id.0].wake_at == Some(at) {
                    self.hosts[id.0].wake_at = None;
                    if self.hosts[id.0].power == Power::Up {
                        self.input(id, Input::Tick);
                    }
                }
            }
        }
        true
    }
}
