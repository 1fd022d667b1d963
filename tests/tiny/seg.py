"""A small segmentation network."""
from torch import nn

from tests.tiny import Backbone


class Net(nn.Module):
    aliases = {}
    class_key = ('classifier.bias', 0, 1)

    def __init__(self, n_classes, stride_first=False, ceil_mode=False):
        super().__init__()
        self.backbone = Backbone()
        self.classifier = nn.Conv2d(16, n_classes + 1, 3, padding=1)

    def forward(self, x):
        return self.classifier(self.backbone(x))

    def parameter_groups(self):
        return list(self.backbone.parameters()), [self.classifier.weight], [self.classifier.bias]
