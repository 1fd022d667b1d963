"""A backbone of one's own, here a small vision transformer with patches of 14 pixels, which do not
divide the crops.

    python run_sample.py --backbone small_vit --pretrained none --train_cam_pass ...

timm's are used in the same way: `self.body = timm.create_model('vit_small_patch14_dinov2',
dynamic_img_size=True)` and, in forward, `self.body.forward_features`.
"""
import torch
from torch import nn
from torch.nn import functional as F


class Backbone(nn.Module):
    channels, stride = 32, 14

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, self.channels, self.stride, self.stride)
        layer = nn.TransformerEncoderLayer(self.channels, 4, 64, dropout=0.0, batch_first=True,
                                           norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x):
        """(N, 3, H, W) -> (N, channels, ceil(H/14), ceil(W/14)): the last patches are filled up
        with 0.
        """
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % self.stride, 0, -height % self.stride))
        patches = self.patches(x)
        tokens = self.body(patches.flatten(2).transpose(1, 2))
        return tokens.transpose(1,
                                2).reshape(
                                    patches.shape).contiguous(memory_format=torch.channels_last)

    def freeze(self, layers=0):
        for layer in self.body.layers[:len(self.body.layers) * layers // 4]:
            layer.requires_grad_(False)
