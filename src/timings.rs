//! Where the time goes: a table of phases, for who asks for it with `--timings`.
//!
//! In: work, under the name of its phase, from any thread; or laps of a forked process, by way of its status pipe. Out: for each
//! phase the time from the first begin to the last end, the processor time of all threads, and the rate of what went through
//! it. Phases overlap. Off, nothing is measured.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::Write;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// The phases so far.
#[derive(Debug)]
pub struct Timings {
    start: Instant,
    /// In the order in which they began; none if nothing is measured.
    phases: Option<Mutex<Vec<Phase>>>,
}

/// A part of the time.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    name: Cow<'static, str>,
    /// Since the start of all.
    begin: Duration,
    end: Duration,
    busy: Duration,
    bytes: u64,
}

impl Timings {
    /// Nothing yet. Off, nothing ever.
    pub fn new(on: bool) -> Self {
        Self::since(Instant::now(), on)
    }

    /// As if it had been made at `start`.
    pub fn since(start: Instant, on: bool) -> Self {
        Self { start, phases: on.then(Mutex::default) }
    }

    /// Does a part of a phase in this thread.
    pub fn measure<T>(&self, name: &'static str, work: impl FnOnce() -> T) -> T {
        if self.phases.is_none() {
            return work();
        }
        let (begin, busy) = (self.start.elapsed(), processor_time());
        self.add(Phase { name: name.into(), begin, end: begin, busy: Duration::ZERO, bytes: 0 });
        let done = work();
        let busy = processor_time().saturating_sub(busy);
        self.add(Phase { name: name.into(), begin, end: self.start.elapsed(), busy, bytes: 0 });
        done
    }

    /// Notes that bytes went through a phase.
    pub fn moved(&self, name: &'static str, bytes: u64) {
        let now = self.start.elapsed();
        self.add(Phase { name: name.into(), begin: now, end: now, busy: Duration::ZERO, bytes });
    }

    /// Reads as a part of a phase.
    pub fn reader<R: Read>(&self, name: &'static str, from: R) -> impl Read + use<'_, R> {
        Measured { timings: self, name, from }
    }

    /// What happened up to now, from the start, is a phase.
    pub fn begun(&self, name: &'static str) {
        self.laps().end(name).into_iter().for_each(|phase| self.add(phase));
    }

    /// For a process that is to be forked off, its laps on the same clock.
    pub fn laps(&self) -> Laps {
        Laps { start: self.phases.as_ref().map(|_| self.start), last: Cell::default() }
    }

    /// Ends with what another process does: the time since the last phase is one more.
    pub fn rest(&self, name: &'static str) {
        let Some(phases) = &self.phases else { return };
        let begin = phases.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|phase| phase.end).max();
        let begin = begin.unwrap_or_default();
        self.add(Phase { name: name.into(), begin, end: self.start.elapsed(), busy: Duration::ZERO, bytes: 0 });
    }

    /// Adds a part that was measured by itself.
    pub fn add(&self, part: Phase) {
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
        let short = phases.iter().all(|phase| phase.end < Duration::from_secs(1));
        let (unit, per_second) = if short { ("ms", 1e3) } else { ("s", 1.0) };
        let [begin, wall, cpu] = ["begin", "wall", "cpu"].map(|column| format!("{column} {unit}"));
        let mut table = format!("{:10} {begin:>8} {wall:>8} {cpu:>8} {:>8}\n", "phase", "MB/s");
        phases.iter().for_each(|phase| phase.line(per_second, &mut table));
        Some(table)
    }
}

impl Phase {
    fn line(&self, per_second: f64, table: &mut String) {
        let wall = self.end.saturating_sub(self.begin);
        let [begin, shown, busy] = [self.begin, wall, self.busy].map(|time| time.as_secs_f64() * per_second);
        let _ = write!(table, "{:10} {begin:8.3} {shown:8.3} {busy:8.3}", self.name); // to a String
        #[allow(clippy::cast_precision_loss)] // it is shown
        let rate = self.bytes as f64 / 1e6 / wall.as_secs_f64().max(1e-6);
        let _ = if self.bytes > 0 { writeln!(table, " {rate:8.0}") } else { writeln!(table) };
    }
}

/// Phases that follow one another in a forked process.
#[derive(Debug)]
pub struct Laps {
    /// None if nothing is measured.
    start: Option<Instant>,
    /// When the last one ended, and what this thread had had of a processor.
    last: Cell<(Duration, Duration)>,
}

impl Laps {
    /// The first begins now.
    pub fn begin(&self) {
        self.start.iter().for_each(|start| self.last.set((start.elapsed(), processor_time())));
    }

    /// Ends one, and begins the next.
    pub fn end(&self, name: &'static str) -> Option<Phase> {
        let (begin, busy) = self.last.get();
        let (end, now_busy) = (self.start?.elapsed(), processor_time());
        self.last.set((end, now_busy));
        Some(Phase { name: name.into(), begin, end, busy: now_busy.saturating_sub(busy), bytes: 0 })
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
            let name = Cow::Borrowed(name);
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
    fn laps_follow_one_another_and_the_rest_follows_them() {
        let timings = Timings::new(true);
        let laps = timings.laps();
        laps.begin();
        let (one, two) = (laps.end("one").unwrap(), laps.end("two").unwrap());
        assert!(one.begin <= one.end && one.end == two.begin && two.begin <= two.end);
        let end = two.end;
        for lap in [one, two] {
            timings.add(lap);
        }
        timings.rest("rest");
        assert_eq!(timings.phases.unwrap().into_inner().unwrap()[2].begin, end);
        assert_eq!(Timings::new(false).laps().end("off"), None);
    }

    #[test]
    fn what_is_short_is_in_milliseconds() {
        let timings = Timings::new(true);
        let micros = Duration::from_micros;
        timings.add(Phase { name: "exec".into(), begin: micros(1500), end: micros(2750), busy: micros(4), bytes: 0 });
        let table = timings.table().unwrap();
        assert_eq!(table, "phase      begin ms  wall ms   cpu ms     MB/s\nexec          1.500    1.250    0.004\n");
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
