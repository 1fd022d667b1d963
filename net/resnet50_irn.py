"""IRN: where class boundaries and the centres of objects lie (Ahn et al., CVPR 2019)."""
import torch
from torch import nn

from net.resnet50 import ResNet50


class MeanShift(nn.Module):
    """Subtract a stored mean (2,), outside of training.

    `train_irn` measures it after the last epoch.
    """

    def __init__(self):
        super().__init__()
        self.register_buffer('running_mean', torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.training else x - self.running_mean[:, None, None]


def _branch(inplanes: int, outplanes: int, groups: int, upsample: int = 1) -> nn.Sequential:
    """1x1 convolution without bias, GroupNorm, bilinear upsampling where asked for, ReLU."""
    layers = [nn.Conv2d(inplanes, outplanes, 1, bias=False), nn.GroupNorm(groups, outplanes)]
    if upsample > 1:
        layers.append(nn.Upsample(scale_factor=upsample, mode='bilinear', align_corners=False))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


def _cut(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return x[..., :like.shape[2], :like.shape[3]]


class Net(nn.Module):
    """IRN's network; both of its outputs have stride 4.

    x: (N, 3, H, W).
    Net(x): edge logits (N, 1, h, w) and displacement (N, 2, h, w), rows then columns.
    The backbone is never trained: only the heads are.
    """

    aliases = {
        'stage1.0.': 'resnet50.conv1.', 'stage1.1.': 'resnet50.bn1.',
        'stage2.0.': 'resnet50.layer1.',
        'stage3.0.': 'resnet50.layer2.', 'stage4.0.': 'resnet50.layer3.',
        'stage5.0.': 'resnet50.layer4.',
        'backbone.0.0.': 'resnet50.conv1.', 'backbone.0.1.': 'resnet50.bn1.',
        'backbone.1.0.': 'resnet50.layer1.',
        'backbone.2.0.': 'resnet50.layer2.', 'backbone.3.0.': 'resnet50.layer3.',
        'backbone.4.0.': 'resnet50.layer4.',
        'fc_dp7.4.': 'mean_shift.', 'dp_layers.6.4.': 'mean_shift.',
    } | {f'edge_layers.{n}.': f'fc_edge{n + 1}.' for n in range(6)} | {
        f'dp_layers.{n}.': f'fc_dp{n + 1}.' for n in range(7)}
    class_key = None  # knows no classes: the same weights serve any data set

    def __init__(self, n_classes: int | None = None):
        super().__init__()
        self.resnet50 = ResNet50().requires_grad_(False)
        self.fc_edge1 = _branch(64, 32, 4)
        self.fc_edge2 = _branch(256, 32, 4)
        self.fc_edge3 = _branch(512, 32, 4, upsample=2)
        self.fc_edge4 = _branch(1024, 32, 4, upsample=4)
        self.fc_edge5 = _branch(2048, 32, 4, upsample=4)
        self.fc_edge6 = nn.Conv2d(160, 1, 1)
        self.fc_dp1 = _branch(64, 64, 8)
        self.fc_dp2 = _branch(256, 128, 16)
        self.fc_dp3 = _branch(512, 256, 16)
        self.fc_dp4 = _branch(1024, 256, 16, upsample=2)
        self.fc_dp5 = _branch(2048, 256, 16, upsample=2)
        self.fc_dp6 = _branch(768, 256, 16, upsample=2)
        self.fc_dp7 = nn.Sequential(*_branch(448, 256, 16), nn.Conv2d(256, 2, 1, bias=False))
        self.mean_shift = MeanShift()

    def stages(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the outputs of stem, layer1, layer2, layer3, layer4, without gradient.

        x: (N, 3, H, W).
        Their strides are 4, 4, 8, 16, 16.
        """
        backbone = self.resnet50
        with torch.no_grad():
            outputs = [backbone.stem(x)]
            for layer in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4):
                outputs.append(layer(outputs[-1]))
        return outputs

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        stages = self.stages(x)
        return self.edge(stages), self.displacement(stages)

    def edge(self, stages: list[torch.Tensor]) -> torch.Tensor:
        x1, x2, x3, x4, x5 = stages
        branches = (self.fc_edge1(x1), self.fc_edge2(x2), self.fc_edge3(x3), self.fc_edge4(x4),
                    self.fc_edge5(x5))
        return self.fc_edge6(torch.cat([_cut(branch, x2) for branch in branches], 1))

    def displacement(self, stages: list[torch.Tensor]) -> torch.Tensor:
        x1, x2, x3, x4, x5 = stages
        deep = [self.fc_dp3(x3)] + [_cut(branch, x3)
                                    for branch in (self.fc_dp4(x4), self.fc_dp5(x5))]
        up = _cut(self.fc_dp6(torch.cat(deep, 1)), x2)
        return self.mean_shift(self.fc_dp7(torch.cat([self.fc_dp1(x1), self.fc_dp2(x2), up], 1)))

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return (edge head, displacement head): what the two learning rates apply to."""
        groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
        for name, parameter in self.named_parameters():
            if not name.startswith('resnet50.'):
                groups[name.startswith('fc_dp')].append(parameter)
        return groups
