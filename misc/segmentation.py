"""The segmentation network around its forward pass: pixels in, several scales and their maximum, label maps out (DeepLab-V2
of kazuto1011/deeplab-pytorch)."""
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from misc import inference, torchutils


def shrink(x: torch.Tensor, scale: float) -> torch.Tensor:
    """(N, 3, H, W) -> (N, 3, int(H*scale), int(W*scale)), at least 1 x 1: bilinear, without smoothing, sampled at exactly
    1/scale. As it is at scale 1."""
    if scale == 1:
        return x
    if min(x.shape[2:]) * scale < 1:
        return F.interpolate(x, [max(1, int(side * scale)) for side in x.shape[2:]], mode='bilinear', align_corners=False)
    return F.interpolate(x, scale_factor=scale, mode='bilinear', align_corners=False)


def at_scales(net: nn.Module, x: torch.Tensor, scales: Sequence[float]) -> list[torch.Tensor]:
    """The logits (N, C+1, h, w) of each scale at its own size, and last the maximum of all of them at the first's size.

    With one scale the maximum is that scale's logits, and there is no other output.
    """
    logits = [net(shrink(x, scale)) for scale in scales]
    if len(logits) == 1:
        return logits
    hw = logits[0].shape[2:]
    resized = [F.interpolate(each, hw, mode='bilinear', align_corners=False) for each in logits[1:]]
    return [*logits, torch.stack([logits[0], *resized]).amax(0)]


@torch.inference_mode()
def predict(net: nn.Module, image: torch.Tensor, scales: Sequence[float], flip: bool, device: torch.device,
            precision: str) -> torch.Tensor:
    """Logits (C+1, h, w) of a normalised image (1, 3, H, W): the maximum over the scales; with `flip` its mean with that
    of the mirror. float32, on `device`."""
    def forward(x: torch.Tensor) -> torch.Tensor:
        return at_scales(net, x, scales)[-1]

    image = torchutils.to_device(image, device)
    with torchutils.autocast(precision, device):
        return inference.with_mirror(forward, image).mean(0) if flip else forward(image)[0].float()


def label_map(logits: torch.Tensor, hw: tuple[int, int]) -> torch.Tensor:
    """(C+1, h, w) -> uint8 (H, W): the strongest of all classes at full size."""
    return inference.resize(logits, hw).argmax(0).to(torch.uint8)


def probabilities(logits: torch.Tensor, hw: tuple[int, int]) -> torch.Tensor:
    """(C+1, h, w) -> softmax at full size, (C+1, H, W)."""
    return inference.resize(logits, hw).softmax(0)
