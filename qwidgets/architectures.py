"""Small networks for a data set, each from an explicit seed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from qwidgets.checks import one_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwidgets.data import Dataset

# Up to this side the first convolution keeps every pixel.
_LARGEST_SMALL_IMAGE = 16


def build_model(name: str, data: Dataset, *, seed: int = 0) -> nn.Module:
    """Build an untrained network that fits the inputs and the classes or targets of a data set.

    Parameters
    ----------
    name : str
        ``"mlp"``: two hidden layers of 128 rectified units. The others take images. ``"conv"``:
        3 x 3 convolutions of 16, 16 and 32 rectified channels, the last with stride 2 (the first
        too where images are larger than 16 pixels), and a linear head. ``"resnet"``: a convolution
        (of stride 2 likewise), three residual blocks of 16, 32 and 64 channels with group
        normalisation, and a linear head. ``"attention"``: a transformer of two blocks, 64 features
        and 4 heads on patches (16 to 64 of them in images of 8 x 8 to 32 x 32 pixels), and a linear
        head on all of them. ``"encoder_decoder"``: an image for an image; 3 x 3 convolutions of 16
        rectified channels, of 32 at half and of 32 at a quarter of the sides, then up again beside
        what came down (a U-Net).
    data : Dataset
        Gives the input shape, and the number of classes or the shape of the targets.
    seed : int
        Seed of the initial parameters; the global random state is neither read nor changed.

    Returns
    -------
    torch.nn.Module
        Maps ``(n, *data.input_shape)`` float32 to ``(n, *data.output_shape)`` float32, on the CPU:
        logits ``(n, classes)``, or outputs of the shape of the targets.

    Raises
    ------
    ValueError
        Unknown name, or inputs or targets that the architecture cannot take.
    """
    one_of("model", name, _ARCHITECTURES)
    # On the meta device no layer draws its initial values: the global generator stays untouched.
    with torch.device("meta"):
        model = _ARCHITECTURES[name](data.input_shape, data.output_shape)
    model.to_empty(device="cpu")
    _initialise(model, torch.Generator().manual_seed(seed))
    return model


def _head(features: int, output_shape: tuple[int, ...]) -> list[nn.Module]:
    """Let a linear layer end in a shape."""
    head: list[nn.Module] = [nn.Linear(features, math.prod(output_shape), dtype=torch.float32)]
    return head if len(output_shape) == 1 else [*head, nn.Unflatten(-1, output_shape)]


def _mlp(input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> nn.Module:
    width = 128
    return nn.Sequential(
        # Counted from the end, so that the layer tells how many axes one input has.
        nn.Flatten(start_dim=-len(input_shape)),
        nn.Linear(math.prod(input_shape), width, dtype=torch.float32),
        nn.ReLU(),
        nn.Linear(width, width, dtype=torch.float32),
        nn.ReLU(),
        *_head(width, output_shape),
    )


def _image_shape(name: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width, or the reason why the model cannot take the inputs."""
    try:
        channels, height, width = input_shape
    except ValueError:
        message = (
            f"model {name!r} needs images of shape (channels, height, width), "
            f"got inputs of shape {input_shape}; use model='mlp'."
        )
        raise ValueError(message) from None
    return channels, height, width


def _first_stride(height: int, width: int) -> int:
    return 2 if min(height, width) > _LARGEST_SMALL_IMAGE else 1


def _convolution(channels: int, features: int, stride: int = 1, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(
        channels, features, size, stride=stride, padding=size // 2, dtype=torch.float32
    )


def _conv(input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> nn.Module:
    channels, height, width = _image_shape("conv", input_shape)
    layers: list[nn.Module] = []
    for features, stride in ((16, _first_stride(height, width)), (16, 1), (32, 2)):
        layers += [_convolution(channels, features, stride), nn.ReLU()]
        channels, height, width = features, -(-height // stride), -(-width // stride)
    head = _head(channels * height * width, output_shape)
    return nn.Sequential(*layers, nn.Flatten(start_dim=-3), *head)


class _Residual(nn.Module):
    """Two convolutions beside a skip connection (He et al., arXiv 1603.05027).

    Normalised over groups of channels of one image: an output that depends on the other images of
    the batch, as with batch normalisation, would be no loss function of its own image.
    """

    def __init__(self, channels: int, features: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_normalised(channels),
            _convolution(channels, features, stride),
            *_normalised(features),
            _convolution(features, features),
        )
        self.skip = nn.Identity() if stride == 1 else _convolution(channels, features, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.skip(x) + self.branch(x)
        return total


def _normalised(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.GroupNorm(channels // 8, channels, dtype=torch.float32), nn.ReLU()


def _resnet(input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> nn.Module:
    channels, height, width = _image_shape("resnet", input_shape)
    first = _first_stride(height, width)
    for stride in (first, 2, 2):
        height, width = -(-height // stride), -(-width // stride)
    return nn.Sequential(
        _convolution(channels, 16, first),
        _Residual(16, 16, 1),
        _Residual(16, 32, 2),
        _Residual(32, 64, 2),
        *_normalised(64),
        nn.Flatten(start_dim=-3),
        *_head(64 * height * width, output_shape),
    )


class _Attention(nn.Module):
    """Self-attention of several heads (Vaswani et al., arXiv 1706.03762).

    Written out, since PyTorch's fused kernels cannot be differentiated twice.
    """

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projections = nn.Linear(features, 3 * features, dtype=torch.float32)
        self.output = nn.Linear(features, features, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        each = self.projections(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = each.unbind()
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        output: Tensor = self.output(mixed)
        return output


class _Block(nn.Module):
    """Attention and a perceptron, each beside a skip connection and normalised before."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.LayerNorm(features, dtype=torch.float32), _Attention(features, heads)
        )
        self.perceptron = nn.Sequential(
            nn.LayerNorm(features, dtype=torch.float32),
            nn.Linear(features, 2 * features, dtype=torch.float32),
            nn.GELU(),
            nn.Linear(2 * features, features, dtype=torch.float32),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        total: Tensor = x + self.perceptron(x)
        return total


class _PatchTransformer(nn.Module):
    """A vision transformer (Dosovitskiy et al., arXiv 2010.11929) without a class token.

    Its head sees every patch: with a mean over them it learns far slower from few images.
    """

    def __init__(self, input_shape: tuple[int, int, int], output_shape: tuple[int, ...]) -> None:
        super().__init__()
        channels, height, width = input_shape
        features, heads = 64, 4
        side = max(2, -(-min(height, width) // 8))
        self.patches = nn.Conv2d(channels, features, side, stride=side, dtype=torch.float32)
        count = (height // side) * (width // side)
        self.position = nn.Parameter(torch.empty((count, features), dtype=torch.float32))
        self.blocks = nn.Sequential(_Block(features, heads), _Block(features, heads))
        self.head = nn.Sequential(
            nn.LayerNorm(features, dtype=torch.float32),
            nn.Flatten(start_dim=-2),
            *_head(count * features, output_shape),
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(-2).transpose(-1, -2) + self.position
        logits: Tensor = self.head(self.blocks(tokens))
        return logits


def _attention(input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> nn.Module:
    return _PatchTransformer(_image_shape("attention", input_shape), output_shape)


class _EncoderDecoder(nn.Module):
    """An image for an image (Ronneberger et al., arXiv 1505.04597), in three resolutions.

    What a pixel says depends on the whole of small images, and its own details reach it past the
    narrow middle.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.fine = _convolution(channels, 16)
        self.middle = _convolution(16, 32, 2)
        self.coarse = nn.Sequential(
            _convolution(32, 32, 2), nn.ReLU(), _convolution(32, 32), nn.ReLU()
        )
        self.to_middle = _convolution(64, 16)
        self.to_fine = _convolution(32, 16)
        self.head = _convolution(16, outputs, size=1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x).relu()
        middle = self.middle(fine).relu()
        hidden = self.coarse(middle)
        hidden = self.to_middle(_above(hidden, middle)).relu()
        hidden = self.to_fine(_above(hidden, fine)).relu()
        image: Tensor = self.head(hidden)
        return image


def _above(coarse: Tensor, fine: Tensor) -> Tensor:
    """Enlarge to the sides of another image, and lay it on that."""
    return torch.cat([functional.interpolate(coarse, size=fine.shape[-2:]), fine], -3)


def _encoder_decoder(input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> nn.Module:
    channels, height, width = _image_shape("encoder_decoder", input_shape)
    if len(output_shape) != len(input_shape) or output_shape[1:] != (height, width):
        message = (
            "model 'encoder_decoder' gives images with the sides of the inputs, "
            f"{(height, width)}, got data whose outputs have the shape {output_shape}; use "
            "model='conv'."
        )
        raise ValueError(message)
    return _EncoderDecoder(channels, output_shape[0])


_ARCHITECTURES: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], nn.Module]] = {
    "mlp": _mlp,
    "conv": _conv,
    "resnet": _resnet,
    "attention": _attention,
    "encoder_decoder": _encoder_decoder,
}


@torch.no_grad()
def _initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Draw weights and biases uniformly in +-1/sqrt(fan-in), PyTorch's rule for these layers.

    The weights of convolutions get the range of He et al. (arXiv 1502.01852), ``sqrt(6 / fan-in)``:
    in PyTorch's the signal shrinks from layer to layer, and the first epochs are lost to it.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            limit = 1 / math.sqrt(layer.weight[0].numel())
            gain = math.sqrt(6) if isinstance(layer, nn.Conv2d) else 1.0
            layer.weight.uniform_(-gain * limit, gain * limit, generator=generator)
            if layer.bias is not None:
                layer.bias.uniform_(-limit, limit, generator=generator)
        elif isinstance(layer, nn.GroupNorm | nn.LayerNorm):
            layer.reset_parameters()  # ones and zeros
        elif isinstance(layer, _PatchTransformer):
            layer.position.normal_(std=0.5, generator=generator)
