//! Where the time goes: a table of phases, for who asks for it with `--timings`.
//!
//! In: work, under the name of its phase, from any thread. Out: for each phase the time from the first begin to the last end,
//! the processor time of all threads, and the rate of what went through it. Phases overlap. Off, nothing is measured.

use std::fmt::Write;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// The phases so far.
#[derive(Debug)]
pub struct Timings {
    start: Instant,
    /// In the order in which they began; none if nothing is measured.
    phases: Option<Mutex<Vec<Phase>>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Phase {
    name: &'static str,
    /// Since the start of all.
    begin: Duration,
    end: Duration,
    busy: Duration,
    bytes: u64,
}

impl Timings {
    /// Nothing yet. Off, nothing ever.
    pub fn new(on: bool) -> Self {
        Self { start: Instant::now(), phases: on.then(Mutex::default) }
    }

    /// Does a part of a phase in this thread.
    pub fn measure<T>(&self, name: &'static str, work: impl FnOnce() -> T) -> T {
        if self.phases.is_none() {
            return work();
        }
        let (begin, busy) = (self.start.elapsed(), processor_time());
        self.add(Phase { name, begin, end: begin, busy: Duration::ZERO, bytes: 0 });
        let done = work();
        let busy = processor_time().saturating_sub(busy);
        self.add(Phase { name, begin, end: self.start.elapsed(), busy, bytes: 0 });
        done
    }

    /// Notes that bytes went through a phase.
    pub fn moved(&self, name: &'static str, bytes: u64) {
        let now = self.start.elapsed();
        self.add(Phase { name, begin: now, end: now, busy: Duration::ZERO, bytes });
    }

    /// Reads as a part of a phase.
    pub fn reader<R: Read>(&self, name: &'static str, from: R) -> impl Read + use<'_, R> {
        Measured { timings: self, name, from }
    }

    fn add(&self, part: Phase) {
        let Some(phases) = &self.phases else { return };
        let mut phases = phases.lock().unwrap_or_else(PoisonError::into_inner);
        match phases.iter_mut().find(|phase| phase.name == part.name) {
            None => phases.push(part),
            Some(phase) => {
                phase.end = phase.end.max(part.end);
                phase.busy += part.busy;
                phase.bytes += part.bytes;
            }
        }
    }

    /// The phases as lines; none if nothing was measured.
    pub fn table(&self) -> Option<String> {
        let phases = self.phases.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        if phases.is_empty() {
            return None;
        }
        let mut table = format!("{:10} {:>8} {:>8} {:>8} {:>8}\n", "phase", "begin s", "wall s", "cpu s", "MB/s");
        for Phase { name, begin, end, busy, bytes } in phases.iter() {
            let (begin, wall, busy) =
                (begin.as_secs_f64(), end.saturating_sub(*begin).as_secs_f64(), busy.as_secs_f64());
            let _ = write!(table, "{name:10} {begin:8.3} {wall:8.3} {busy:8.3}"); // to a String
            #[allow(clippy::cast_precision_loss)] // it is shown
            let rate = *bytes as f64 / 1e6 / wall.max(1e-6);
            let _ = if *bytes > 0 { writeln!(table, " {rate:8.0}") } else { writeln!(table) };
        }
        Some(table)
    }
}

/// What this thread has had of a processor.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

struct Measured<'a, R> {
    timings: &'a Timings,
    name: &'static str,
    from: R,
}

impl<R: Read> Read for Measured<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.timings.measure(self.name, || self.from.read(buffer))?;
        self.timings.moved(self.name, n as u64);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_phase_are_added_up() {
        let timings = Timings::new(true);
        let part = |name, begin, end, busy, bytes| {
            let seconds = Duration::from_secs;
            timings.add(Phase { name, begin: seconds(begin), end: seconds(end), busy: seconds(busy), bytes });
        };
        part("fetch", 0, 2, 1, 3_000_000);
        part("write", 1, 2, 1, 0);
        part("fetch", 1, 3, 2, 3_000_000);
        let table = timings.table().unwrap();
        let rows: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            rows[1..],
            [vec!["fetch", "0.000", "3.000", "3.000", "2"], vec!["write", "1.000", "1.000", "1.000"]]
        );
    }

    #[test]
    fn work_is_done_and_its_time_taken_only_if_asked_for() {
        let (on, off) = (Timings::new(true), Timings::new(false));
        for timings in [&on, &off] {
            assert_eq!(timings.measure("phase", || 7), 7);
            assert_eq!(io::copy(&mut timings.reader("phase", &b"abc"[..]), &mut io::sink()).unwrap(), 3);
        }
        assert_eq!(off.table(), None);
        assert!(on.table().unwrap().contains("\nphase "));
        assert_eq!(on.phases.unwrap().into_inner().unwrap()[0].bytes, 3);
    }
}
