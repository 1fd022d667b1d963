"""Small networks with the interface of net/, for tests of everything around the networks."""
from torch import nn

from net.resnet50 import FixedBatchNorm

NETWORKS = {f'{name}_network': f'tests.tiny.{name}' for name in ('cam', 'amn', 'irn', 'seg')}
# a whole training in seconds: one epoch of two steps on the small tree
QUICK = NETWORKS | {f'{name}_{what}': value for name in ('cam', 'amn', 'irn')
                    for what, value in (('crop_size', 64), ('batch_size', 2),
                                        ('num_epoches', 1))} | {
    'irn_crop_size': 80, 'seg_crop_size': 64, 'seg_batch_size': 2, 'seg_steps': 2,
    'seg_learning_rate': 0.01,
    'cam_scales': [1.0, 0.5], 'cam_resize_long': [60, 80], 'exp_times': 3}


def layer(inplanes, outplanes, stride):
    return nn.Sequential(nn.Conv2d(inplanes, outplanes, 3, stride, 1, bias=False),
                         FixedBatchNorm(outplanes), nn.ReLU())


class Backbone(nn.Module):
    """Strides 4, 4, 8, 16, 16, as net/resnet50.py's."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(layer(3, 8, 2), layer(8, 8, 2))
        self.layer1, self.layer2 = layer(8, 8, 1), layer(8, 8, 2)
        self.layer3, self.layer4 = layer(8, 8, 2), layer(8, 16, 1)

    def stages(self, x):
        outputs = [self.stem(x)]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            outputs.append(stage(outputs[-1]))
        return outputs

    def forward(self, x):
        return self.stages(x)[-1]
