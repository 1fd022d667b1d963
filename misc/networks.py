"""Networks by the name of their module: built, started from ImageNet weights, or loaded.

What they must offer stands in net/__init__.py.
"""
import ast
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from misc import torchutils
from misc.files import weights
from misc.method.objectives import Objective
from misc.pyutils import UserError, log
from net import backbone_of

SCHEME = 2  # of `code_of`; records of another one are not compared (records.completed)
CONTENT = 'net.', 'misc.method.', 'misc.indexing.'
DOCUMENTED = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef


def module_name(name: str) -> str:
    """Return the module behind a name: that of timm's networks for 'timm:NAME'."""
    return 'net.timm_backbone' if name.startswith('timm:') else name


def module_of(name: str, flag: str, wanted: str = 'Net') -> ModuleType:
    """Import a module that has the class `wanted`.

    Raises UserError, which names the flag, where there is none.
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
    """Make the Net of a module; backbone: the module of another backbone than its own."""
    net = importlib.import_module(name).Net
    if backbone is not None:
        taken = inspect.signature(net).parameters.values()
        if not any(each.name == 'backbone' or each.kind is each.VAR_KEYWORD for each in taken):
            raise UserError(f'--backbone {backbone}: the Net of {name} takes no other backbone '
                            f'than its own')
        options['backbone'] = backbone_named(backbone)
    return net(*arguments, **options)


def backbone_named(name: str) -> nn.Module:
    """Build the Backbone of a module, or of timm's network NAME where `name` is timm:NAME.

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
    """Make a network to train, whose random weights come from `seed`.

    Returns it, and what tells the weights of its backbone apart.
    """
    torch.manual_seed(seed)
    net = build(name, *arguments, **options)
    return net, weights.load_pretrained(backbone_of(net), pretrained)


def objective(name: str | None, flag: str, published: type[Objective]) -> type[Objective]:
    """Return the paper's objective, or the class Objective of a module of one's own."""
    return published if name is None else module_of(name, flag, 'Objective').Objective


def load(name: str, *arguments: Any, path: str | os.PathLike, remedy: str, device: torch.device,
         precision: str, classes: Sequence[str] | None = None,
         **options: Any) -> tuple[nn.Module, str]:
    """Load a trained network, ready for inference, and return it with the digest of its weights.

    Raises UserError as `weights.load_checkpoint`.
    """
    net = build(name, *arguments, **options)
    digest = weights.load_checkpoint(net, path, remedy, classes)
    prepare(net, device, precision)
    return net, digest


def prepare(net: nn.Module, device: torch.device, precision: str) -> None:
    """Make a network with loaded weights ready for inference, and for nothing else.

    That is: on the device, channels last, batch norms folded, the backbone's weights in `precision`
      once instead of at every image.
    """
    net.eval().requires_grad_(False)
    net.to(device, memory_format=torch.channels_last)
    backbone = backbone_of(net)
    fold = getattr(backbone, 'fold_norms', None)
    if fold is not None:  # a network of one's own need not have it
        fold()
        backbone.to(torchutils.PRECISIONS[precision])


def code_of(*names: str) -> str:
    """Digest the code of modules, and of what they import for content, to 'SCHEME:' and 16 digits.

    That is CONTENT and their own folder, transitively. Comments, docstrings and layout
    do not count, nor the version of Python.
    """
    modules, found = [importlib.import_module(module_name(name)) for name in names], {}
    while modules:
        module = modules.pop()
        if module.__name__ not in found:
            found[module.__name__] = tree = ast.parse(
                Path(module.__file__).read_text(encoding='utf-8'))
            modules += _imported(module, tree)
    total = hashlib.sha256(repr([_shape(found[name]) for name in sorted(found)]).encode())
    return f'{SCHEME}:{total.hexdigest()[:16]}'


def _imported(module: ModuleType, tree: ast.Module) -> list[ModuleType]:
    """The modules that one imports whose code makes content, too."""
    package = module.__name__ if hasattr(module, '__path__') else module.__package__
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name('.' * node.level + (node.module or ''), package)
            names |= {base, *(f'{base}.{alias.name}' for alias in node.names)}
    folder = os.path.dirname(module.__file__)
    others = [sys.modules[name] for name in sorted(names & sys.modules.keys())]
    return [other for other in others if (getattr(other, '__file__', None) or '').endswith('.py')
            and (f'{other.__name__}.'.startswith(CONTENT)
                 or os.path.dirname(other.__file__) == folder)]


def _shape(node: Any) -> Any:
    """A syntax tree as nested lists, without docstrings and what is empty: versions of Python
    differ in the latter.
    """
    if isinstance(node, list):
        return [_shape(each) for each in node]
    if not isinstance(node, ast.AST):
        return node
    fields = dict(ast.iter_fields(node))
    if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
        fields['body'] = node.body[1:]
    return [type(node).__name__, [(name, _shape(value)) for name, value in fields.items()
                                  if value is not None and value != []]]
