//! `gpurun ps`: the caller's runs on this machine.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::cli::PsArgs;
use crate::error::Result;
use crate::launch::label::Label;
use crate::output;
use crate::runs::{self, Run};

/// One run, as it is printed.
#[derive(Serialize)]
struct Facts<'a> {
    /// The supervisor's, on the host: signals go to it.
    pid: i32,
    /// The workload's, on the host.
    workload: Option<i32>,
    /// Seconds since 1970.
    started: u64,
    #[serde(flatten)]
    label: &'a Label,
}

/// Prints them.
pub(super) fn ps(args: &PsArgs) -> Result<u8> {
    let runs = runs::all()?;
    if args.json {
        output::json(&runs.iter().map(facts).collect::<Vec<_>>())?;
    } else {
        output::facts(&table(&runs))?;
    }
    Ok(0)
}

fn facts(run: &Run) -> Facts<'_> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_secs()).unwrap_or_default();
    Facts {
        pid: run.supervisor.as_raw(),
        workload: run.workload.map(nix::unistd::Pid::as_raw),
        started: now.saturating_sub(run.age),
        label: &run.label,
    }
}

fn table(runs: &[Run]) -> String {
    let head = ["PID", "NAME", "RUNNING", "USER", "GPUS", "STEP", "IMAGE", "COMMAND"].map(ToOwned::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(runs.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<_> = (0..rows[0].len()).map(width).collect();
    let line = |row: &[String; 8]| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn row(run: &Run) -> [String; 8] {
    let label = &run.label;
    let or_none = |text: &Option<String>| printable(text.as_deref().unwrap_or("-"));
    [
        run.supervisor.to_string(),
        or_none(&label.name),
        duration(run.age),
        format!("{}:{}", label.uid, label.gid),
        label.gpus.len().to_string(),
        or_none(&label.step),
        printable(&label.image),
        printable(&label.command.join(" ")),
    ]
}

/// An image's words, as a terminal may be given them.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// In its largest unit.
fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_one_unit() {
        for (seconds, want) in [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172_800, "2d")] {
            assert_eq!(duration(seconds), want);
        }
    }

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(printable("a\x1b[2J\nä"), "a?[2J?ä");
    }
}
