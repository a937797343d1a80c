//! The `gpurun` program: looks at its descriptors before anything else is open, then hands over to the verbs.

use std::process::ExitCode;

fn main() -> ExitCode {
    let status = gpurun::launch::fds::inherit().and_then(gpurun::cmd::dispatch);
    match status {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            gpurun::output::error(&error);
            ExitCode::from(error.exit_status())
        }
    }
}
