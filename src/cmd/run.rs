//! `gpurun run`: the way the data flows, in one function.

use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;

use crate::cli::RunArgs;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::inroot::Root;
use crate::launch::{self, fds::Inherited};
use crate::output;
use crate::plan::user::Accounts;
use crate::plan::{self, ImageFacts, Inputs, Plan};
use crate::reference::ImageRef;
use crate::request::Request;

/// The largest account file that is read.
const MAX_ACCOUNTS: u64 = 16 << 20;

/// Runs a command in an image and gives its exit status.
pub(super) fn run(args: &RunArgs, inherited: Inherited) -> Result<u8> {
    let (plan, _held) = plan(args)?;
    if args.dry_run {
        output::facts(&plan::explain::human(&plan))?;
        return Ok(0);
    }
    plan.notices.iter().for_each(|line| output::notice(args.store.quiet, line));
    launch::launch(&plan, inherited)
}

/// argv → Request, reference → Image → Rootfs, host facts → Plan. What is held must live as long as the run.
pub(super) fn plan(args: &RunArgs) -> Result<(Plan, ())> {
    let host = Host::probe();
    let request = Request::new(args, &host)?;
    request.check_sources()?;
    let reference = ImageRef::parse_at(args.image.as_deref().unwrap_or_default())?;
    let image = obtain(&reference)?;
    let plan = plan::build(&Inputs {
        request: &request,
        image: image.facts,
        config: &image.config,
        rootfs: &image.rootfs,
        accounts: &accounts(&image.rootfs)?,
        host: &host,
    })?;
    Ok((plan, ()))
}

struct Obtained {
    facts: ImageFacts,
    config: ImageConfiguration,
    rootfs: PathBuf,
}

fn obtain(reference: &ImageRef) -> Result<Obtained> {
    match reference {
        ImageRef::Dir(path) => Ok(Obtained {
            facts: ImageFacts { reference: reference.to_string(), digest: None },
            config: ImageConfiguration::default(),
            rootfs: path.clone(),
        }),
        _ => Err(Error::new("not yet")),
    }
}

/// The image's account files, read as hostile input.
fn accounts(rootfs: &Path) -> Result<Accounts> {
    let root = Root::open(rootfs)?;
    let read = |path: &str| root.read(Path::new(path), MAX_ACCOUNTS);
    Ok(Accounts { passwd: read("/etc/passwd")?, group: read("/etc/group")? })
}
