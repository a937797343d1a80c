//! How a pull is shown while it runs: a bar for each layer on a terminal, a line for each elsewhere, nothing if quiet.
//!
//! In: byte counts from the threads that fetch. Out: stderr. indicatif draws from those threads and has none of its own,
//! so that none is left when the launch begins.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// Redraws in a second, at most.
const DRAWS: u8 = 10;

/// One pull, as it is shown.
pub struct Progress {
    bars: Option<MultiProgress>,
    /// Whether there is a bar that stays.
    stays: Arc<AtomicBool>,
    quiet: bool,
}

/// One layer of it.
pub struct Layer {
    bar: ProgressBar,
    label: String,
    started: Instant,
    line: bool,
    stays: Arc<AtomicBool>,
}

impl Progress {
    /// On this stderr.
    pub fn new(quiet: bool) -> Self {
        let draws = !quiet && std::io::stderr().is_terminal();
        let bars = draws.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(DRAWS)));
        // One that bars cannot be drawn on, for want of a TERM, gets lines.
        Self { bars: bars.filter(|bars| !bars.is_hidden()), stays: Arc::default(), quiet }
    }

    /// Says something between the bars.
    pub fn notice(&self, line: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| output::notice(self.quiet, line)),
            None => output::notice(self.quiet, line),
        }
    }

    /// A layer of `size` bytes, if that is known, is about to be fetched.
    pub fn layer(&self, label: String, size: Option<u64>) -> Layer {
        let bar = match &self.bars {
            Some(bars) => bars.add(size.map_or_else(ProgressBar::no_length, ProgressBar::new)),
            None => ProgressBar::hidden(),
        };
        bar.set_style(style(size.is_some()));
        bar.set_prefix(label.clone());
        let line = !self.quiet && self.bars.is_none();
        Layer { bar, label, started: Instant::now(), line, stays: Arc::clone(&self.stays) }
    }
}

/// What comes next starts a line of its own.
impl Drop for Progress {
    fn drop(&mut self) {
        if self.bars.is_some() && self.stays.load(Ordering::Relaxed) {
            output::end_line();
        }
    }
}

impl Layer {
    /// So many bytes have come.
    pub fn fetched(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    /// The layer is unpacked.
    pub fn done(&self) {
        self.bar.finish();
        self.stays.store(true, Ordering::Relaxed);
        if self.line {
            let (bytes, seconds) = (self.bar.position(), self.started.elapsed().as_secs_f64());
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            // it is shown
            let rate = output::size((bytes as f64 / seconds.max(0.001)) as u64);
            output::notice(false, &format!("{}: {} in {seconds:.1} s, {rate}/s", self.label, output::size(bytes)));
        }
    }
}

fn style(has_size: bool) -> ProgressStyle {
    let template = match has_size {
        true => "{prefix} {bar:30} {decimal_bytes:>10} of {decimal_total_bytes:>10} {decimal_bytes_per_sec:>12}",
        false => "{prefix} {decimal_bytes:>10} {decimal_bytes_per_sec:>12}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
