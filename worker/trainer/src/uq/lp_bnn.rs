//! LP-BNN: BatchEnsemble whose input-side vectors are decoded from a small VAE per layer.
//!
//! Each converted layer keeps a code per member and an encoder-decoder shared by the members. The encoder
//! maps code j to a Gaussian q(zⱼ) = N(μⱼ, diag e^ℓⱼ), a draw of it is decoded to the layer's α̂ⱼ, and the
//! loss adds the error of reconstruction and the divergence from N(0, I). The settings may have the output-side
//! vectors γ encoded instead, or both sides, each by a VAE of its own.
//!
//! None of this depends on the images, so a forward pass decodes the vectors of all layers first and then
//! runs as a BatchEnsemble. The latent noise of a pass is one tensor `[V, J, d]`, for V VAEs.
//!
//! Source: Franchi et al., *Encoding the latent posterior of Bayesian Neural Networks for uncertainty
//! quantification*, arXiv 2012.02818; where the authors' programs differ from it and from each other, the
//! settings say which one is followed (`docs/methods/lp-bnn.md`).

use common::spec::{BiasMode, Encode, KlReduction, LatentSampling, LogVariance, LossDivisor, LpBnnSettings};
use tch::{Kind, Reduction, TchError, Tensor, no_grad};

use super::batch_ensemble::{LayerKind, MemberScales, Scale, ScaleShape, bias};
use super::posterior::{Side, Spread, VectorPosterior};
use crate::model::builder::{Builder, Init};

/// Latent part of the loss of one forward pass in training mode.
///
/// Nothing here has been copied to the host.
#[derive(Debug)]
pub struct LatentLoss {
    /// What is added to the cross-entropy: a scalar, weighted and divided as the settings say.
    pub total: Tensor,
    /// KL term of each VAE as the settings reduce it, unweighted: `[V]`, without gradient.
    pub kl: Tensor,
    /// Mean squared reconstruction error of each VAE, unweighted: `[V]`, without gradient.
    pub reconstruction: Tensor,
}

/// State of the latent posterior of one VAE. Has no noise in it: the quantities are expectations.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerDiagnostics {
    /// Path of the layer; with `/gamma` behind it where the VAE is that of the output side.
    pub layer: String,
    /// KL(q(zⱼ) ‖ N(0, I)) in nats, mean over members, whatever the loss weighs it by. Near 0, the
    /// posterior has collapsed onto the prior and no longer tells the members apart.
    pub kl: f64,
    /// Expected squared difference of a decoded vector and its code, mean over members and channels.
    pub reconstruction: f64,
    /// Standard deviation over members of the mean decoded vectors, mean over channels. Near 0, all members
    /// scale the layer's channels alike.
    pub spread: f64,
}

/// The posterior over the vectors that a VAE decodes: exactly Gaussian, because the decoder is linear.
#[derive(Debug)]
pub struct DecodedPosterior {
    /// Mean of each member's vector, `[J, C]`.
    pub mean: Tensor,
    /// Covariance of each member's vector, `[J, C, C]`, of rank at most the latent size; zero where the
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

/// Codes and VAE of one side of a layer, of C channels.
struct LatentLayer {
    /// Path of the layer, with `/gamma` behind it for the output side.
    name: String,
    path: String,
    side: Side,
    sampling: LatentSampling,
    /// `[J, C]`.
    codes: Tensor,
    /// C → d, followed by a ReLU.
    encoder: Affine,
    /// d → d.
    mean: Affine,
    /// d → d. `None`: the mean's head gives the log-variance too.
    log_variance: Option<Affine>,
    /// d → C.
    decoder: Affine,
}

/// Encoder's output for the J codes of a VAE; each `[J, d]`.
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

/// The VAEs of a network, in the order of its layers, input side first.
pub(crate) struct LatentSpace {
    settings: LpBnnSettings,
    vaes: Vec<LatentLayer>,
    /// Layers that have a VAE, or two.
    layers: usize,
}

impl LatentSpace {
    pub(crate) fn new(settings: &LpBnnSettings) -> Self {
        Self { settings: settings.clone(), vaes: Vec::new(), layers: 0 }
    }

    /// Creates the vectors, codes, VAEs and biases of the next layer below `path`.
    pub(crate) fn scales(
        &mut self,
        builder: &mut Builder,
        path: &str,
        shape: ScaleShape,
    ) -> Result<MemberScales, TchError> {
        let ScaleShape { kind, members, inputs, outputs, .. } = shape;
        self.layers += 1;
        let (alpha, gamma) = match self.settings.encode {
            Encode::Alpha => (true, false),
            Encode::Gamma => (false, true),
            Encode::Both => (true, true),
        };
        let alpha = if alpha {
            self.add(builder, path, Side::Alpha, kind, inputs)?
        } else {
            self.stored(builder, path, Side::Alpha, inputs)?
        };
        let gamma = if gamma {
            self.add(builder, path, Side::Gamma, kind, outputs)?
        } else {
            self.stored(builder, path, Side::Gamma, outputs)?
        };
        Ok(MemberScales { members, alpha, gamma, bias: bias(builder, BiasMode::PerMember, path, shape)? })
    }

    /// Vectors that are trained as in BatchEnsemble.
    fn stored(
        &self,
        builder: &mut Builder,
        path: &str,
        side: Side,
        channels: i64,
    ) -> Result<Scale, TchError> {
        let shape = [i64::from(self.settings.members), channels];
        let init = Init::Normal { mean: 1.0, std: self.settings.scale_std };
        builder.scale(format!("{path}.{}", side.name()), &shape, init).map(Scale::Stored)
    }

    /// Codes and VAE of one side.
    fn add(
        &mut self,
        builder: &mut Builder,
        path: &str,
        side: Side,
        kind: LayerKind,
        channels: i64,
    ) -> Result<Scale, TchError> {
        let settings = &self.settings;
        let (sampling, trainable) = match kind {
            LayerKind::Convolution => (settings.conv_sampling, settings.conv_codes_trainable),
            LayerKind::Linear => (settings.linear_sampling, settings.linear_codes_trainable),
        };
        let shape = [i64::from(settings.members), channels];
        let init = Init::Normal { mean: 1.0, std: settings.code_std };
        let code = format!("{path}.{}", side.name());
        let codes = if trainable {
            builder.scale(code, &shape, init)?
        } else {
            builder.frozen(code, &shape, init)?
        };
        // The input side's tensors have the names that they had when no other side could be encoded.
        let (name, vae) = match side {
            Side::Alpha => (path.to_owned(), path.to_owned()),
            Side::Gamma => (format!("{path}/gamma"), format!("{path}.gamma_vae")),
        };
        let latent = i64::from(settings.latent);
        self.vaes.push(LatentLayer {
            name,
            path: path.to_owned(),
            side,
            sampling,
            codes,
            encoder: Affine::new(builder, &format!("{vae}.encoder"), channels, latent)?,
            mean: Affine::new(builder, &format!("{vae}.mean"), latent, latent)?,
            // A head that nothing reads would get no gradient, which data-parallel reducers wait for.
            log_variance: match settings.log_variance {
                LogVariance::Separate => {
                    Some(Affine::new(builder, &format!("{vae}.log_variance"), latent, latent)?)
                }
                LogVariance::MeanHead => None,
            },
            decoder: Affine::new(builder, &format!("{vae}.decoder"), latent, channels)?,
        });
        Ok(Scale::Drawn(self.vaes.len() - 1))
    }

    /// Shape of the noise of a pass: VAEs, members, latent size.
    pub(crate) fn noise_shape(&self) -> [i64; 3] {
        let settings = &self.settings;
        [self.vaes.len() as i64, i64::from(settings.members), i64::from(settings.latent)]
    }

    /// Standard normal noise for a pass, from libtorch's generator of the device.
    pub(crate) fn draw_noise(&self) -> Tensor {
        let codes = &self.vaes[0].codes;
        Tensor::randn(self.noise_shape(), (codes.kind(), codes.device()))
    }

    /// Decoded vectors of all VAEs, for noise as [`Self::draw_noise`] gives it.
    pub(crate) fn decode(&self, noise: &Tensor) -> Decoded {
        let posteriors: Vec<Posterior> = self.vaes.iter().map(LatentLayer::encode).collect();
        // One operation for all VAEs: they are small and many, and would be bound by launches.
        let means = Tensor::stack(&map(&posteriors, |posterior| &posterior.mean), 0);
        let log_variances = Tensor::stack(&map(&posteriors, |posterior| &posterior.log_variance), 0);
        let latents = (&means + (&log_variances * 0.5).exp() * noise * self.settings.std_factor).unbind(0);
        let scales = self
            .vaes
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
            .vaes
            .iter()
            .zip(&decoded.scales)
            .map(|(layer, scales)| scales.mse_loss(&layer.codes, Reduction::Mean))
            .collect();
        let reconstruction = Tensor::stack(&errors, 0);
        // Layers, not VAEs: the terms of a VAE weigh the same whether or not the other side is encoded too.
        let divisor = match settings.loss_divisor {
            LossDivisor::LayersPlusOne => self.layers + 1,
            LossDivisor::Layers => self.layers,
        } as f64;
        let total = (&reconstruction * (settings.reconstruction_weight / divisor)
            + &kl * (settings.kl_weight / divisor))
            .sum(None);
        LatentLoss { total, kl: kl.detach(), reconstruction: reconstruction.detach() }
    }

    /// Names of the VAEs: the path of the layer, with `/gamma` behind it for the output side.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.vaes.iter().map(|vae| vae.name.as_str())
    }

    /// Analytic posterior over the vectors that the VAE of this name decodes.
    pub(crate) fn decoded_posterior(&self, name: &str) -> Option<DecodedPosterior> {
        let vae = self.vaes.iter().find(|vae| vae.name == name)?;
        let (mean, root) = no_grad(|| self.decoded(vae));
        // A square, so that rounding leaves it symmetric.
        Some(DecodedPosterior { mean, covariance: root.matmul(&root.transpose(1, 2)) })
    }

    /// Posteriors over the vectors of all VAEs.
    pub(crate) fn posteriors(&self) -> Vec<VectorPosterior> {
        let of_vae = |vae: &LatentLayer| {
            let (mean, factor) = no_grad(|| self.decoded(vae));
            VectorPosterior {
                layer: vae.path.clone(),
                side: vae.side,
                mean,
                spread: Spread::LowRank(factor),
                codes: Some(vae.codes.detach()),
            }
        };
        self.vaes.iter().map(of_vae).collect()
    }

    /// Mean `[J, C]` of the decoded vectors, and s · D · diag(exp(ℓⱼ/2)), `[J, C, d]`, whose square is their
    /// covariance.
    fn decoded(&self, vae: &LatentLayer) -> (Tensor, Tensor) {
        let (center, variance) = self.latent_moments(vae, &vae.encode());
        let factor = vae.decoder.weight.unsqueeze(0) * variance.sqrt().unsqueeze(1);
        (vae.decoder.forward(&center), factor)
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
        let rows: Vec<Tensor> = no_grad(|| self.vaes.iter().map(|layer| self.diagnose(layer)).collect());
        if rows.is_empty() {
            return Vec::new();
        }
        // sync: copies three numbers a layer to the host
        let table = Tensor::stack(&rows, 0).to_kind(Kind::Double).to_device(tch::Device::Cpu);
        self.names()
            .enumerate()
            .map(|(row, name)| LayerDiagnostics {
                layer: name.to_owned(),
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
    /// Vectors of each VAE, `[J, C]`.
    pub(crate) scales: Vec<Tensor>,
    /// `[V, J, d]`.
    means: Tensor,
    /// `[V, J, d]`.
    log_variances: Tensor,
}

/// KL(N(μ, e^ℓ) ‖ N(0, 1)) of each dimension: ½(μ² + e^ℓ − ℓ − 1).
fn divergence(mean: &Tensor, log_variance: &Tensor) -> Tensor {
    (mean.square() + log_variance.exp() - log_variance - 1.0) * 0.5
}

fn map<T>(items: &[T], f: impl Fn(&T) -> &Tensor) -> Vec<&Tensor> {
    items.iter().map(f).collect()
}
