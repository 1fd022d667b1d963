"""What a network must offer.

Every module named by --cam_network, --amn_network, --irn_network and --seg_network has a class
`Net`, a torch.nn.Module; docs/extending.md walks through an example.

Of every Net:

    Net(n_classes, ...)     C foreground classes; IRN's is made without. AMN's takes
                            label_conditioning=True, the segmentation network's stride_first=False,
                            ceil_mode=False; CAM's and AMN's backbone=a Backbone where --backbone
                            names its module
    backbone                what ImageNet weights are loaded into, and what runs in --precision
                            (`resnet50` in the authors' networks, whose key names these are)
    parameter_groups()      the lists of parameters that the stage's learning rates apply to:
                            backbone, head (segmentation: backbone, weights of the head, its biases)
    stride = 16             pixels of the image to one of what the network gives; where it does not
                            divide the image's side the network gives ceil(side / stride)
    aliases = {}            beginnings of other names for the same tensors, as older files may have
                            them -> ours
    class_key = None        (name of a tensor, its axis that has an entry a class, planes there that
                            are no class): lets weights of another number of classes be refused in
                            words

What it computes, from images x (N, 3, H, W), normalised:

    CAM           Net(x) -> logits (N, C)
                  activations(x) -> (N, C, h, w), not negative
    AMN           Net(x, y, dropout_seeds) -> logits (N, C+1, h, w), background first
                  y: (N, C) image-level labels as 0 and 1
                  dropout_seeds: (N,) int64, where each image's dropout comes from in training,
                  None else
    IRN           Net(x) -> edge logits (N, 1, h, w), displacements (N, 2, h, w), at stride 4
                  the same in parts: stages(x), edge(stages), displacement(stages)
                  mean_shift.running_mean: (2,), subtracted in evaluation
    segmentation  Net(x) -> logits (N, C+1, h, w)

In training on a CPU every thread takes a share of the batch, and all call the network at once:
what it makes of an image depends on no other image, and is kept nowhere in the module. Batch norms
of the batch's statistics and torch's dropout are noticed: with them the batch stays whole.

A module named by --backbone has a class `Backbone`, a torch.nn.Module made without arguments:

    Backbone()(x) -> features (N, channels, h, w)
    channels, stride
    freeze(layers)          train no parameter of the first `layers` quarters (0: the stem alone),
                            nor let a gradient reach them
    torchvision_name        the torchvision network whose ImageNet weights fit; without it
                            --pretrained is none, or a file with its own names
    own_names(state)        where there is one: the tensors of such a file by this backbone's names
    fold_norms()            where there is one: puts norms into convolutions for inference

timm:NAME is the Backbone of net/timm_backbone.py, made of timm's network NAME.
"""
from typing import Protocol

from torch import nn

STRIDE = 16  # of a network that does not tell its own


class HasBackbone(Protocol):
    """A network whose backbone is named as this project names it, or as the authors do."""

    backbone: nn.Module
    resnet50: nn.Module


def backbone_of(net: HasBackbone) -> nn.Module:
    """Return what ImageNet weights are loaded into."""
    return net.backbone if hasattr(net, 'backbone') else net.resnet50


def stride_of(net: nn.Module) -> int:
    """Return the pixels of the image to one of what the network gives."""
    return getattr(net, 'stride', STRIDE)
