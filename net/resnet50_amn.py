"""The activation manipulation network: backbone, label conditioning, dropout, ASPP (AMN, 3)."""
import torch
from torch import nn
from torch.nn import functional as F

from net.resnet50 import ResNet50
from net.resnet50_cam import ALIASES

DILATIONS = (6, 12, 18, 24)


class SeededDropout(nn.Module):
    """Dropout of single elements whose mask is drawn per image, whatever batch it is in."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor, seeds: torch.Tensor | None = None) -> torch.Tensor:
        """Drop elements in training.

        x: (N, ...).
        seeds: (N,) int64, on the CPU, or None for torch's own dropout.
        """
        if not self.training or seeds is None:
            return F.dropout(x, self.p, self.training)
        keep = torch.empty(x.shape, dtype=torch.bool, device=x.device)
        for mask, seed in zip(keep, seeds.tolist(), strict=True):
            mask.bernoulli_(1 - self.p, generator=torch.Generator(x.device).manual_seed(seed))
        return x * keep / (1 - self.p)


class ASPP(nn.Module):
    """Atrous spatial pyramid: the sum of four dilated 3x3 convolutions (DeepLab-V2)."""

    def __init__(self, inplanes: int, outplanes: int):
        super().__init__()
        for number, dilation in enumerate(DILATIONS):
            convolution = nn.Conv2d(inplanes, outplanes, 3, padding=dilation, dilation=dilation)
            nn.init.normal_(convolution.weight, 0, 0.01)
            nn.init.zeros_(convolution.bias)
            setattr(self, f'c{number}', convolution)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c0(x) + self.c1(x) + self.c2(x) + self.c3(x)


class Net(nn.Module):
    """AMN's network; its output has the backbone's stride, 16.

    x: (N, 3, H, W).
    y: (N, C), the image-level labels as 0 and 1.
    dropout_seeds: (N,) int64, where each image's dropout mask comes from in training.
    Net(x, y): logits (N, C+1, h, w), background first.
    label_conditioning: False leaves out the product with the encoded labels, to see what it does; y
      is then not looked at.
    """

    aliases = ALIASES | {'newly_added.0.': 'classifier.', 'newly_added.1.': 'label_enc.'}
    class_key = ('label_enc.weight', 1)

    def __init__(self, n_classes: int, label_conditioning: bool = True,
                 backbone: nn.Module | None = None):
        super().__init__()
        self.resnet50 = ResNet50() if backbone is None else backbone
        self.resnet50.freeze()
        self.stride = self.resnet50.stride
        channels = self.resnet50.channels
        self.label_enc = nn.Linear(n_classes, channels) if label_conditioning else None
        self.classifier = nn.Sequential(SeededDropout(0.1), ASPP(channels, n_classes + 1))

    def forward(self, x: torch.Tensor, y: torch.Tensor,
                dropout_seeds: torch.Tensor | None = None) -> torch.Tensor:
        features = self.resnet50(x)
        if self.label_enc is not None:
            features = features * self.label_enc(y)[:, :, None, None]
        dropout, aspp = self.classifier
        return aspp(dropout(features, dropout_seeds))

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return (backbone, head): what the two learning rates apply to."""
        conditioning = [] if self.label_enc is None else self.label_enc.parameters()
        return list(self.resnet50.parameters()), [*self.classifier.parameters(), *conditioning]
