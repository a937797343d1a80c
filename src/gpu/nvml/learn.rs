//! NVML's answers, added to what /proc says of the machine.
//!
//! In: [`Answers`] and the machine's nodes. Out: an [`Inventory`] that knows more. GPUs are matched by their addresses: NVML
//! numbers only those that it may open.

use super::{Answer, Answers, Part};
use crate::gpu::inventory::{Gpu, Inventory, address, numbered};
use crate::gpu::mig::{self, Instance, Minors, Place};
use crate::gpu::root::DriverRoot;

impl Inventory {
    /// The machine as NVML alone knows it.
    pub fn of_answers(root: &DriverRoot, answers: &Answers) -> Self {
        let gpu = |answer: &Answer| Gpu {
            minor: answer.minor,
            pci: answer.pci.clone(),
            model: answer.model.clone(),
            ..Gpu::default()
        };
        let gpus = numbered(root, answers.gpus.iter().map(gpu).collect());
        let mut inventory = Self { version: answers.driver.clone(), gpus, cuda: None };
        inventory.learn(root, answers);
        inventory
    }

    /// Adds what NVML says of the GPUs that are here.
    pub fn learn(&mut self, root: &DriverRoot, answers: &Answers) {
        self.cuda = answers.cuda;
        let minors = Minors::read(root);
        for gpu in &mut self.gpus {
            if let Some(answer) = answers.gpus.iter().find(|answer| address(&answer.pci) == address(&gpu.pci)) {
                gpu.learn(root, &minors, answer);
            }
            if gpu.mig && gpu.instances.iter().all(|instance| instance.unusable.is_some()) {
                gpu.unusable = gpu.unusable.take().or_else(|| Some(no_instance(root, &minors, gpu)));
            }
        }
    }

    /// Notes that NVML said nothing: a GPU that is divided is worth nothing without its instances.
    pub fn learn_nothing(&mut self) {
        for gpu in self.gpus.iter_mut().filter(|gpu| gpu.mig) {
            gpu.unusable.get_or_insert("MIG is on, and only NVML knows its instances".into());
        }
    }
}

impl Gpu {
    fn learn(&mut self, root: &DriverRoot, minors: &Minors, answer: &Answer) {
        self.uuid = self.uuid.take().or_else(|| answer.uuid.clone());
        self.brand.clone_from(&answer.brand);
        self.compute.clone_from(&answer.compute);
        self.mig = answer.mig;
        let instance = |part: &Part| {
            let place = Place { gi: part.gi, ci: part.ci };
            let (nodes, unusable) = minors.probe(root, place, self.minor);
            let (uuid, profile) = (part.uuid.clone(), part.profile.clone());
            Instance { index: part.index, uuid, place, profile, nodes, unusable }
        };
        self.instances = answer.instances.iter().map(instance).collect();
    }
}

/// NVML does not name the instances whose nodes do not open, so /proc is asked for them.
fn no_instance(root: &DriverRoot, minors: &Minors, gpu: &Gpu) -> String {
    let named = gpu.instances.iter().find_map(|instance| instance.unusable.clone());
    let unnamed =
        || mig::instances(root, gpu.minor).into_iter().find_map(|place| minors.probe(root, place, gpu.minor).1);
    match named.or_else(unnamed) {
        Some(why) => format!("MIG is on, and none of its instances can be used: {why}"),
        None => "MIG is on, and it has no instance: an administrator makes them with `nvidia-smi mig -cgi`".into(),
    }
}
