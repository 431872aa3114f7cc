//! LP-BNN: BatchEnsemble whose input-side vectors are decoded from a small VAE per layer.
//!
//! Each converted layer keeps a code per member and an encoder-decoder shared by the members. The encoder
//! maps code j to a Gaussian q(zⱼ) = N(μⱼ, diag e^ℓⱼ), a draw of it is decoded to the layer's α̂ⱼ, and the
//! loss adds the error of reconstruction and the divergence from N(0, I).
//!
//! None of this depends on the images, so a forward pass decodes the vectors of all layers first and then
//! runs as a BatchEnsemble. The latent noise of a pass is one tensor `[L, J, d]`.
//!
//! Source: Franchi et al., *Encoding the latent posterior of Bayesian Neural Networks for uncertainty
//! quantification*, arXiv 2012.02818; where the authors' programs differ from it and from each other, the
//! settings say which one is followed (`docs/methods.md`).

use common::spec::{KlReduction, LatentSampling, LogVariance, LossDivisor, LpBnnSettings};
use tch::{Kind, Reduction, TchError, Tensor, no_grad};

use crate::model::builder::{Builder, Init};

/// Latent part of the loss of one forward pass in training mode.
///
/// Nothing here has been copied to the host.
#[derive(Debug)]
pub struct LatentLoss {
    /// What is added to the cross-entropy: a scalar, weighted and divided as the settings say.
    pub total: Tensor,
    /// KL term of each layer as the settings reduce it, unweighted: `[L]`, without gradient.
    pub kl: Tensor,
    /// Mean squared reconstruction error of each layer, unweighted: `[L]`, without gradient.
    pub reconstruction: Tensor,
}

/// State of one layer's latent posterior. Has no noise in it: the quantities are expectations.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerDiagnostics {
    /// Path of the layer.
    pub layer: String,
    /// KL(q(zⱼ) ‖ N(0, I)) in nats, mean over members, whatever the loss weighs it by. Near 0, the
    /// posterior has collapsed onto the prior and no longer tells the members apart.
    pub kl: f64,
    /// Expected squared difference of a decoded vector and its code, mean over members and inputs.
    pub reconstruction: f64,
    /// Standard deviation over members of the mean decoded vectors, mean over inputs. Near 0, all members
    /// scale the layer's input alike.
    pub spread: f64,
}

/// The posterior over a layer's input-side vectors: exactly Gaussian, because the decoder is linear.
#[derive(Debug)]
pub struct DecodedPosterior {
    /// Mean of each member's vector, `[J, I]`.
    pub mean: Tensor,
    /// Covariance of each member's vector, `[J, I, I]`, of rank at most the latent size; zero where the
    /// layer decodes without sampling.
    pub covariance: Tensor,
}

/// Weight and bias of an ordinary linear map.
struct Affine {
    weight: Tensor,
    bias: Tensor,
}

impl Affine {
    fn new(builder: &mut Builder, path: &str, inputs: i64, outputs: i64) -> Result<Self, TchError> {
        let init = Init::fan_in(inputs);
        let weight = builder.weight(format!("{path}.weight"), &[outputs, inputs], init)?;
        let bias = builder.weight(format!("{path}.bias"), &[outputs], init)?;
        Ok(Self { weight, bias })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }
}

/// Codes and VAE of one layer.
struct LatentLayer {
    path: String,
    sampling: LatentSampling,
    /// α, `[J, I]`.
    codes: Tensor,
    /// I → d, followed by a ReLU.
    encoder: Affine,
    /// d → d.
    mean: Affine,
    /// d → d. `None`: the mean's head gives the log-variance too.
    log_variance: Option<Affine>,
    /// d → I.
    decoder: Affine,
}

/// Encoder's output for the J codes of a layer; each `[J, d]`.
struct Posterior {
    hidden: Tensor,
    mean: Tensor,
    log_variance: Tensor,
}

impl LatentLayer {
    fn encode(&self) -> Posterior {
        let hidden = self.encoder.forward(&self.codes).relu();
        let mean = self.mean.forward(&hidden);
        let log_variance = match &self.log_variance {
            Some(head) => head.forward(&hidden),
            None => mean.shallow_clone(),
        };
        Posterior { hidden, mean, log_variance }
    }
}

/// Which part of a network a latent layer serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LayerKind {
    Convolution,
    Linear,
}

/// The VAEs of a network, in the order of its layers.
pub(crate) struct LatentSpace {
    settings: LpBnnSettings,
    layers: Vec<LatentLayer>,
}

impl LatentSpace {
    pub(crate) fn new(settings: &LpBnnSettings) -> Self {
        Self { settings: settings.clone(), layers: Vec::new() }
    }

    /// Creates codes and VAE of the next layer below `path`, and returns its place.
    pub(crate) fn add(
        &mut self,
        builder: &mut Builder,
        path: &str,
        kind: LayerKind,
        inputs: i64,
    ) -> Result<usize, TchError> {
        let settings = &self.settings;
        let (sampling, trainable) = match kind {
            LayerKind::Convolution => (settings.conv_sampling, settings.conv_codes_trainable),
            LayerKind::Linear => (settings.linear_sampling, settings.linear_codes_trainable),
        };
        let shape = [i64::from(settings.members), inputs];
        let init = Init::Normal { mean: 1.0, std: settings.code_std };
        let name = format!("{path}.alpha");
        let codes = if trainable {
            builder.scale(name, &shape, init)?
        } else {
            builder.frozen(name, &shape, init)?
        };
        let latent = i64::from(settings.latent);
        let layer = LatentLayer {
            path: path.to_owned(),
            sampling,
            codes,
            encoder: Affine::new(builder, &format!("{path}.encoder"), inputs, latent)?,
            mean: Affine::new(builder, &format!("{path}.mean"), latent, latent)?,
            // A head that nothing reads would get no gradient, which data-parallel reducers wait for.
            log_variance: match settings.log_variance {
                LogVariance::Separate => {
                    Some(Affine::new(builder, &format!("{path}.log_variance"), latent, latent)?)
                }
                LogVariance::MeanHead => None,
            },
            decoder: Affine::new(builder, &format!("{path}.decoder"), latent, inputs)?,
        };
        self.layers.push(layer);
        Ok(self.layers.len() - 1)
    }

    /// Shape of the noise of a pass: layers, members, latent size.
    pub(crate) fn noise_shape(&self) -> [i64; 3] {
        let settings = &self.settings;
        [self.layers.len() as i64, i64::from(settings.members), i64::from(settings.latent)]
    }

    /// Standard normal noise for a pass, from libtorch's generator of the device.
    pub(crate) fn draw_noise(&self) -> Tensor {
        let codes = &self.layers[0].codes;
        Tensor::randn(self.noise_shape(), (codes.kind(), codes.device()))
    }

    /// Decoded vectors of all layers, for noise as [`Self::draw_noise`] gives it.
    pub(crate) fn decode(&self, noise: &Tensor) -> Decoded {
        let posteriors: Vec<Posterior> = self.layers.iter().map(LatentLayer::encode).collect();
        // One operation for all layers: they are small and many, and would be bound by launches.
        let means = Tensor::stack(&map(&posteriors, |posterior| &posterior.mean), 0);
        let log_variances = Tensor::stack(&map(&posteriors, |posterior| &posterior.log_variance), 0);
        let latents = (&means + (&log_variances * 0.5).exp() * noise * self.settings.std_factor).unbind(0);
        let scales = self
            .layers
            .iter()
            .zip(posteriors.iter().zip(&latents))
            .map(|(layer, (posterior, latent))| match layer.sampling {
                LatentSampling::Sampled => layer.decoder.forward(latent),
                LatentSampling::Autoencoder => layer.decoder.forward(&posterior.hidden),
            })
            .collect();
        Decoded { scales, means, log_variances }
    }

    /// Loss of vectors that [`Self::decode`] gave.
    pub(crate) fn loss(&self, decoded: &Decoded) -> LatentLoss {
        let settings = &self.settings;
        let kl = divergence(&decoded.means, &decoded.log_variances);
        let kl = match settings.kl_reduction {
            KlReduction::Sum => kl.sum_dim_intlist([1i64, 2].as_slice(), false, None),
            KlReduction::Mean => kl.mean_dim([1i64, 2].as_slice(), false, None),
        };
        let errors: Vec<Tensor> = self
            .layers
            .iter()
            .zip(&decoded.scales)
            .map(|(layer, scales)| scales.mse_loss(&layer.codes, Reduction::Mean))
            .collect();
        let reconstruction = Tensor::stack(&errors, 0);
        let divisor = match settings.loss_divisor {
            LossDivisor::LayersPlusOne => self.layers.len() + 1,
            LossDivisor::Layers => self.layers.len(),
        } as f64;
        let total = (&reconstruction * (settings.reconstruction_weight / divisor)
            + &kl * (settings.kl_weight / divisor))
            .sum(None);
        LatentLoss { total, kl: kl.detach(), reconstruction: reconstruction.detach() }
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(|layer| layer.path.as_str())
    }

    /// Analytic posterior over the vectors of the layer at `path`.
    pub(crate) fn decoded_posterior(&self, path: &str) -> Option<DecodedPosterior> {
        let layer = self.layers.iter().find(|layer| layer.path == path)?;
        Some(no_grad(|| self.decoded(layer)))
    }

    fn decoded(&self, layer: &LatentLayer) -> DecodedPosterior {
        let (center, variance) = self.latent_moments(layer, &layer.encode());
        let mean = layer.decoder.forward(&center);
        // D diag(s²e^ℓⱼ) Dᵀ as a square, so that rounding leaves it symmetric.
        let root = layer.decoder.weight.unsqueeze(0) * variance.sqrt().unsqueeze(1);
        DecodedPosterior { mean, covariance: root.matmul(&root.transpose(1, 2)) }
    }

    /// Mean and variance of what is decoded, each `[J, d]`.
    fn latent_moments(&self, layer: &LatentLayer, posterior: &Posterior) -> (Tensor, Tensor) {
        match layer.sampling {
            LatentSampling::Sampled => (
                posterior.mean.shallow_clone(),
                posterior.log_variance.exp() * self.settings.std_factor.powi(2),
            ),
            LatentSampling::Autoencoder => (posterior.hidden.shallow_clone(), posterior.hidden.zeros_like()),
        }
    }

    pub(crate) fn diagnostics(&self) -> Vec<LayerDiagnostics> {
        let rows: Vec<Tensor> = no_grad(|| self.layers.iter().map(|layer| self.diagnose(layer)).collect());
        if rows.is_empty() {
            return Vec::new();
        }
        // sync: copies three numbers a layer to the host
        let table = Tensor::stack(&rows, 0).to_kind(Kind::Double).to_device(tch::Device::Cpu);
        self.paths()
            .enumerate()
            .map(|(row, path)| LayerDiagnostics {
                layer: path.to_owned(),
                kl: table.double_value(&[row as i64, 0]),
                reconstruction: table.double_value(&[row as i64, 1]),
                spread: table.double_value(&[row as i64, 2]),
            })
            .collect()
    }

    fn diagnose(&self, layer: &LatentLayer) -> Tensor {
        let posterior = layer.encode();
        let (center, variance) = self.latent_moments(layer, &posterior);
        let decoded = layer.decoder.forward(&center);
        let variance = variance.matmul(&layer.decoder.weight.square().tr());
        let members = layer.codes.size()[0] as f64;
        let kl = divergence(&posterior.mean, &posterior.log_variance).sum(None) / members;
        let error = ((&decoded - &layer.codes).square() + variance).mean(None);
        let spread = decoded.std_dim([0i64].as_slice(), false, false).mean(None);
        Tensor::stack(&[kl, error, spread], 0)
    }
}

/// What a pass decodes.
pub(crate) struct Decoded {
    /// α̂ of each layer, `[J, I]`.
    pub(crate) scales: Vec<Tensor>,
    /// `[L, J, d]`.
    means: Tensor,
    /// `[L, J, d]`.
    log_variances: Tensor,
}

/// KL(N(μ, e^ℓ) ‖ N(0, 1)) of each dimension: ½(μ² + e^ℓ − ℓ − 1).
fn divergence(mean: &Tensor, log_variance: &Tensor) -> Tensor {
    (mean.square() + log_variance.exp() - log_variance - 1.0) * 0.5
}

fn map<T>(items: &[T], f: impl Fn(&T) -> &Tensor) -> Vec<&Tensor> {
    items.iter().map(f).collect()
}
