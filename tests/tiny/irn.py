"""A small IRN network."""
import torch
from torch import nn

from net.resnet50_irn import MeanShift
from tests.tiny import Backbone


class Net(nn.Module):
    aliases = {}
    class_key = None

    def __init__(self, n_classes=None):
        super().__init__()
        self.resnet50 = Backbone().requires_grad_(False)
        self.to_edge = nn.Conv2d(8, 1, 1)
        self.to_displacement = nn.Conv2d(8, 2, 1)
        self.mean_shift = MeanShift()

    def stages(self, x):
        with torch.no_grad():
            return self.resnet50.stages(x)[:2]

    def edge(self, stages):
        return self.to_edge(stages[1])

    def displacement(self, stages):
        return self.mean_shift(self.to_displacement(stages[1]))

    def forward(self, x):
        stages = self.stages(x)
        return self.edge(stages), self.displacement(stages)

    def parameter_groups(self):
        return list(self.to_edge.parameters()), list(self.to_displacement.parameters())
