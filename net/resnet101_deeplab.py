"""DeepLab-V2 (Chen et al., TPAMI 2018) with ResNet-101: the segmentation network.

As kazuto1011/deeplab-pytorch has it.
"""
import torch
from torch import nn

from net.resnet50 import ResNet
from net.resnet50_amn import ASPP


class DeepLab(nn.Module):
    """DeepLab-V2 at a single scale: `misc.method.segmentation` adds the others.

    x: (N, 3, H, W).
    Net(x): logits (N, C+1, h, w) at stride 8, background first.
    stride_first, ceil_mode: the form of Caffe's weights, see `net.resnet50.ResNet`.
    Every batch norm uses its stored statistics, and its weight and bias are not trained.
    """

    aliases: dict[str, str] = {}
    class_key = ('classifier.c0.bias', 0, 1)
    blocks: tuple[int, ...]

    def __init__(self, n_classes: int, stride_first: bool = False, ceil_mode: bool = False):
        super().__init__()
        self.backbone = ResNet(self.blocks, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4),
                               stride_first=stride_first, ceil_mode=ceil_mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)
        self.classifier = ASPP(2048, n_classes + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.backbone(x))

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
        """Return what the three learning rates apply to.

        These are the backbone's convolutions, the head's weights, the head's biases.
        """
        head = list(self.classifier.parameters())
        return ([p for p in self.backbone.parameters() if p.requires_grad],
                [p for p in head if p.dim() > 1], [p for p in head if p.dim() == 1])


class Net(DeepLab):
    """DeepLab-V2 with ResNet-101."""

    blocks = (3, 4, 23, 3)
