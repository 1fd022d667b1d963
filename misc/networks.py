"""Networks by the name of their module: built, started from ImageNet weights, or loaded and made
ready. What they must offer stands in net/__init__.py.
"""
import ast
import hashlib
import importlib
import inspect
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import nn

from misc import torchutils
from misc.files import weights
from misc.method.objectives import Objective
from misc.pyutils import UserError, log
from net import backbone_of


def module_name(name: str) -> str:
    """The module behind a name: 'timm:NAME' -> that of the networks of timm, any other name as it
    is.
    """
    return 'net.timm_backbone' if name.startswith('timm:') else name


def module_of(name: str, flag: str, wanted: str = 'Net') -> ModuleType:
    """A module that has the class `wanted`. Raises UserError, which names the flag, where there is
    none.
    """
    try:
        module = importlib.import_module(module_name(name))
        if module_name(name) != name:
            module.check(name.partition(':')[2])
    except (ImportError, ValueError) as error:
        raise UserError(f'--{flag} {name}: cannot be imported ({error})') from error
    if not hasattr(module, wanted):
        raise UserError(f'--{flag} {name}: a module without a class {wanted}')
    return module


def build(name: str, *arguments: Any, backbone: str | None = None, **options: Any) -> nn.Module:
    """The Net of a module; backbone: the module of another backbone than its own."""
    net = importlib.import_module(name).Net
    if backbone is not None:
        taken = inspect.signature(net).parameters.values()
        if not any(each.name == 'backbone' or each.kind is each.VAR_KEYWORD for each in taken):
            raise UserError(f'--backbone {backbone}: the Net of {name} takes no other backbone '
                            f'than its own')
        options['backbone'] = backbone_named(backbone)
    return net(*arguments, **options)


def backbone_named(name: str) -> nn.Module:
    """The Backbone of a module, or of timm's network NAME where `name` is timm:NAME.

    Raises UserError where there is none, and where timm's does not keep to net/__init__.py.
    """
    made = module_of(name, 'backbone', 'Backbone').Backbone
    if module_name(name) == name:
        return made()
    try:
        backbone = made(name.partition(':')[2])
    except ValueError as error:
        raise UserError(f'--backbone {name}: {error}') from error
    log.info('backbone: %s, %d channels at stride %d', name, backbone.channels, backbone.stride)
    return backbone


def start(name: str, *arguments: Any, pretrained: str, seed: int,
          **options: Any) -> tuple[nn.Module, str]:
    """A network to train, whose random weights come from `seed`; and what tells the weights of its
    backbone apart.
    """
    torch.manual_seed(seed)
    net = build(name, *arguments, **options)
    return net, weights.load_pretrained(backbone_of(net), pretrained)


def objective(name: str | None, flag: str, published: type[Objective]) -> type[Objective]:
    """The paper's objective, or the class Objective of a module of one's own."""
    return published if name is None else module_of(name, flag, 'Objective').Objective


def load(name: str, *arguments: Any, path: str | os.PathLike, remedy: str, device: torch.device,
         precision: str, classes: Sequence[str] | None = None,
         **options: Any) -> tuple[nn.Module, str]:
    """A trained network, ready for inference; and the digest of its weights. Raises UserError as
    `weights.load_checkpoint`.
    """
    net = build(name, *arguments, **options)
    digest = weights.load_checkpoint(net, path, remedy, classes)
    prepare(net, device, precision)
    return net, digest


def prepare(net: nn.Module, device: torch.device, precision: str) -> None:
    """Make a network with loaded weights ready for inference, and for nothing else: on the device,
    channels last, batch norms folded, the backbone's weights in `precision` once instead of at
    every image.
    """
    net.eval().requires_grad_(False)
    net.to(device, memory_format=torch.channels_last)
    backbone = backbone_of(net)
    fold = getattr(backbone, 'fold_norms', None)
    if fold is not None:  # a network of one's own need not have it
        fold()
        backbone.to(torchutils.PRECISIONS[precision])


def code_of(*names: str) -> str:
    """16 hex digits that tell the code of modules apart; comments, docstrings and layout do not
    count.
    """
    total = hashlib.sha256()
    for name in names:
        tree = ast.parse(inspect.getsource(importlib.import_module(module_name(name))))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef,
                                 ast.FunctionDef)) and ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        total.update(ast.dump(tree).encode())
    return total.hexdigest()[:16]
