//! What is wrong with a GPU, by the driver's figures.

use super::{Device, csv};

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// UUID of the GPU; `None` for all of them.
    pub gpu: Option<String>,
    /// One sentence for an operator, with index, UUID and figure.
    pub message: String,
    /// Whether what runs there is worth nothing: its results may be wrong, or it does not go on.
    pub ends_ranks: bool,
}

impl Fault {
    fn of(device: &Device, message: &str) -> Self {
        let message = format!("GPU {} ({}): {message}", device.index, device.gpu);
        Self { gpu: Some(device.gpu.clone()), message, ends_ranks: false }
    }

    /// A GPU that the driver does not reach.
    pub fn lost(device: &Device, message: &str) -> Self {
        Self { ends_ranks: true, ..Self::of(device, message) }
    }

    /// The driver says nothing.
    pub fn silent(message: &str) -> Self {
        Self {
            gpu: None,
            message: format!("the driver says nothing of the GPUs: {message}"),
            ends_ranks: false,
        }
    }

    /// Memory of a GPU is held by processes that are not the agent's.
    pub fn held(device: &Device, mib: u64, holders: &str) -> Self {
        Self::of(device, &format!("{mib} MiB are held by processes of others: {holders}"))
    }
}

/// What the driver counts of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Memory errors that could not be corrected, since the driver was loaded or the GPU reset. `None`: it does not count them.
    pub uncorrected: Option<u64>,
    /// A page is to be taken out of use at the next reset.
    pub page_pending: bool,
    /// A row is to be replaced at the next reset.
    pub row_pending: bool,
    /// A row could not be replaced: none is left.
    pub row_failed: bool,
}

impl Figures {
    /// Fields of the query of GPUs, without the UUID.
    pub const FIELDS: [&'static str; 2] = ["ecc.errors.uncorrected.volatile.total", "retired_pages.pending"];

    /// Fields of the query of replaced rows, without the UUID.
    pub const ROWS: [&'static str; 2] = ["remapped_rows.pending", "remapped_rows.failure"];

    /// Reads the fields of [`Self::FIELDS`].
    pub fn read(fields: &[String]) -> Self {
        let field = |index: usize| fields.get(index).map_or("", String::as_str);
        Self { uncorrected: csv::number(field(0)), page_pending: csv::is_yes(field(1)), ..Self::default() }
    }

    /// Reads the fields of [`Self::ROWS`].
    pub fn read_rows(&mut self, fields: &[String]) {
        let field = |index: usize| fields.get(index).map_or("", String::as_str);
        (self.row_pending, self.row_failed) = (csv::is_yes(field(0)), csv::is_yes(field(1)));
    }

    /// What they say is wrong.
    pub fn faults(&self, device: &Device) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Some(count) = self.uncorrected.filter(|&count| count > 0) {
            let s = if count == 1 { "" } else { "s" };
            let message = format!("{count} uncorrectable memory error{s} (ECC) since its last reset");
            // What was computed since may be wrong, and who ran then was ended by the driver, or is about to be.
            faults.push(Fault { ends_ranks: true, ..Fault::of(device, &message) });
        }
        if self.page_pending {
            faults.push(Fault::of(device, "a memory page is to be retired; reset the GPU"));
        }
        if self.row_pending {
            faults.push(Fault::of(device, "a memory row is to be remapped; reset the GPU"));
        }
        if self.row_failed {
            faults.push(Fault::of(device, "a memory row cannot be remapped, none is left; replace the GPU"));
        }
        faults
    }
}
