"""Weights in and out: ImageNet's for a backbone, checkpoints of the networks, the authors' too."""
import hashlib
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from misc import torchutils
from misc.files import records
from misc.pyutils import UserError, atomic_path, log

# tables that the authors' IRN files hold beside the weights
NOT_WEIGHTS = ('path_indices', 'disp_target')

PARALLEL = r'(?:(?:scale|module|base)\.)*'  # kazuto1011/deeplab-pytorch's wrappings
HEAD = re.compile(PARALLEL + r'(?:fc|aspp)\w*\.')
CONVERTED = re.compile(
    PARALLEL + r'(?:layer1\.conv1|layer([2-5])\.block(\d+)\.(reduce|conv3x3|increase|shortcut))'
    r'\.(conv|bn)\.(\w+)')
# ours -> torchvision's class, its first file
WHERE = 'https://download.pytorch.org/models'
TORCHVISION = {'resnet50': ('ResNet50_Weights', 'resnet50-0676ba61.pth'),
               'resnet101': ('ResNet101_Weights', 'resnet101-63fe2227.pth')}


def read_state(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Read a state dict from a file, on the CPU, through weights_only=True.

    Raises UserError for anything else.
    """
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f'{path}: no such weights file') from error
    except Exception as error:  # a damaged file can make torch raise nearly anything
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f'{path}: not a readable state dict ({first})') from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor)
                                              for value in state.values()):
        raise UserError(f'{path}: not a state dict (names with tensors)')
    return state


def save_state(net: nn.Module, path: str | os.PathLike) -> None:
    """Write the network's state dict, on the CPU, atomically; equal weights give equal bytes."""
    # whatever layout it has
    state = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
             for key, value in net.state_dict().items()}
    write(state, path)


def write(content: dict[str, Any], path: str | os.PathLike) -> None:
    """Write `content` as torch.save does, atomically, by way of the memory.

    torch writes a file's name into it, and tells of a full disk by a RuntimeError. Raises UserError
    when the disk refuses.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        # No copy is made. A view (getbuffer) held by the traceback of a full disk crashes the
        # garbage collector of Python 3.12.1.
        temporary.write_bytes(buffer.getvalue())


def digest(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 (16 hex digits) of names and values: tells weights apart, whatever file they lie in.
    """
    total = hashlib.sha256()
    for key in sorted(state):
        total.update(key.encode())
        total.update(state[key].detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]


def load_pretrained(backbone: nn.Module, choice: str) -> str:
    """Start a backbone from ImageNet weights. Returns a digest of what was loaded.

    choice: 'imagenet' (torchvision's first set of `backbone.torchvision_name`, by default
    ResNet-50's, fetched by torchvision), 'none' (random), or a file with a state dict that has
    torchvision's or kazuto1011/deeplab-pytorch's names; half precision, missing
    `num_batches_tracked` and the heads `fc` and `aspp` are allowed.
    Raises UserError where a tensor is missing or has another shape.
    """
    if choice == 'none':
        return 'none'
    state = pretrained_state(backbone, choice)
    backbone.load_state_dict(state)
    return digest(state)


def pretrained_state(backbone: nn.Module, choice: str) -> dict[str, torch.Tensor]:
    """What `load_pretrained` loads; raises the same errors."""
    if choice == 'imagenet' and getattr(backbone, 'torchvision_name', None) not in TORCHVISION:
        raise UserError(f'--pretrained imagenet: torchvision has no weights that fit the backbone '
                        f'of '
                        f'{type(backbone).__module__}; give none, or a file with its own names')
    if choice == 'imagenet' and not torchutils.is_main():
        torchutils.wait_for_all()  # the main process fetches them once
    name = getattr(backbone, 'torchvision_name', 'resnet50')
    state = _torchvision_state(name) if choice == 'imagenet' else read_state(choice)
    if choice == 'imagenet' and torchutils.is_main():
        torchutils.wait_for_all()
    state = {key: value.float() if value.is_floating_point() else value
             for key, value in state.items()}
    if hasattr(backbone, 'own_names'):
        state = backbone.own_names(state)
    else:
        state = {torchvision_name(key): value for key, value in state.items()
                 if not HEAD.match(key)}
    wanted = backbone.state_dict()
    for key in wanted:
        if key.endswith('num_batches_tracked'):
            state.setdefault(key, wanted[key])
    _check(state, wanted, choice, getattr(backbone, 'name', type(backbone).__module__)
           if not hasattr(backbone, 'torchvision_name') else
           f"torchvision's {name.replace('resnet', 'ResNet-')}")
    return state


def torchvision_name(key: str) -> str:
    """Return torchvision's name of a tensor that kazuto1011/deeplab-pytorch's files name `key`.

    Those are Caffe's weights, converted; any other name comes back as it is. Ours, by that code's
    modules: none of its files was at hand to try it on.
    """
    found = CONVERTED.fullmatch(key)
    if not found:
        return key
    layer, block, part, kind, tensor = found.groups()
    if layer is None:
        return f'{kind}1.{tensor}'
    inside = (f'downsample.{("conv", "bn").index(kind)}' if part == 'shortcut' else
              f'{kind}{("reduce", "conv3x3", "increase").index(part) + 1}')
    return f'layer{int(layer) - 1}.{int(block) - 1}.{inside}.{tensor}'


def check_pretrained(choice: str) -> None:
    """Raise UserError, before any work is done, for a `choice` that cannot be loaded."""
    if choice == 'imagenet':
        _torchvision_weights()
    elif choice != 'none' and not Path(choice).is_file():
        raise UserError(f'--pretrained {choice}: neither imagenet nor none, and no such file')


def _torchvision_weights(name: str = 'resnet50') -> Any:
    try:
        from torchvision import models
    # RuntimeError: a torchvision built for another torch
    except (ImportError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"--pretrained imagenet needs a torchvision that fits torch "
                        f"{torch.__version__} ({first}); or give a file with its weights, "
                        f'--pretrained FILE: {WHERE}/{TORCHVISION[name][1]}') from error
    return getattr(models, TORCHVISION[name][0]).IMAGENET1K_V1


def _torchvision_state(name: str) -> dict[str, torch.Tensor]:
    known, file = _torchvision_weights(name), TORCHVISION[name][1]
    if not (Path(torch.hub.get_dir()) / 'checkpoints' / file).is_file():
        log.info('fetching the ImageNet weights %s/%s, about 100 MB', WHERE, file)
    try:
        return known.get_state_dict(progress=False)
    except (OSError, RuntimeError) as error:  # RuntimeError: another content than its name tells
        raise UserError(f"--pretrained imagenet: torchvision cannot fetch its weights ({error}); "
                        f'download {WHERE}/{file} elsewhere and give --pretrained FILE') from error


def existing(path: str | os.PathLike) -> Path | None:
    """Return `path`, or `path` + '.pth' (the authors' double ending), whichever is there."""
    for candidate in (Path(path), Path(f'{path}.pth')):
        if candidate.is_file():
            return candidate
    return None


def load_checkpoint(net: nn.Module, path: str | os.PathLike, remedy: str,
                    classes: Sequence[str] | None = None) -> str:
    """Load trained weights into `net` and return their digest.

    The authors' files load too: their second names for the same tensors (`net.aliases`: beginning
    -> beginning), their double ending, 'module.' of a parallel run, and their index tables, which
    are left out. Raises UserError where the file is missing (with `remedy`), broken, or of another
    network or number of classes, or where the record beside it tells other names than `classes`.
    """
    found = existing(path)
    if found is None:
        raise UserError(f'{path}: no such weights; {remedy}')
    if classes is not None:
        records.check_classes(path, classes)
    state = canonical(read_state(found), net)
    wanted = net.state_dict()
    # others: planes that are no class
    class_key, axis, *others = getattr(net, 'class_key', None) or (None, 0)
    if class_key in state and class_key in wanted and state[
        class_key].dim() == wanted[class_key].dim():
        theirs, ours = (tensors[class_key].shape[axis] - sum(others) for tensors in (state, wanted))
        if theirs != ours:
            raise UserError(f'{found}: trained for {theirs} classes, this data set has {ours}')
    _check(state, wanted, found, type(net).__module__)
    net.load_state_dict(state)
    log.info('weights: %s (%s)', found, digest(state))
    return digest(state)


def canonical(state: dict[str, torch.Tensor], net: nn.Module) -> dict[str, torch.Tensor]:
    """Return `state` with aliases renamed and without index tables.

    Missing `num_batches_tracked` are filled in.
    """
    wanted = net.state_dict()
    result = {}
    for key, value in state.items():
        key = key.removeprefix('module.')
        if any(part in key for part in NOT_WEIGHTS):
            continue
        if key not in wanted:
            for alias, name in getattr(net, 'aliases', {}).items():
                if key.startswith(alias):
                    key = name + key[len(alias):]
                    break
        result[key] = value
    for key in wanted:
        if key.endswith('num_batches_tracked'):
            result.setdefault(key, wanted[key])
    return result


def _check(state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor],
           where: str | os.PathLike, what: str) -> None:
    missing = [key for key in wanted if key not in state]
    unknown = [key for key in state if key not in wanted]
    if missing or unknown:
        raise UserError(f'{where}: not the weights of {what}: {len(missing)} tensors missing '
                        f'(first: '
                        f'{missing[0] if missing else "-"}), {len(unknown)} unknown (first: '
                        f'{unknown[0] if unknown else "-"})')
    for key, value in wanted.items():
        if state[key].shape != value.shape:
            raise UserError(f'{where}: {key} is {tuple(state[key].shape)}, {what} needs '
                            f'{tuple(value.shape)}')
