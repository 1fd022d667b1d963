"""DeepLab-V2 with ResNet-50: half the time and memory of ResNet-101 (ours)."""
from net.resnet50 import BLOCKS
from net.resnet101_deeplab import DeepLab


class Net(DeepLab):
    """DeepLab-V2 with ResNet-50."""

    blocks = BLOCKS
