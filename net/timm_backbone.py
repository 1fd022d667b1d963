"""A network of timm as the backbone of CAM and AMN: --backbone timm:NAME.

Its features are those of the last block, at stride 16 where timm builds the network so
(output_stride), else at the network's own. Weights are never fetched.
"""
import torch
from torch import nn
from torch.nn import functional as F

# What timm is asked for, the first that a network takes: the stride; images of any size (vision
# transformers, Swin); nothing.
ASKED = ({'output_stride': 16}, {'dynamic_img_size': True}, {'strict_img_size': False}, {})


def check(name: str) -> None:
    """Raise ImportError where timm cannot be imported, ValueError for no network of it."""
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision for another torch
        raise ImportError(f'{str(error).splitlines()[0]}; pip install timm, and a torchvision that '
                          f'fits torch {torch.__version__}') from error
    if ':' in name or not timm.is_model(name):
        near = timm.list_models(f'*{name}*')[:3] if name.isidentifier() else []
        raise ValueError('timm has no network of this name'
                         + (f': {" or ".join(near)}?' if near else '; timm.list_models lists them'))


class Backbone(nn.Module):
    """Features of images by a network of timm.

    Images (N, 3, H, W) -> (N, channels, ceil(H/stride), ceil(W/stride)); they are filled up with 0
    to whole strides. Batch norms keep their stored mean and variance, as those of the published
    backbone do.
    """

    def __init__(self, name: str):
        """Raises ImportError and ValueError as `check`, and ValueError where timm cannot give the
        features of images of any size.
        """
        super().__init__()
        check(name)
        self.name = f'timm:{name}'
        self.body = _built(name)
        if not hasattr(self.body, 'forward_intermediates'):
            raise ValueError('timm gives no features of its blocks')
        self.head = set(self.body.state_dict())  # names that only a file with the head has
        self.body.prune_intermediate_layers(1, prune_norm=False, prune_head=True)
        self.head -= set(self.body.state_dict())
        self.channels = self.body.feature_info[-1]['num_chs']
        self.stride = self.body.feature_info[-1]['reduction']
        self._try_out()

    def _try_out(self) -> None:
        """Train no parameter that no feature depends on: several processes would wait for its
        gradient. Raises ValueError where the features are not as promised.
        """
        self.eval()
        try:
            with torch.enable_grad():
                features = self(torch.zeros(1, 3, 2 * self.stride + 1, 5 * self.stride))
                features.sum().backward()
        except (AssertionError, RuntimeError) as error:
            raise ValueError('does not take images of any size: '
                             f'{str(error).splitlines()[0]}') from error
        wanted = (1, self.channels, 3, 5)
        if features.shape != wanted:
            raise ValueError(f'its features are {tuple(features.shape)}, not {wanted}')
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.grad is not None)
        self.zero_grad(set_to_none=True)
        self.train()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % self.stride, 0, -height % self.stride))
        features = self.body.forward_intermediates(x, indices=1, norm=True, output_fmt='NCHW',
                                                   intermediates_only=True)[-1]
        return features.contiguous(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> 'Backbone':
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def freeze(self, layers: int = 0) -> None:
        """Do not train the stem and the first `layers` quarters of what timm groups."""
        from timm.models import group_parameters
        groups = group_parameters(self.body, self.body.group_matcher(coarse=True))
        frozen = {name for number in range(1 + (len(groups) - 1) * layers // 4)
                  for name in groups[number]}
        for name, parameter in self.body.named_parameters():
            if name in frozen:
                parameter.requires_grad_(False)

    def own_names(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the tensors of a file, with timm's names or its own, by its own names."""
        state = {key.removeprefix('body.'): value for key, value in state.items()}
        return {f'body.{key}': value for key, value in state.items() if key not in self.head}


def _built(name: str) -> nn.Module:
    import timm
    for options in ASKED:
        try:
            return timm.create_model(name, pretrained=False, **options)
        except (TypeError, AssertionError, NotImplementedError) as error:
            if not options:
                raise ValueError(f'timm cannot build it: {str(error).splitlines()[0]}') from error
    raise AssertionError('the last of ASKED is empty')
