"""A small AMN network."""
from torch import nn

from net.resnet50_amn import SeededDropout
from tests.tiny import Backbone


class Net(nn.Module):
    aliases = {}
    class_key = ('label_enc.weight', 1)

    def __init__(self, n_classes, label_conditioning=True):
        super().__init__()
        self.resnet50 = Backbone()
        self.label_enc = nn.Linear(n_classes, 16) if label_conditioning else None
        self.dropout = SeededDropout(0.1)
        self.classifier = nn.Conv2d(16, n_classes + 1, 3, padding=1)

    def forward(self, x, y, seeds=None):
        encoded = 1 if self.label_enc is None else self.label_enc(y)[:, :, None, None]
        return self.classifier(self.dropout(self.resnet50(x) * encoded, seeds))

    def parameter_groups(self):
        return list(self.resnet50.parameters()), [
            *self.classifier.parameters(),
            *([] if self.label_enc is None else self.label_enc.parameters())]
