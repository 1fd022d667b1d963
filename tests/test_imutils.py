"""Decoding, resizing, cropping and normalising of images."""
import io
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from misc import imutils
from misc.pyutils import UserError

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (7, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize(('hw', 'scale', 'expected'), [
    ((5, 7), 0.5, (2, 4)),  # 2.5 -> 2, 3.5 -> 4: half to even
    ((3, 9), 1.5, (4, 14)),  # 4.5 -> 4, 13.5 -> 14
    ((1, 1), 0.25, (1, 1)), ((7, 900), 0.01, (1, 9)), ((333, 500), 1.0, (333, 500)),
    ((375, 500), 2.0, (750, 1000))])
def test_scaled_size_rounds_half_to_even_and_is_at_least_1(hw, scale, expected):
    assert imutils.scaled_hw(hw, scale) == expected
    assert imutils.rescale(np.zeros((*hw, 3), np.uint8), scale).shape == (*expected, 3)


def test_resize_is_pils_bicubic_on_8_bits_and_leaves_the_same_size_alone():
    assert imutils.resize(COLOURS, (7, 9)) is COLOURS
    theirs = np.asarray(Image.fromarray(COLOURS).resize((4, 3), Image.Resampling.BICUBIC))
    ours = imutils.resize(COLOURS, (3, 4))
    assert ours.dtype == np.uint8
    assert np.array_equal(ours, theirs)


def saved(folder, picture, name='image.png', **options):
    picture.save(folder / name, **options)
    return imutils.read_image(folder / name)


def test_grey_palette_and_alpha_become_rgb(tmp_path):
    grey = COLOURS[:, :, 0]
    assert np.array_equal(saved(tmp_path, Image.fromarray(grey)), np.repeat(grey[:, :, None], 3, 2))
    palette = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
    palette.putpalette([10, 20, 30, 200, 100, 50, 7, 8, 9])
    assert saved(tmp_path, palette).tolist() == [[[10, 20, 30], [200, 100, 50]],
                                                 [[7, 8, 9], [200, 100, 50]]]
    alpha = np.dstack([COLOURS, np.full((7, 9), 3, np.uint8)])
    assert np.array_equal(saved(tmp_path, Image.fromarray(alpha)), COLOURS)
    assert np.array_equal(saved(tmp_path, Image.fromarray(np.dstack([grey, grey]))),
                          np.repeat(grey[:, :, None], 3, 2))


def test_16_bits_a_pixel_keep_their_high_byte(tmp_path):
    values = np.array([[0, 256, 511], [65535, 32768, 4096]], np.uint16)
    assert saved(tmp_path, Image.fromarray(values))[:, :, 1].tolist() == [[0, 1, 1], [255, 128, 16]]


@pytest.mark.parametrize(('values', 'expected'), [
    (np.array([[0, 255, 128]], np.uint16), [0, 255, 128]),
    (np.array([[0, 4080, 16]], np.uint16), [0, 255, 1]),
    (np.array([[0, 256, 300]], np.uint16), [0, 128, 150]),
    (np.array([[0, 60000 * 255, 60000]], np.int32), [0, 233, 0]),
    (np.array([[-1000, 0, 3095]], np.int32), [0, 62, 255]),
    (np.array([[0, 1, 0.5]], np.float32), [0, 255, 128]),
    (np.array([[0, 255, 17]], np.float32), [0, 255, 17]),
    (np.array([[np.nan, 1, np.inf]], np.float32), [255, 255, 255]),
    (np.array([[-1, 1, 0]], np.float32), [0, 255, 128]),
    (np.array([[np.nan] * 3], np.float32), [0, 0, 0]),
    (np.zeros((1, 3), np.float32), [0, 0, 0])], ids=range(11))
def test_numbers_of_any_kind_fill_8_bits(tmp_path, values, expected):
    assert saved(tmp_path, Image.fromarray(values), 'image.tif')[0, :, 0].tolist() == expected


@pytest.mark.parametrize('name', ['image.png', 'image.tif'])
def test_12_bits_in_16_of_three_channels(tmp_path, name):
    """PIL would keep the high byte of 16, of which 4 bits are in use."""
    cv2.imwrite(str(tmp_path / name), COLOURS[:, :, ::-1].astype(np.uint16) * 16)
    assert np.array_equal(imutils.read_image(tmp_path / name), COLOURS)


def test_cmyk_jpeg(tmp_path):
    picture = Image.new('CMYK', (16, 8), (0, 255, 255, 0))  # red ink only
    red = saved(tmp_path, picture, 'image.jpg', quality=95)
    assert red.shape == (8, 16, 3)
    assert red[:, :, 0].min() > 240
    assert red[:, :, 1:].max() < 15


@pytest.mark.parametrize('name', ['image.png', 'image.webp', 'image.tif'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation_is_applied_where_asked_for(tmp_path, name, orientation):
    """TIFF is always upright: PIL turns it."""
    picture = Image.fromarray(COLOURS)
    exif = picture.getexif()
    exif[0x0112] = orientation
    path = tmp_path / name
    picture.save(path, exif=exif, **({'lossless': True} if name.endswith('webp') else {}))
    with Image.open(path) as opened:
        upright = np.array(ImageOps.exif_transpose(opened).convert('RGB'))
    assert np.array_equal(imutils.read_image(path, upright=True), upright)
    assert imutils.read_header(path, upright=True) == (upright.shape[:2], orientation != 1)
    assert np.array_equal(imutils.read_image(path), upright if name.endswith('tif') else COLOURS)
    assert imutils.read_header(path)[0] == imutils.read_image(path).shape[:2]


def test_remarks_on_photographs(tmp_path):
    def remarks(picture, name='image.png', **options):
        picture.save(tmp_path / name, **options)
        return imutils.photograph(tmp_path / name)[1]

    colours = Image.fromarray(COLOURS)
    alpha = np.dstack([COLOURS, np.full((7, 9), 255, np.uint8)])
    assert remarks(colours) == remarks(Image.fromarray(alpha)) == remarks(colours,
                                                                          'image.jpg') == []
    alpha[2, 3, 3] = 0
    assert remarks(Image.fromarray(alpha)) == ['transparent']
    dark = np.zeros((20, 20), np.uint8)
    assert remarks(Image.fromarray(dark)) == []  # a card of one colour
    dark[0, :3] = 255
    assert remarks(Image.fromarray(dark)) == ['dark']
    dark[0, :4] = 255
    assert remarks(Image.fromarray(dark)) == []
    assert remarks(colours, 'image.tif', save_all=True, append_images=[colours]) == ['pages']
    # a phone's preview
    assert remarks(colours, 'image.jpg', format='MPO', save_all=True, append_images=[colours]) == []
    assert set(imutils.REMARKS) == {'transparent', 'dark', 'pages'}


@pytest.mark.parametrize('share', [0.0, 0.02, 0.6, 0.95])
def test_truncated_jpeg_is_named(tmp_path, share):
    stream = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(stream, 'JPEG')
    whole = stream.getvalue()
    path = tmp_path / '2007_000001.jpg'
    path.write_bytes(whole[:int(share * len(whole))])
    with pytest.raises(UserError, match='2007_000001.jpg: cannot be decoded') as caught:
        imutils.read_image(path)
    assert '\n' not in str(caught.value)


def test_missing_image_and_folder_are_named(tmp_path):
    with pytest.raises(UserError, match='nothing.jpg: no such image'):
        imutils.read_image(tmp_path / 'nothing.jpg')
    with pytest.raises(UserError, match='cannot be decoded'):
        imutils.read_image(tmp_path)


def test_normalize_by_hand():
    pixels = np.array([[[0, 0, 0], [255, 255, 255], [124, 116, 104]]], np.uint8)
    ours = imutils.normalize(pixels)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours[0],
                               [[-2.117904, -2.035714, -1.804444], [2.248908, 2.428571, 2.64],
                                [0.005565, -0.004902, 0.008192]], atol=2e-6)
    chw = imutils.to_chw(ours)
    assert chw.shape == (3, 1, 3)
    assert chw.flags['C_CONTIGUOUS']
    assert chw[2, 0, 1] == ours[0, 1, 2]


@pytest.mark.parametrize('hw', [(1, 1), (7, 900), (480, 640), (400, 513), (512, 512)])
def test_crop_windows_stay_inside_and_show_all_they_can(hw):
    rng = np.random.default_rng(1)
    for _ in range(50):
        taken, placed = imutils.crop_window(hw, 512, rng)
        for side, source, target in zip(hw, taken, placed, strict=True):
            length = min(side, 512)
            assert source.stop - source.start == target.stop - target.start == length
            assert 0 <= source.start <= side - length
            assert 0 <= target.start <= 512 - length


def test_crop_windows_reach_both_ends_evenly():
    """A side of 11 and one of 5 on a canvas of 8: starts 0..3 in the first, offsets 0..3 of the
    second.
    """
    rng = np.random.default_rng(2)
    drawn = [imutils.crop_window((11, 5), 8, rng) for _ in range(2000)]
    starts = np.bincount([taken[0].start for taken, _ in drawn], minlength=4)
    offsets = np.bincount([placed[1].start for _, placed in drawn], minlength=4)
    assert len(starts) == len(offsets) == 4
    assert all(taken[1] == slice(0, 5) and placed[0] == slice(0, 8) for taken, placed in drawn)
    for counts in (starts, offsets):
        assert counts.min() > 420  # 500 each; 80 is four standard deviations
    pairs = {(taken[0].start, placed[1].start) for taken, placed in drawn}
    assert len(pairs) == 16  # the sides are drawn apart


def test_the_last_window_is_drawn_too():
    draws = SimpleNamespace(integers=lambda low, high: high - 1)
    taken, placed = imutils.crop_window((20, 3), 8, draws)
    assert (taken[0], placed[0]) == (slice(12, 20), slice(0, 8))
    assert (taken[1], placed[1]) == (slice(0, 3), slice(5, 8))


def test_place_and_top_left():
    piece = np.arange(1, 7, dtype=np.uint8).reshape(2, 3)
    assert imutils.place(piece, (slice(1, 3), slice(0, 3)), 3,
                         255).tolist() == [[255] * 3, [1, 2, 3], [4, 5, 6]]
    assert imutils.top_left(piece, 3, 9).tolist() == [[1, 2, 3], [4, 5, 6], [9, 9, 9]]
    assert imutils.top_left(piece, 1, 9).tolist() == [[1]]
    wide = imutils.top_left(np.ones((7, 900, 3), np.float32), 16, 0)
    assert wide.shape == (16, 16, 3)
    assert wide[:7].min() == 1
    assert wide[7:].max() == 0
