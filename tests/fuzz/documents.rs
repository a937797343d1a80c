//! What an image's documents say, and the names that images have.

use super::{targets, text};
use crate::archive::{self, DockerArchive, Layout};
use crate::image::{Digest, Platform};
use crate::manifest::{self, Config, Descriptor, Documents};
use crate::reference::ImageRef;
use crate::source::Source;

targets! {
    /// Manifests and indexes; all that they lead to is missing.
    fn manifest(bytes) {
        struct Nothing;
        impl Documents for Nothing {
            fn manifest(&self, descriptor: &Descriptor) -> crate::error::Result<Vec<u8>> {
                assert!(descriptor.digest().is_ok() && descriptor.size().is_ok_and(|s| s <= manifest::MAX_DOCUMENT));
                Ok(Vec::new())
            }
            fn config(&self, descriptor: &Descriptor) -> crate::error::Result<Vec<u8>> {
                self.manifest(descriptor)
            }
        }
        for delivered in std::iter::once(None).chain(manifest::ACCEPT.iter().copied().map(Some)) {
            if let Ok(document) = manifest::parse(bytes, delivered) {
                let found = manifest::resolve(document, Digest::of(bytes), &Platform::host(), &Nothing);
                assert!(found.is_err(), "an image out of nothing");
            }
        }
    }

    /// The config is kept as it is.
    fn config(bytes) {
        if let Ok(config) = Config::parse(bytes.to_vec()) {
            let _ = config.check_platform(&Platform::host());
            let image = config.into_image(None, Vec::new());
            assert_eq!(image.config_json.as_bytes(), bytes);
            assert_eq!(image.digest, Digest::of(bytes));
        }
    }

    /// Archives of both kinds, to the last byte of each layer.
    fn archive(bytes) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, super::layers::with_checksums(bytes)).unwrap();
        let path = file.path();
        let _ = archive::sniff(path);
        if let Ok(archive) = DockerArchive::open(path, None) {
            read(&archive);
        }
        if let Ok(layout) = Layout::open_archive(path, Some("latest")) {
            read(&layout);
        }
    }

    /// The canonical spelling means the same image.
    fn reference(bytes) {
        let text = text(bytes);
        if let Ok(reference) = ImageRef::parse(&text) {
            let canonical = reference.to_string();
            let again = ImageRef::parse(&canonical);
            assert_eq!(again.as_ref().ok(), Some(&reference), "`{text}` is `{canonical}`");
        }
    }
}

fn read(source: &dyn Source) {
    let Ok(image) = source.image(&Platform::host()) else { return };
    for layer in &image.layers {
        if let Ok(mut blob) = source.blob(layer) {
            let _ = std::io::copy(&mut blob, &mut std::io::sink()); // cut short is fine
        }
    }
}
