"""The CAM network: backbone, global average, 1x1 classifier (Zhou et al., CVPR 2016).

In IRN's ResNet-50 form.
"""
import torch
from torch import nn
from torch.nn import functional as F

from net.resnet50 import ResNet50

# the authors' modules hold each tensor under several names; beginnings of the others -> ours
ALIASES = {
    'stage1.0.': 'resnet50.conv1.', 'stage1.1.': 'resnet50.bn1.', 'stage1.4.': 'resnet50.layer1.',
    'stage2.0.': 'resnet50.layer2.', 'stage3.0.': 'resnet50.layer3.',
    'stage4.0.': 'resnet50.layer4.',
    'backbone.0.0.': 'resnet50.conv1.', 'backbone.0.1.': 'resnet50.bn1.',
    'backbone.0.4.': 'resnet50.layer1.',
    'backbone.1.0.': 'resnet50.layer2.', 'backbone.2.0.': 'resnet50.layer3.',
    'backbone.3.0.': 'resnet50.layer4.',
}


class Net(nn.Module):
    """CAM's network; its activations have the backbone's stride, 16.

    x: (N, 3, H, W).
    Net(x): logits (N, C).
    Net.activations(x): relu(classifier(features)), (N, C, h, w).
    The gradient stops after layer2, so that conv1 to layer2 keep their ImageNet weights.
    """

    aliases = ALIASES | {'newly_added.0.': 'classifier.'}
    class_key = ('classifier.weight', 0)

    def __init__(self, n_classes: int, backbone: nn.Module | None = None):
        super().__init__()
        self.resnet50 = ResNet50() if backbone is None else backbone
        self.resnet50.freeze(layers=2)
        self.stride = self.resnet50.stride
        self.classifier = nn.Conv2d(self.resnet50.channels, n_classes, 1, bias=False)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the backbone's features.

        x: (N, 3, H, W).
        Returns (N, 2048, h, w).
        """
        return self.resnet50(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = F.adaptive_avg_pool2d(self.features(x), 1)
        return self.classifier(pooled).flatten(1)

    def activations(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.classifier(self.features(x)))

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return (backbone, head): what the two learning rates apply to."""
        return list(self.resnet50.parameters()), list(self.classifier.parameters())
