//! The latent posteriors of LP-BNN during training: what is recorded, and when the user is warned.
//!
//! A collapsed posterior is no error: training converges, to members that differ only by what is not
//! encoded. But a table row called LP-BNN should not be read without knowing it.

use crate::uq::LayerDiagnostics;

/// A KL divergence below it, in nats over all latent dimensions, is a posterior that says nothing.
const COLLAPSED_KL: f64 = 1e-3;

/// Members whose decoded vectors differ by less, around a mean near 1, are the same.
const COLLAPSED_SPREAD: f64 = 1e-3;

/// Metric rows of the state of each VAE.
pub fn rows(layers: &[LayerDiagnostics]) -> Vec<(String, f64)> {
    let of_layer = |state: &LayerDiagnostics| {
        [("kl", state.kl), ("reconstruction", state.reconstruction), ("spread", state.spread)]
            .map(|(name, value)| (format!("{name}/{}", state.layer), value))
    };
    layers.iter().flat_map(of_layer).collect()
}

/// Warns once of each kind of collapse.
#[derive(Debug, Default)]
pub struct CollapseWatch {
    kl: bool,
    spread: bool,
}

impl CollapseWatch {
    /// What the user should know about `layers` and has not been told yet.
    pub fn warnings(&mut self, layers: &[LayerDiagnostics]) -> Vec<String> {
        let mut messages = Vec::new();
        let kl: Vec<_> = layers.iter().filter(|state| state.kl < COLLAPSED_KL).collect();
        if !self.kl && !kl.is_empty() {
            self.kl = true;
            messages.push(format!(
                "the latent posterior has collapsed onto the prior in {} (KL below {COLLAPSED_KL} nats): it no \
                 longer depends on the member; give the KL term less weight (`kl-weight`, or its mean instead of \
                 its sum by `kl-reduction`)",
                names(&kl, layers.len())
            ));
        }
        let spread: Vec<_> = layers.iter().filter(|state| state.spread < COLLAPSED_SPREAD).collect();
        if !self.spread && !spread.is_empty() {
            self.spread = true;
            messages.push(format!(
                "the decoded vectors of all members are the same in {} (spread below {COLLAPSED_SPREAD}): \
                 diversity comes only from what is not decoded there; limit the gradient's norm \
                 (`clip-norm`), lower the learning rate or give the KL term less weight",
                names(&spread, layers.len())
            ));
        }
        messages
    }
}

fn names(collapsed: &[&LayerDiagnostics], vaes: usize) -> String {
    let shown: Vec<String> = collapsed.iter().take(3).map(|state| format!("`{}`", state.layer)).collect();
    let more = if collapsed.len() > shown.len() { ", …" } else { "" };
    format!("{} of {vaes} VAEs ({}{more})", collapsed.len(), shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, kl: f64, spread: f64) -> LayerDiagnostics {
        LayerDiagnostics { layer: name.to_owned(), kl, reconstruction: 0.1, spread }
    }

    #[test]
    fn each_kind_of_collapse_is_told_once() {
        let mut watch = CollapseWatch::default();
        assert!(watch.warnings(&[layer("stem", 0.5, 0.3)]).is_empty());
        let collapsed = [layer("stem", 1e-6, 0.3), layer("linear", 0.5, 0.3)];
        let warnings = watch.warnings(&collapsed);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("1 of 2 VAEs (`stem`)"), "{}", warnings[0]);
        assert!(watch.warnings(&collapsed).is_empty());
        assert_eq!(watch.warnings(&[layer("stem", 1e-6, 0.0)]).len(), 1);
    }

    #[test]
    fn rows_are_named_by_quantity_and_layer() {
        let names: Vec<String> = rows(&[layer("stem", 0.5, 0.3)]).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["kl/stem", "reconstruction/stem", "spread/stem"]);
    }
}
