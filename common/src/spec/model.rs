//! Networks.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A network, without the changes that a method makes to its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "kebab-case")]
pub enum ModelSpec {
    /// WideResNet-d-k, in the variant of the authors' code: biases in convolutions, stride on the second
    /// convolution of a block, shortcut on the raw input.
    WideResNet {
        /// Depth, 6n + 4.
        depth: u32,
        /// Factor of the widths 16, 32, 64.
        widen: u32,
    },
}

/// Text that names no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseModelError {
    /// Not of the form `wrn-d-k`.
    #[error("`{0}` is not a model: expected `wrn-DEPTH-WIDEN`, like `wrn-28-10`")]
    Unknown(String),
    /// No WideResNet has this depth.
    #[error("depth {0} is not 6n + 4 with n ≥ 1: try 10, 16, 22, 28, 40")]
    Depth(u32),
    /// A width of zero, or beyond any machine.
    #[error("widening factor {0} is not between 1 and 64")]
    Widen(u32),
}

impl FromStr for ModelSpec {
    type Err = ParseModelError;

    fn from_str(text: &str) -> Result<Self, ParseModelError> {
        let unknown = || ParseModelError::Unknown(text.to_owned());
        let (depth, widen) =
            text.strip_prefix("wrn-").and_then(|rest| rest.split_once('-')).ok_or_else(unknown)?;
        let depth: u32 = depth.parse().map_err(|_| unknown())?;
        let widen: u32 = widen.parse().map_err(|_| unknown())?;
        if !(10..=1_000).contains(&depth) || depth % 6 != 4 {
            return Err(ParseModelError::Depth(depth));
        }
        if !(1..=64).contains(&widen) {
            return Err(ParseModelError::Widen(widen));
        }
        Ok(Self::WideResNet { depth, widen })
    }
}

impl fmt::Display for ModelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WideResNet { depth, widen } => write!(f, "wrn-{depth}-{widen}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_reads_back_as_it_was_printed() {
        assert_eq!("wrn-28-10".parse::<ModelSpec>().unwrap().to_string(), "wrn-28-10");
    }

    #[test]
    fn a_depth_that_no_wide_resnet_has_is_refused() {
        assert_eq!("wrn-12-1".parse::<ModelSpec>(), Err(ParseModelError::Depth(12)));
        assert_eq!("wrn-4-1".parse::<ModelSpec>(), Err(ParseModelError::Depth(4)));
    }
}
