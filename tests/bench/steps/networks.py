"""WideResNet-d-k, deterministic, BatchEnsemble and LP-BNN, as the users of these methods write them in PyTorch.

The structure is that of LP-BNN's authors: rows are member-major, member-wise vectors are repeated to one a row by `cat`, each
member has normalisations of its own in LP-BNN, and each layer computes its VAE and its loss by itself. The names of the
parameters are those of our checkpoints, so that a checkpoint loads; `agree.py` shows that a step comes to the same.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = ((16, 1), (32, 2), (64, 2))


def rows(vectors: Tensor, count: int) -> Tensor:
    """`[J, C]` as `[J·B, C]`: the row of each member B times."""
    each = count // vectors.size(0)
    return torch.cat([vectors] * each, dim=1).view(count, vectors.size(1))


def over_space(vectors: Tensor, x: Tensor) -> Tensor:
    vectors = rows(vectors, x.size(0))
    return vectors if x.dim() == 2 else vectors[:, :, None, None]


class Member(nn.Module):
    """A convolution or a linear layer of BatchEnsemble."""

    def __init__(self, layer: nn.Module, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shape = (members, inputs, outputs)
        self.weight = layer.weight
        self.options = {} if isinstance(layer, nn.Linear) else {"stride": layer.stride, "padding": layer.padding}
        self.alpha = nn.Parameter(torch.randn(members, inputs) * 0.5 + 1)
        self.gamma = nn.Parameter(torch.randn(members, outputs) * 0.5 + 1)
        self.bias = nn.Parameter(layer.bias.detach().repeat(members, 1))

    def scale(self) -> Tensor:
        return self.alpha

    def forward(self, x: Tensor) -> Tensor:
        alpha = over_space(self.scale(), x)
        if self.options:
            y = F.conv2d(x * alpha, self.weight, **self.options)
        else:
            y = F.linear(x * alpha, self.weight)
        return y * over_space(self.gamma, y) + over_space(self.bias, y)


class Latent(Member):
    """As `Member`, with input-side vectors that a VAE decodes."""

    def __init__(self, layer: nn.Module, members: int, inputs: int, outputs: int, latent: int, std: float) -> None:
        super().__init__(layer, members, inputs, outputs)
        self.alpha.requires_grad_(False)
        self.std = std
        self.encoder = nn.Linear(inputs, latent)
        self.mean = nn.Linear(latent, latent)
        self.log_variance = nn.Linear(latent, latent)
        self.decoder = nn.Linear(latent, inputs)
        self.loss = torch.zeros(())

    def scale(self) -> Tensor:
        hidden = F.relu(self.encoder(self.alpha))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        decoded = self.decoder(mean + self.std * torch.exp(0.5 * log_variance) * torch.randn_like(mean))
        if self.training:
            divergence = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
            self.loss = F.mse_loss(decoded, self.alpha) + divergence
        return decoded


class MemberNorm(nn.Module):
    """A normalisation for each member."""

    def __init__(self, channels: int, members: int, momentum: float) -> None:
        super().__init__()
        self.each = nn.ModuleList(nn.BatchNorm2d(channels, momentum=momentum) for _ in range(members))
        for norm in self.each:
            nn.init.normal_(norm.weight, 1.0, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([norm(part) for norm, part in zip(self.each, x.chunk(len(self.each)))])


class Method:
    """What a method makes of layers and normalisations."""

    def __init__(self, name: str, members: int, latent: int = 32, std: float = 1.0) -> None:
        self.name = name
        self.members = 1 if name == "deterministic" else members
        self.latent, self.std = latent, std

    def layer(self, layer: nn.Module, inputs: int, outputs: int, shortcut: bool = False) -> nn.Module:
        if self.name == "deterministic" or (shortcut and self.name == "batch-ensemble"):
            return layer
        if self.name == "batch-ensemble":
            return Member(layer, self.members, inputs, outputs)
        return Latent(layer, self.members, inputs, outputs, self.latent, self.std)

    def conv(self, inputs: int, outputs: int, kernel: int, stride: int, shortcut: bool = False) -> nn.Module:
        layer = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2)
        return self.layer(layer, inputs, outputs, shortcut)

    def norm(self, channels: int, last: bool = False) -> nn.Module:
        if self.name == "lp-bnn":
            return MemberNorm(channels, self.members, 0.1)
        return nn.BatchNorm2d(channels, momentum=0.9 if last else 0.1)


class Block(nn.Module):
    def __init__(self, method: Method, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = method.norm(inputs)
        self.conv1 = method.conv(inputs, outputs, 3, 1)
        self.bn2 = method.norm(outputs)
        self.conv2 = method.conv(outputs, outputs, 3, stride)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else method.conv(inputs, outputs, 1, stride, shortcut=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.bn1(x)))
        y = self.conv2(F.relu(self.bn2(y)))
        return y + self.shortcut(x)


class WideResNet(nn.Module):
    def __init__(self, method: Method, depth: int, widen: int, classes: int = 10) -> None:
        super().__init__()
        self.members = method.members
        self.stem = method.conv(3, 16, 3, 1)
        inputs, groups = 16, []
        for width, stride in GROUPS:
            blocks = []
            for index in range((depth - 4) // 6):
                blocks.append(Block(method, inputs, width * widen, stride if index == 0 else 1))
                inputs = width * widen
            groups.append(nn.Sequential(*blocks))
        self.groups = nn.Sequential(*groups)
        self.bn = method.norm(inputs, last=True)
        self.linear = method.layer(nn.Linear(inputs, classes), inputs, classes)
        self.latent_layers = [module for module in self.modules() if isinstance(module, Latent)]

    def forward(self, x: Tensor) -> Tensor:
        y = self.groups(self.stem(x))
        y = F.relu(self.bn(y))
        y = F.avg_pool2d(y, y.size(-1)).flatten(1)
        return self.linear(y)

    def latent_loss(self) -> Tensor | None:
        layers = self.latent_layers
        return sum(layer.loss for layer in layers) / (len(layers) + 1) if layers else None


def loss_of(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The loss of a step: every member sees every image."""
    members = network.members
    loss = F.cross_entropy(network(torch.cat([images] * members)), torch.cat([labels] * members))
    latent = network.latent_loss()
    return loss if latent is None else loss + latent


def optimizer_of(network: nn.Module) -> torch.optim.Optimizer:
    scales = [p for name, p in network.named_parameters() if name.endswith((".alpha", ".gamma")) and p.requires_grad]
    others = [p for name, p in network.named_parameters() if not name.endswith((".alpha", ".gamma")) and p.requires_grad]
    groups = [{"params": others, "weight_decay": 5e-4}, {"params": scales, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=0.05, momentum=0.9)


def members_of_checkpoint(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors of a checkpoint of ours below `prefix`, with one normalisation a member as modules of their own."""
    found = {}
    for name, tensor in state.items():
        if not name.startswith(prefix):
            continue
        name = name.removeprefix(prefix)
        path, last = name.rsplit(".", 1)
        if path.rsplit(".", 1)[-1] in ("bn", "bn1", "bn2") and tensor.dim() == 2:
            found |= {f"{path}.each.{member}.{last}": row for member, row in enumerate(tensor)}
        else:
            found[name] = tensor
    return found
