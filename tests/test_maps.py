"""What networks take of images: bytes until they are on the device."""
import warnings

import numpy as np
import pytest
import torch

from misc import imutils, torchutils
from misc.data import datasets
from misc.method import maps
from tests import pretend_cuda

CPU, CUDA = torch.device('cpu'), torch.device('cuda', 0)
EVERY_BYTE = np.stack([np.arange(256), np.arange(256)[::-1], np.roll(np.arange(256), 9)],
                      -1).astype(np.uint8)


@pytest.mark.parametrize('form', imutils.INPUTS)
@pytest.mark.parametrize('hw', [(1, 256), (256, 1), (16, 16), (2, 128)])
@pytest.mark.parametrize('device', [CPU, CUDA], ids=str)
def test_normalized_has_the_bits_of_the_readers(form, hw, device):
    image = EVERY_BYTE.reshape(*hw, 3)
    expected = imutils.to_chw(imutils.INPUTS[form](image))[None]
    with pretend_cuda.device():
        x = maps.normalized(torchutils.to_device(datasets.scaled_images(image, [1.0])[0], device),
                            form)
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert np.array_equal(x.cpu().numpy().view(np.int32), expected.view(np.int32))


def test_scales_are_bytes_of_their_own():
    image = np.repeat(EVERY_BYTE[None], 4, 0)
    image.flags.writeable = False  # as PIL gives it
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        scales = datasets.scaled_images(image, [1.0, 0.5])
    assert [(each.dtype, tuple(each.shape)) for each in scales] == [
        (torch.uint8, (1, 3, 4, 256)), (torch.uint8, (1, 3, 2, 128))]
    assert np.array_equal(scales[0][0].permute(1, 2, 0), image)


@pytest.mark.parametrize('number', [1, 3])
def test_one_image_is_not_concatenated(number):
    images = [datasets.scaled_images(EVERY_BYTE.reshape(8, 32, 3), [1.0]) for _ in range(number)]
    with pretend_cuda.device() as gpu:
        for _ in range(2):  # the constants are there the second time
            before = gpu.total('kernel')
            batch, = maps.together(images, CUDA)
        assert batch.shape == (number, 3, 8, 32)
        # copies, what puts them together, and three operations
        assert gpu.total('kernel') - before == number + (number > 1) + 3
        assert gpu.total('wait') == 0
