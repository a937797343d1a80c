//! `gpurun pull`, `images`, `inspect`, `rm` and `prune`: what is in the store.

use std::fmt::Write;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::value::RawValue;

use super::obtain;
use crate::cli::{ImagesArgs, InspectArgs, PruneArgs, Pull, PullArgs, RmArgs, StoreArgs};
use crate::error::{Context, Error, Result};
use crate::host::Host;
use crate::image::{Digest, Platform};
use crate::output::{self, size};
use crate::reference::ImageRef;
use crate::request::{parse_duration, parse_size};
use crate::store::{ImageRecord, LayerRecord, Limits, NameRecord, Removal, Store, shared, since_1970};

/// An image under one of its names.
#[derive(Serialize)]
struct Facts<'a> {
    reference: &'a str,
    platform: &'a str,
    digest: Digest,
    config_digest: Digest,
    /// Bytes of all its files.
    size: u64,
    /// Bytes of those that another image has as well, and that are on the disk once.
    shared: u64,
    /// Seconds since 1970.
    pulled: u64,
    /// Seconds since 1970, to about an hour.
    used: u64,
}

/// Everything about an image.
#[derive(Serialize)]
struct Details<'a> {
    #[serde(flatten)]
    facts: Facts<'a>,
    rootfs: String,
    layers: &'a [LayerRecord],
    config: &'a RawValue,
}

/// Fetches images.
pub(super) fn pull(args: &PullArgs) -> Result<u8> {
    let host = Host::probe();
    let mut pulled = Vec::new();
    for image in &args.images {
        let obtained = obtain(image, &args.store, &args.fetch, &host, Pull::Always)?;
        pulled.push((obtained.name, obtained.record));
    }
    if args.json {
        let images = store(&args.store)?.images()?;
        output::json(&pulled.iter().map(|(name, record)| facts(name, record, &images)).collect::<Vec<_>>())?;
    } else if !args.store.quiet {
        let line = |(name, record): &(NameRecord, ImageRecord)| format!("{} {}\n", name.reference, record.digest);
        output::facts(&pulled.iter().map(line).collect::<String>())?;
    }
    Ok(0)
}

/// Lists images.
pub(super) fn images(args: &ImagesArgs) -> Result<u8> {
    let store = store(&args.store)?;
    tell_damaged(&store, args.store.quiet, "`gpurun prune` takes it away")?;
    let (mut all, images) = (Vec::new(), store.images()?);
    for name in store.names()? {
        // One whose rootfs was lost, or whose record is damaged, is no image that could be run.
        let record = images.iter().find(|record| record.digest == name.digest).filter(|record| store.has(record));
        all.extend(record.map(|record| (name, record)));
    }
    let facts: Vec<_> = all.iter().map(|(name, record)| facts(name, record, &images)).collect();
    if args.json {
        output::json(&facts)?;
    } else {
        output::facts(&table(&facts))?;
    }
    Ok(0)
}

fn table(all: &[Facts]) -> String {
    let width = all.iter().map(|f| f.reference.len()).chain([9]).max().unwrap_or_default();
    let row = |name: &str, platform: &str, digest: &str, own: &str, shared: &str| {
        format!("{name:width$}  {platform:12}  {digest:12}  {own:>8}  {shared:>8}\n")
    };
    let rows = all
        .iter()
        .map(|f| row(f.reference, f.platform, &f.digest.hex()[..12], &size(f.size - f.shared), &size(f.shared)));
    std::iter::once(row("REFERENCE", "PLATFORM", "DIGEST", "OWN", "SHARED")).chain(rows).collect()
}

/// Prints what an image is.
pub(super) fn inspect(args: &InspectArgs) -> Result<u8> {
    let store = store(&args.store)?;
    let name = find(&store, &args.image, &args.store)?;
    let record = store.image(&name.digest)?.ok_or_else(|| missing(&store, &args.image))?;
    let details = Details {
        facts: facts(&name, &record, &store.images()?),
        rootfs: store.rootfs_path(&record.chain_id).join("root").display().to_string(),
        layers: &record.layers,
        config: &record.config,
    };
    if args.json {
        output::json(&details)?;
    } else {
        output::facts(&described(&details)?)?;
    }
    Ok(0)
}

fn described(details: &Details) -> Result<String> {
    let facts = &details.facts;
    let mut out = format!(
        "reference: {}\nplatform: {}\ndigest: {}\nconfig digest: {}\nsize: {}\nrootfs: {}\nlayers:\n",
        facts.reference,
        facts.platform,
        facts.digest,
        facts.config_digest,
        size(facts.size),
        details.rootfs
    );
    for layer in details.layers {
        let name = layer.digest.unwrap_or(layer.diff_id);
        let _ = writeln!(out, "  {name}  {}", layer.size.map(size).unwrap_or_default()); // to a String
    }
    let config: serde_json::Value = serde_json::from_str(details.config.get()).context(|| "read the image's config")?;
    Ok(format!("{out}config: {config:#}\n"))
}

/// Removes images.
pub(super) fn rm(args: &RmArgs) -> Result<u8> {
    let store = store(&args.store)?;
    tell_damaged(&store, args.store.quiet, "it is taken away")?;
    for image in &args.images {
        let name = find(&store, image, &args.store)?;
        if store.remove(&name)? == Removal::InUse {
            return Err(Error::new(format!("the image {} is in use", name.digest))
                .hint("it can be removed when the last container that runs it has ended"));
        }
        output::notice(args.store.quiet, &format!("removed {}", name.reference));
    }
    Ok(0)
}

/// Removes what was not used for long, or more than the store may hold.
pub(super) fn prune(args: &PruneArgs) -> Result<u8> {
    let limits = Limits {
        unused: args.unused.as_deref().map(parse_duration).transpose()?,
        size: args.max_size.as_deref().map(parse_size).transpose()?,
    };
    let store = store(&args.store)?;
    tell_damaged(&store, args.store.quiet, "it is taken away")?;
    let gone = store.prune(limits, since_1970(SystemTime::now()))?;
    for name in &gone {
        output::notice(args.store.quiet, &format!("removed {}", name.reference));
    }
    if args.json {
        output::json(&gone)?;
    }
    Ok(0)
}

/// Says which records cannot be read, and what becomes of them.
fn tell_damaged(store: &Store, quiet: bool, then: &str) -> Result<()> {
    for (_, error) in store.damaged()? {
        output::notice(quiet, &format!("{error:#}; {then}"));
    }
    Ok(())
}

fn facts<'a>(name: &'a NameRecord, record: &ImageRecord, images: &[ImageRecord]) -> Facts<'a> {
    Facts {
        reference: &name.reference,
        platform: &name.platform,
        digest: record.digest,
        config_digest: record.config_digest,
        size: record.sizes().values().sum(),
        shared: shared(record, images),
        pulled: name.pulled,
        used: name.used,
    }
}

fn store(args: &StoreArgs) -> Result<Store> {
    Store::locate(args.store.as_deref(), &Host::probe())
}

fn platform(args: &StoreArgs) -> String {
    args.platform.clone().unwrap_or_else(Platform::host).to_string()
}

/// The name that `image` spells, or that is given by the start of its image's digest.
fn find(store: &Store, image: &str, args: &StoreArgs) -> Result<NameRecord> {
    let names = store.names()?;
    let spelled = ImageRef::parse_at(image).map(|r| r.to_string()).ok();
    let by_name = |n: &&NameRecord| Some(&n.reference) == spelled.as_ref() && n.platform == platform(args);
    if let Some(name) = names.iter().find(by_name) {
        return Ok(name.clone());
    }
    let hex = image.strip_prefix("sha256:").unwrap_or(image);
    let by_digest: Vec<_> = names.iter().filter(|n| hex.len() >= 6 && n.digest.hex().starts_with(hex)).collect();
    match by_digest[..] {
        [one] => Ok(one.clone()),
        [] => Err(missing(store, image)),
        _ => Err(Error::new(format!("`{image}` means {} images", by_digest.len())).hint("`gpurun images` lists them")),
    }
}

fn missing(store: &Store, image: &str) -> Error {
    Error::new(format!("`{image}` is not in the store `{}`", store.path().display())).hint("`gpurun images` lists them")
}
