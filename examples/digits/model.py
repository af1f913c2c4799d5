"""The digits network: three stages and a head behind each of them."""

import numpy as np
from data import Floats
from torch import Tensor, nn
from torch.nn import functional

# What each head's loss may ask of the stages before it, against 1 for the full answer.
HEAD_SHARES = (0.05, 0.005, 1.0)


class ConvNorm(nn.Module):
    """A convolution without bias and its batch normalisation."""

    def __init__(self, channels: int, filters: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels, filters, kernel, stride, padding=kernel // 2, bias=False
        )
        self.norm = nn.BatchNorm2d(filters)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        return out

    def folded(self) -> tuple[Floats, Floats]:
        """Return weight and bias of the one convolution that equals both layers.

        Folding is done in float64: the exported network then differs from the trained
        one by one rounding of each weight only.
        """
        state = {k: v.double().numpy() for k, v in self.state_dict().items()}
        gain = state["norm.weight"] / np.sqrt(state["norm.running_var"] + self.norm.eps)
        weight = state["conv.weight"] * gain[:, None, None, None]
        bias = state["norm.bias"] - state["norm.running_mean"] * gain
        return weight.astype(np.float32), bias.astype(np.float32)


class Block(nn.Module):
    """Two 3x3 convolutions whose sum with the shortcut passes the last ReLU."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv0 = ConvNorm(channels, filters, 3, stride)
        self.conv1 = ConvNorm(filters, filters, 3, 1)
        self.shortcut = (
            ConvNorm(channels, filters, 1, stride) if channels != filters else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.relu(self.conv0(x)))
        short = x if self.shortcut is None else self.shortcut(x)
        return functional.relu(y + short)


class Head(nn.Module):
    """A linear classifier over the mean of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def eased(x: Tensor, share: float) -> Tensor:
    """Return `x` exactly; only `share` of the gradient flows back into it."""
    fixed = x.detach()
    return fixed + share * (x - fixed)


class DigitsNetwork(nn.Module):
    """The three stages and their heads; all are trained together.

    The first two stages are narrow, as on a weak device; most of the work is stage 3.
    A head trains on its own loss in full, but the stages obey it by `HEAD_SHARES` only:
    what the device computes serves the full answer first.

    Attributes:
        stages: Read `stem` output, `features1` and `features2`, in this order.
        heads: Read `features1`, `features2` and the last stage's output.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(1, 8, 3, 1)
        self.stages = nn.ModuleList(
            [
                nn.Sequential(Block(8, 8, 1)),
                nn.Sequential(Block(8, 16, 2)),
                nn.Sequential(Block(16, 64, 1), Block(64, 64, 1)),
            ]
        )
        self.heads = nn.ModuleList([Head(8), Head(16), Head(64)])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return float32 [N, 10] logits of exit 1, exit 2 and the full network."""
        x = functional.relu(self.stem(x))
        logits = []
        for stage, head, share in zip(
            self.stages, self.heads, HEAD_SHARES, strict=True
        ):
            x = stage(x)
            logits.append(head(eased(x, share)))
        return logits
