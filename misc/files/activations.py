"""The one place that writes and reads activation files.

ID.npz holds three arrays: `keys` int64 (K,), the classes present, from 0, ascending; `strided` (K,
h4, w4) and `high_res` (K, H, W), float32 or, in half the space, float16; or, in about a tenth,
`strided` as float16 and `high_res` as uint8, 0..255 for 0..1, compressed. All are read as float32
again. AMN's have a background plane first: (K+1, ...). The authors' ID.npy (a pickled dict) is read
too, by an unpickler that can build nothing but arrays and tensors.

Another folder may hold ID.npz of the random walk (`Walked`), from which a pseudo-mask is cut at any
threshold.
"""
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from misc.pyutils import UserError, atomic_path, is_whole

SUFFIXES = ('.npz', '.npy')  # ours, the authors'
_RECONSTRUCT = np.empty(0).__reduce__()[0]  # its module's name differs between numpy 1 and 2


class Activation(NamedTuple):
    """The activation of one image: arrays, or planes as tensors where they were computed.

    keys: (K,), the classes present.
    strided: (K, h4, w4).
    high_res: (K, H, W).
    """

    keys: np.ndarray
    strided: np.ndarray | torch.Tensor
    high_res: np.ndarray | torch.Tensor

    def on_host(self) -> 'Activation':
        """The same as arrays; waits for a GPU."""
        return Activation(self.keys,
                          *(planes.cpu().numpy() if isinstance(planes, torch.Tensor) else planes
                            for planes in (self.strided, self.high_res)))

    def without_background(self) -> 'Activation':
        """The class planes only: AMN's background plane is left out where there is one."""
        extra = len(self.high_res) - len(self.keys)
        return Activation(self.keys, self.strided[extra:], self.high_res[extra:])


class Walked(NamedTuple):
    """The random walk of one image, as misc.method.walking scores its classes.

    keys: int64 (K,).
    walked: float32 (K, h, w) at stride 4.
    hw: int64 (2,), the size (H, W) of the image.
    """

    keys: np.ndarray
    walked: np.ndarray
    hw: np.ndarray


def activation_path(folder: str | os.PathLike, image_id: str) -> Path:
    return Path(folder) / f'{image_id}.npz'


def save(folder: str | os.PathLike, image_id: str, activation: Activation,
         dtype: str = 'float32') -> None:
    """Write ID.npz, planes as `dtype` ('float32', 'float16' or 'uint8').

    uint8 is for values in 0..1, and stores `strided` as float16. Called behind the network: that
    need not wait for a GPU.
    """
    keys, strided, high_res = activation.on_host()
    if dtype == 'uint8':
        _write(folder, image_id, Activation(keys, strided.astype(np.float16),
                                            np.rint(high_res * 255).astype(np.uint8)),
               compressed=True)
    else:
        _write(folder, image_id, Activation(keys, strided.astype(dtype), high_res.astype(dtype)))


def save_walked(folder: str | os.PathLike, image_id: str, walked: Walked) -> None:
    """Write ID.npz of the random walk."""
    _write(folder, image_id, walked)


def _write(folder: str | os.PathLike, image_id: str, arrays: Any, compressed: bool = False) -> None:
    """As np.savez would, or fast: np.savez_compressed takes three times as long for a fifth less.
    """
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with atomic_path(activation_path(folder, image_id)) as temporary, \
            zipfile.ZipFile(temporary, 'w', method, compresslevel=1) as archive:
        for name, values in arrays._asdict().items():
            with archive.open(f'{name}.npy', 'w', force_zip64=True) as stream:
                np.lib.format.write_array(stream, values, allow_pickle=False)


def existing_path(folder: str | os.PathLike, image_id: str) -> Path:
    """ID.npz, or the authors' ID.npy where that alone is there."""
    path = activation_path(folder, image_id)
    authors = path.with_suffix('.npy')
    return authors if not path.is_file() and authors.is_file() else path


def exists(folder: str | os.PathLike, image_id: str) -> bool:
    path = activation_path(folder, image_id)
    return is_whole(path) or is_whole(path.with_suffix('.npy'))


def load(folder: str | os.PathLike, image_id: str, remedy: str = 'it is needed here') -> Activation:
    """Read ID.npz, else the authors' ID.npy.

    Raises UserError, with `remedy`, where there is none or it is broken.
    """
    path = existing_path(folder, image_id)
    if path.suffix == '.npy':
        return _load_authors(path)
    return _checked(_read(path, Activation, remedy), path)


def of_image(folder: str | os.PathLike, image_id: str, hw: tuple[int, int], remedy: str,
             background: bool = False) -> Activation:
    """Read the activation of an image of size `hw`, without background unless it is asked for.

    Raises UserError where it is of another size, too.
    """
    activation = load(folder, image_id, remedy)
    if not background:
        activation = activation.without_background()
    strided = tuple((side - 1) // 4 + 1 for side in hw)
    if activation.high_res.shape[1:] != tuple(hw) or activation.strided.shape[1:] != strided:
        raise UserError(f'{folder}: the activation of {image_id} has another size than its image; '
                        f'make it anew')
    return activation


def class_planes(folder: str | os.PathLike, image_id: str,
                 remedy: str) -> tuple[np.ndarray, np.ndarray]:
    """What is scored of an activation: keys (K,) and high_res (K, H, W), without background."""
    activation = load(folder, image_id, remedy).without_background()
    return activation.keys, activation.high_res


def load_walked(folder: str | os.PathLike, image_id: str, remedy: str = 'it is needed here',
                hw: tuple[int, int] | None = None) -> Walked:
    """Read ID.npz of the random walk.

    Raises UserError, with `remedy`, where there is none, it is broken, or, where `hw` is given, of
    an image of another size.
    """
    path = activation_path(folder, image_id)
    stored = _read(path, Walked, remedy)
    if stored.walked.ndim != 3 or stored.hw.shape != (2,) or \
            stored.walked.shape != (len(stored.keys), *((stored.hw - 1) // 4 + 1)):
        raise UserError(f'{path}: its arrays do not fit each other; delete it and make it anew')
    if hw is not None and tuple(stored.hw) != tuple(hw):
        raise UserError(f'{folder}: the walk of {image_id} has another size than its image')
    return stored


def _read(path: Path, kind: Any, remedy: str) -> Any:
    """The arrays that `kind`, a NamedTuple, names."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return kind(*(stored[field] for field in kind._fields))
    except FileNotFoundError as error:
        raise UserError(f'{path}: no such activation; {remedy}') from error
    except (OSError, ValueError, TypeError, AttributeError, KeyError, EOFError,
            zipfile.BadZipFile) as error:
        raise UserError(
            f'{path}: not a whole activation file ({error}); delete it and make it anew') from error


def _checked(activation: Activation, path: Path) -> Activation:
    planes = len(activation.high_res)
    if len(activation.strided) != planes or planes - len(activation.keys) not in (0, 1):
        raise UserError(
            f'{path}: {len(activation.keys)} classes, but {planes} planes; make it anew')
    high_res = activation.high_res.astype(np.float32, copy=False)
    if activation.high_res.dtype == np.uint8:
        high_res /= 255
    return Activation(activation.keys, activation.strided.astype(np.float32, copy=False), high_res)


class _ArraysOnly(pickle.Unpickler):
    """Answers only the names that the authors' files hold; any other name is refused before it can
    run.
    """

    _ALLOWED = {
        ('numpy', 'ndarray'): np.ndarray, ('numpy', 'dtype'): np.dtype,
        ('numpy.core.multiarray', '_reconstruct'): _RECONSTRUCT,
        ('numpy._core.multiarray', '_reconstruct'): _RECONSTRUCT,
        ('torch._utils', '_rebuild_tensor_v2'): torch._utils._rebuild_tensor_v2,
        ('collections', 'OrderedDict'): OrderedDict,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ('torch.storage', '_load_from_bytes'):
            return lambda data: torch.load(io.BytesIO(data), weights_only=True, map_location='cpu')
        try:
            return self._ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f'{module}.{name} has no place in an activation file') from None


def _load_authors(path: Path) -> Activation:
    """The authors' file: a 0-d object array of a dict, keys torch int64, cam torch, high_res numpy.
    """
    try:
        with open(path, 'rb') as stream:
            version = np.lib.format.read_magic(stream)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0,
                           (2, 0): np.lib.format.read_array_header_2_0}
            read_header[version](stream)
            content = _ArraysOnly(stream).load().item()
        activation = Activation(*(np.asarray(content[name])
                                  for name in ('keys', 'cam', 'high_res')))
    except Exception as error:  # a damaged or hostile pickle can raise nearly anything
        raise UserError(f"{path}: not an activation file of the authors' code ({error})") from error
    return _checked(activation, path)
