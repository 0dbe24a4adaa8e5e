//! The models, by name.

/// How a machine orders accesses of different words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// Sequential consistency.
    Sc,
    /// x86: P. Sewell et al., "x86-TSO", 2010.
    Tso,
    /// arm64: C. Pulte et al., "Simplifying ARM concurrency", 2018.
    Armv8,
    /// S. Sarkar et al., "Understanding POWER multiprocessors", 2011.
    Power,
}

impl Model {
    pub const ALL: [Model; 4] = [Model::Sc, Model::Tso, Model::Armv8, Model::Power];

    /// As users name it.
    pub fn name(self) -> &'static str {
        match self {
            Model::Sc => "sc",
            Model::Tso => "tso",
            Model::Armv8 => "armv8",
            Model::Power => "power",
        }
    }
}
