//! `gpurun run`: the way the data flows, in one function.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::execve;
use oci_spec::image::ImageConfiguration;

use super::nvml::Nvml;
use super::{Call, obtain};
use crate::cdi::{self, Devices};
use crate::cli::{IdMode, RunArgs};
use crate::error::{Context, Result};
use crate::gpu::image::Contents;
use crate::gpu::root::DriverRoot;
use crate::gpu::select::Gpus;
use crate::gpu::{self, Injection, rdma};
use crate::host::Host;
use crate::host::subordinate::Subordinate;
use crate::image::Digest;
use crate::inroot::Root;
use crate::launch;
use crate::manifest;
use crate::output;
use crate::plan::account::Accounts;
use crate::plan::{self, ImageFacts, Inputs, Plan};
use crate::reference::ImageRef;
use crate::request::Request;
use crate::store::{HeldRootfs, ImageRecord, Store};
use crate::timings::Timings;

/// The largest account file that is read.
const MAX_ACCOUNTS: u64 = 16 << 20;

/// Names the image to the process that a pull is followed by.
const PULLED: &str = "GPURUN_INTERNAL_PULLED";

/// Runs a command in an image and gives its exit status.
pub(super) fn run(args: &RunArgs, call: &Call) -> Result<u8> {
    let timings = Timings::since(call.start, args.fetch.timings);
    let (host, request) = ask(args)?;
    timings.begun("parse");
    let image = timings.measure("resolve", || image(args, &host))?;
    if let Some(digest) = image.pulled {
        return again(&digest, call);
    }
    if !args.dry_run && request.gpus.gpus != Gpus::None {
        gpu::repair::repair(&DriverRoot::host(None)?);
    }
    let nvml = Nvml { store: args.store.store.as_deref(), repair: !args.dry_run };
    let plan = timings.measure("plan", || build(&host, &request, &image, &nvml))?;
    if args.dry_run {
        output::facts(&plan::explain::human(&plan))?;
        return Ok(0);
    }
    plan.notices.iter().for_each(|line| output::notice(args.store.quiet, line));
    let Err(failure) = launch::launch(&plan, call.inherited, args.store.quiet, timings);
    Err(failure)
}

/// What `run` would do, without doing it. What is held must live as long as the plan is used.
pub(super) fn plan(args: &RunArgs) -> Result<(Plan, Image)> {
    let (host, request) = ask(args)?;
    let image = image(args, &host)?;
    let nvml = Nvml { store: args.store.store.as_deref(), repair: false };
    Ok((build(&host, &request, &image, &nvml)?, image))
}

/// argv → Request, checked against the host.
fn ask(args: &RunArgs) -> Result<(Host, Request)> {
    let mut host = Host::probe();
    let request = Request::new(args, &host)?;
    request.check_sources()?;
    if request.ids == IdMode::Range {
        host.subordinate = Some(Subordinate::probe(&host.user, host.uid, host.gid));
    }
    Ok((host, request))
}

fn build(host: &Host, request: &Request, image: &Image, nvml: &Nvml) -> Result<Plan> {
    let devices = cdi::bring(&request.devices, &request.cdi_spec_dirs, &host.groups)?;
    let injection = completed(injection(host, request, image, nvml)?, &devices, host, request, image)?;
    plan::build(&Inputs {
        injection,
        devices,
        request,
        image: image.facts.clone(),
        config: &image.config,
        rootfs: &image.rootfs,
        accounts: &accounts(&image.rootfs, request.overlay.as_deref()).map_err(launch::refused::resolver)?,
        has_apt: request.fakeroot && Root::open(&image.rootfs)?.resolve(Path::new("/etc/apt/apt.conf.d")).is_ok(),
        host,
    })
}

/// The GPUs with the driver, and the fabric.
fn injection(host: &Host, request: &Request, image: &Image, nvml: &Nvml) -> Result<Injection> {
    let mut made = gpus(host, request, image, nvml)?;
    if request.rdma {
        let limited = request.limits.iter().any(|limit| limit.name == "memlock");
        made.join(rdma::decide(&DriverRoot::host(None)?, host.lockable.filter(|_| !limited))?);
    }
    Ok(made)
}

fn gpus(host: &Host, request: &Request, image: &Image, nvml: &Nvml) -> Result<Injection> {
    if request.gpus.gpus == Gpus::None {
        return Ok(Injection::none(request.gpus.why));
    }
    let root = DriverRoot::host(request.driver_root.as_deref())?;
    let config = image.config.config().clone().unwrap_or_default();
    gpu::inject(&gpu::Inputs {
        root: &root,
        asked: &request.gpus,
        capabilities: request.gpu_caps.as_ref(),
        compat: request.cuda_compat,
        check: request.require,
        image: &Contents::probe(&image.rootfs)?,
        image_env: config.env().as_deref().unwrap_or_default(),
        nvml: &|known| nvml.ask(&root, host, known),
        cuda_visible: host.var("CUDA_VISIBLE_DEVICES").and_then(OsStr::to_str),
        mps: host.var("CUDA_MPS_PIPE_DIRECTORY").and_then(OsStr::to_str),
    })
}

/// The injection with what devices of specs need of it.
fn completed(
    injection: Injection,
    devices: &Devices,
    host: &Host,
    request: &Request,
    image: &Image,
) -> Result<Injection> {
    if devices.named.is_empty() {
        return Ok(injection);
    }
    let facts = cdi::Facts {
        root: &DriverRoot::host(None)?,
        image: &Contents::probe(&image.rootfs)?,
        compat: request.cuda_compat,
        cuda_visible: host.var("CUDA_VISIBLE_DEVICES").and_then(OsStr::to_str),
    };
    Ok(cdi::complete(devices, injection, &facts))
}

/// An image that can be run.
pub(super) struct Image {
    facts: ImageFacts,
    config: ImageConfiguration,
    rootfs: PathBuf,
    /// Its digest, if it was fetched or made just now.
    pulled: Option<Digest>,
    _held: Option<HeldRootfs>,
}

/// reference → image → rootfs.
fn image(args: &RunArgs, host: &Host) -> Result<Image> {
    let text = args.image.as_deref().unwrap_or_default();
    let reference = ImageRef::parse_at(text)?;
    if let ImageRef::Dir(path) = &reference {
        return Ok(Image {
            facts: ImageFacts { reference: reference.to_string(), digest: None },
            config: ImageConfiguration::default(),
            rootfs: path.clone(),
            pulled: None,
            _held: None,
        });
    }
    let store = Store::locate(args.store.store.as_deref(), host)?;
    if let Some(record) = just_pulled(&store)? {
        return held(&store, &reference, &record, false);
    }
    let obtained = obtain(text, &args.store, &args.fetch, host, args.pull)?;
    store.touch(&obtained.name);
    held(&store, &reference, &obtained.record, obtained.pulled)
}

fn held(store: &Store, reference: &ImageRef, record: &ImageRecord, pulled: bool) -> Result<Image> {
    let held = store.hold(record)?;
    Ok(Image {
        facts: ImageFacts { reference: reference.to_string(), digest: Some(record.digest.to_string()) },
        config: manifest::read_config(record.config.get()).context(|| "read the image's config")?,
        rootfs: held.root.clone(),
        pulled: pulled.then_some(record.digest),
        _held: Some(held),
    })
}

/// A pull leaves memory and descriptors behind; a fresh process launches as every warm start does. `std`'s exec would set the
/// caller's signals and mask to something else.
fn again(digest: &Digest, call: &Call) -> Result<u8> {
    let what = || "execute gpurun again, after the pull";
    let c = |bytes: &[u8]| CString::new(bytes).context(what);
    let args = call.argv.iter().map(|arg| c(arg.as_bytes())).collect::<Result<Vec<_>>>()?;
    let others = std::env::vars_os().filter(|(name, _)| name != PULLED);
    let pulled = (PULLED.into(), digest.to_string().into());
    let pairs = others.chain([pulled]).map(|(name, value)| c(&[name.as_bytes(), b"=", value.as_bytes()].concat()));
    let env = pairs.collect::<Result<Vec<_>>>()?;
    call.inherited.give_back()?;
    let Err(errno) = execve(c"/proc/self/exe", &args, &env);
    Err(errno).context(what)
}

/// The image that this process's predecessor pulled.
fn just_pulled(store: &Store) -> Result<Option<ImageRecord>> {
    let Some(digest) = std::env::var_os(PULLED) else { return Ok(None) };
    let digest: Digest = digest.to_string_lossy().parse().context(|| format!("read ${PULLED}"))?;
    store.image(&digest)
}

/// The image's account files, or those that an earlier run has kept in their place, read as hostile input.
fn accounts(rootfs: &Path, kept: Option<&Path>) -> Result<Accounts> {
    let upper = kept.map(|dir| dir.join("upper")).filter(|upper| upper.is_dir());
    let roots = upper.as_deref().into_iter().chain([rootfs]).map(Root::open).collect::<Result<Vec<_>>>()?;
    accounts_in(&roots)
}

/// The account files of the first of these roots that has them.
pub(super) fn accounts_in(roots: &[Root]) -> Result<Accounts> {
    let read = |path: &str| {
        let mut found = roots.iter().map(|root| root.read(Path::new(path), MAX_ACCOUNTS));
        found.find_map(Result::transpose).transpose()
    };
    Ok(Accounts { passwd: read("/etc/passwd")?, group: read("/etc/group")? })
}
