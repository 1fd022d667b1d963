"""A small CAM network."""
from torch import nn

from tests.tiny import Backbone


class Net(nn.Module):
    aliases = {}
    class_key = ('classifier.weight', 0)

    def __init__(self, n_classes):
        super().__init__()
        self.resnet50 = Backbone()
        self.classifier = nn.Conv2d(16, n_classes, 1, bias=False)

    def forward(self, x):
        return self.classifier(self.resnet50(x).mean((2, 3), keepdim=True)).flatten(1)

    def activations(self, x):
        return self.classifier(self.resnet50(x)).relu()

    def parameter_groups(self):
        return list(self.resnet50.parameters()), list(self.classifier.parameters())
