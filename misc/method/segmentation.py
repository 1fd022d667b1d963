"""The segmentation network around its forward pass (DeepLab-V2 of kazuto1011/deeplab-pytorch).

That is: pixels in, several scales and their maximum, label maps out.
"""
import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from misc import imutils, torchutils
from misc.files import label_maps
from misc.method import maps
from misc.pyutils import UserError, atomic_path


def shrink(x: torch.Tensor, scale: float) -> torch.Tensor:
    """Resize images by a scale, bilinear, without smoothing, sampled at exactly 1/scale.

    x: (N, 3, H, W).
    Returns (N, 3, int(H*scale), int(W*scale)), at least 1 x 1; x itself at scale 1.
    """
    if scale == 1:
        return x
    if min(x.shape[2:]) * scale < 1:
        return F.interpolate(x, [max(1, int(side * scale)) for side in x.shape[2:]],
                             mode='bilinear', align_corners=False)
    return F.interpolate(x, scale_factor=scale, mode='bilinear', align_corners=False)


def at_scales(net: nn.Module, x: torch.Tensor, scales: Sequence[float]) -> list[torch.Tensor]:
    """Return the logits of each scale at its own size, and last the maximum of all of them.

    x: (N, 3, H, W).
    Returns (N, C+1, h, w) each; the maximum is at the largest's size. With one scale the maximum is
    that scale's logits, and there is no other output.
    """
    logits = [net(shrink(x, scale)) for scale in scales]
    if len(logits) == 1:
        return logits
    largest = logits[scales.index(max(scales))]
    resized = [each if each is largest else F.interpolate(each, largest.shape[2:], mode='bilinear',
                                                          align_corners=False)
               for each in logits]
    # amax would share the gradient out among equal ones
    return [*logits, torch.stack(resized).max(0).values]


@torch.no_grad()
def output_sizes(net: torch.nn.Module, crop_size: int,
                 scales: Sequence[float]) -> list[tuple[int, int]]:
    """Return (h, w) of the logits at each scale, and of their maximum."""
    outputs = at_scales(net, torch.zeros(1, 3, crop_size, crop_size), scales)
    return [tuple(logits.shape[2:]) for logits in outputs]


def resized(label_map: torch.Tensor, hw: tuple[int, int]) -> torch.Tensor:
    """Resize label maps as PIL's nearest.

    label_map: (N, H, W).
    Returns (N, h, w).
    """
    rows, columns = (_nearest(side, target, label_map.device)
                     for side, target in zip(label_map.shape[1:], hw, strict=True))
    return label_map[:, rows[:, None], columns]


@functools.lru_cache
def _nearest(side: int, target: int, device: torch.device) -> torch.Tensor:
    # once: a copy at each step would wait for the GPU
    return torch.from_numpy(label_maps.nearest(side, target)).to(device)


@torch.inference_mode()
def predict(net: nn.Module, image: torch.Tensor, scales: Sequence[float], flip: bool,
            device: torch.device, precision: str) -> torch.Tensor:
    """Return the logits of an image: the maximum over the scales.

    image: (1, 3, H, W), as `maps.normalized` has it, on `device`.
    flip: take the mean with that of the mirror.
    Returns float32 (C+1, h, w) on `device`.
    """
    def forward(x: torch.Tensor) -> torch.Tensor:
        return at_scales(net, x, scales)[-1]

    with torchutils.autocast(precision, device):
        if not flip:
            return forward(image)[0].float()
        plain, mirrored = maps.with_mirror(forward, image)
    return (plain[0] + mirrored[0]) / 2


def label_map(logits: torch.Tensor, hw: tuple[int, int]) -> torch.Tensor:
    """Return the strongest of all classes at full size.

    logits: (C+1, h, w).
    Returns uint8 (H, W).
    """
    return maps.resize(logits, hw).argmax(0).to(torch.uint8)


def probabilities(logits: torch.Tensor, hw: tuple[int, int]) -> torch.Tensor:
    """Return the softmax at full size.

    logits: (C+1, h, w).
    Returns (C+1, H, W).
    """
    return maps.resize(logits, hw).softmax(0)


NEAR = 1e-4  # between the exported network's shares of the classes and ours
Exported = Callable[[torch.Tensor], Iterable[torch.Tensor]]


class Standalone(nn.Module):
    """The trained network with everything around it, for export. Use it through `export`.

    image: uint8 RGB (1, 3, H, W).
    Returns label map uint8 (H, W), probabilities (C+1, H, W).
    """

    def __init__(self, net: nn.Module, input_form: str, scales: Sequence[float]):
        super().__init__()
        self.net, self.input_form, self.scales = net, input_form, scales
        for name, value in (('mean', imutils.MEAN), ('std', imutils.STD),
                            ('caffe_mean', imutils.CAFFE_MEAN)):
            self.register_buffer(name, torch.from_numpy(value)[:, None, None])

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = image.float()
        x = (x.flip(1) - self.caffe_mean if self.input_form == 'caffe'
             else (x / 255 - self.mean) / self.std)
        logits = at_scales(self.net, x, self.scales)[-1]
        planes = F.interpolate(logits, image.shape[2:], mode='bilinear', align_corners=False)[0]
        return planes.argmax(0).to(torch.uint8), planes.softmax(0)


def export(net: nn.Module, input_form: str, scales: Sequence[float], path: str,
           photographs: Sequence[np.ndarray]) -> None:
    """Write `Standalone` for one image of any size, in float32, on the CPU.

    path: as ONNX where it ends in .onnx, else as TorchScript.
    net: prepared for inference in float32, on the CPU.
    photographs: uint8 (H, W, 3), of which one should have another size than 65 x 97.
    The file is read back and must give our label map for each of the photographs; in ONNX a pixel
    whose two strongest classes are as good as equal may have either. Raises UserError where it does
    not, and where the packages of ONNX are missing.
    """
    write, read, tie = _FORMATS['.onnx' if str(path).lower().endswith('.onnx') else '']
    whole = Standalone(net, input_form, scales).eval()
    example = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 65, 97),
                                                                 dtype=np.uint8))
    with torch.no_grad(), warnings.catch_warnings(), atomic_path(path) as temporary:
        # the tracer's about sizes (other sizes are checked below), and that it is old
        warnings.simplefilter('ignore')
        write(whole, example, temporary)
        stored = read(temporary)
        for photograph in photographs:
            pixels, cpu = torch.from_numpy(imutils.to_chw(photograph))[None], torch.device('cpu')
            x = maps.normalized(pixels, input_form)
            logits = predict(net, x, scales, False, cpu, 'fp32')
            exported, shares = stored(pixels)
            expected = probabilities(logits, photograph.shape[:2])
            first, second = expected.topk(2, dim=0).values
            differs = exported != label_map(logits, photograph.shape[:2])
            if ((first - second)[differs] > tie).any() or not torch.allclose(shares, expected,
                                                                            atol=NEAR):
                raise UserError(f'{path}: not written, because the exported network gives another '
                                'label map for an image of '
                                f'{photograph.shape[1]} x {photograph.shape[0]}')


def _write_torchscript(whole: Standalone, example: torch.Tensor, path: Path) -> None:
    torch.jit.save(torch.jit.trace(whole, example, check_trace=False), str(path))


def _read_torchscript(path: Path) -> Exported:
    return torch.jit.load(str(path))


def _write_onnx(whole: Standalone, example: torch.Tensor, path: Path) -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f'a network in ONNX takes onnx, onnxscript and onnxruntime ({error}): '
                        'pip install onnx onnxscript onnxruntime') from error
    program = torch.onnx.export(whole, (example,), dynamo=True, verbose=False,
                                input_names=['image'], output_names=['label_map', 'probabilities'],
                                dynamic_shapes=({2: 'height', 3: 'width'},))
    program.save(str(path), external_data=False)


def _read_onnx(path: Path) -> Exported:
    import onnxruntime
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=['CPUExecutionProvider'])
    return lambda image: map(torch.from_numpy, session.run(None, {'image': image.numpy()}))


# ending -> writes it, reads it, shares of two classes that are as good as equal (below 0: none are)
_FORMATS = {'': (_write_torchscript, _read_torchscript, -1),
            '.onnx': (_write_onnx, _read_onnx, NEAR)}
