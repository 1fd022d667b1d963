"""The ResNet-50 backbone that CAM, AMN and IRN share (torchvision's key names).

Also the general form that the segmentation network uses at other depths and with dilation.

Shapes: images (N, 3, H, W), normalised; features (N, 2048, ceil(H/16), ceil(W/16)).
"""
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

BLOCKS = (3, 4, 6, 3)  # bottlenecks in layer1..layer4
UNDILATED = (1, 1, 1, 1)
STRIDES = (1, 2, 2, 1)  # layer4 keeps its resolution: features have stride 16 (authors' code)


class FixedBatchNorm(nn.BatchNorm2d):
    """Batch norm that uses the stored statistics, always; it learns weight and bias (authors)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False,
                            eps=self.eps)


class MaxPool(nn.MaxPool2d):
    """Max pooling that trains with deterministic kernels on a GPU, which torch's refuses."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not (x.requires_grad and torch.are_deterministic_algorithms_enabled()):
            return super().forward(x)
        with torch.no_grad():
            pooled, place = F.max_pool2d(x, self.kernel_size, self.stride, self.padding,
                                         self.dilation, self.ceil_mode, True)
        return x.flatten(2).gather(2, place.flatten(2)).view_as(pooled)


class Bottleneck(nn.Module):
    """A block: 1x1, 3x3, 1x1 to four times the planes, and the shortcut.

    The stride is in the 3x3, as torchvision has it, or in the first 1x1, as Caffe's weights want
    it.
    """

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int, norm: Callable[[int], nn.Module],
                 dilation: int = 1, stride_first: bool = False):
        super().__init__()
        outplanes = planes * self.expansion
        first, second = (stride, 1) if stride_first else (1, stride)
        self.conv1 = nn.Conv2d(inplanes, planes, 1, first, bias=False)
        self.bn1 = norm(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, second, dilation, dilation, bias=False)
        self.bn2 = norm(planes)
        self.conv3 = nn.Conv2d(planes, outplanes, 1, bias=False)
        self.bn3 = norm(outplanes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inplanes != outplanes:
            self.downsample = nn.Sequential(nn.Conv2d(inplanes, outplanes, 1, stride, bias=False),
                                            norm(outplanes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(nn.Module):
    """ResNet of bottlenecks without its classifier.

    blocks, strides, dilations: of layer1..layer4; a layer's dilation is that of each of its blocks,
      its stride that of its first.
    norm: makes the norm layer of a number of channels; `FixedBatchNorm` everywhere but in
      pre-training.
    stride_first: the stride is in a block's first 1x1 (Caffe's form).
    ceil_mode: pooling rounds up (Caffe's form).
    """

    def __init__(self, blocks: tuple[int, ...], strides: tuple[int, ...] = STRIDES,
                 dilations: tuple[int, ...] = UNDILATED,
                 norm: Callable[[int], nn.Module] = FixedBatchNorm, stride_first: bool = False,
                 ceil_mode: bool = False):
        super().__init__()
        self.torchvision_name = f'resnet{3 * sum(blocks) + 2}'  # whose ImageNet weights fit
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = norm(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = MaxPool(3, 2, 1, ceil_mode=ceil_mode)
        inplanes = 64
        for number, (length, stride,
                     dilation) in enumerate(zip(blocks, strides, dilations, strict=True), start=1):
            planes = 64 * 2 ** (number - 1)
            layer = [Bottleneck(inplanes, planes, stride, norm, dilation, stride_first)]
            inplanes = planes * Bottleneck.expansion
            layer += [Bottleneck(inplanes, planes, 1, norm, dilation) for _ in range(length - 1)]
            setattr(self, f'layer{number}', nn.Sequential(*layer))
        # as torchvision starts it; replaced where ImageNet weights are loaded
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features before layer1.

        x: (N, 3, H, W).
        Returns (N, 64, ceil(H/4), ceil(W/4)).
        """
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features at the stride that `strides` make.

        x: (N, 3, H, W).
        Returns (N, 2048, h, w); ceil(H/16), ceil(W/16) by default.
        """
        return self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))

    def fold_norms(self) -> None:
        """Put every batch norm into the convolution before it, for inference alone.

        The same function, but for rounding, with a third of the memory traffic.
        """
        for block in [self, *(module for module in self.modules()
                              if isinstance(module, Bottleneck))]:
            for number in (1, 2, 3):
                if hasattr(block, f'conv{number}'):
                    fused = fuse_conv_bn_eval(getattr(block, f'conv{number}'),
                                              getattr(block, f'bn{number}').eval())
                    setattr(block, f'conv{number}', fused)
                    setattr(block, f'bn{number}', nn.Identity())
            if getattr(block, 'downsample', None) is not None:
                block.downsample = fuse_conv_bn_eval(block.downsample[0],
                                                     block.downsample[1].eval())

    def freeze(self, layers: int = 0) -> None:
        """Do not train conv1, bn1 (authors' code) and the first `layers` layers."""
        for name in ('conv1', 'bn1', *(f'layer{number}' for number in range(1, layers + 1))):
            getattr(self, name).requires_grad_(False)


class ResNet50(ResNet):
    """ResNet-50 as CAM, AMN and IRN have it: layer4 at the resolution of layer3, no dilation."""

    channels, stride = 2048, 16

    def __init__(self, norm: Callable[[int], nn.Module] = FixedBatchNorm,
                 strides: tuple[int, ...] = STRIDES):
        super().__init__(BLOCKS, strides, norm=norm)


Backbone = ResNet50  # as --backbone names it
