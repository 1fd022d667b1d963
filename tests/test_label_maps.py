"""Label maps: palette PNGs in and out, resizing by nearest."""
import numpy as np
import pytest
from PIL import Image

from misc.files import label_maps
from misc.pyutils import UserError
from tests.conftest import GOLDEN
from voc12.dataloader import PALETTE


def test_golden_nearest():
    golden = np.load(GOLDEN / 'losses.npz')
    label_map = golden['label_map'].astype(np.uint8)
    assert np.array_equal(label_maps.resize(label_map, (3, 4)), golden['label_map_h3_w4'][0])
    assert label_maps.resize(label_map, label_map.shape) is label_map


def test_nearest_takes_the_pixel_under_the_middle():
    row = np.arange(10, dtype=np.uint8)[None]
    assert label_maps.resize(row, (1, 4)).tolist() == [[1, 3, 6, 8]]  # floor((i + 0.5) * 2.5)
    assert label_maps.resize(row[:, :3], (2, 6)).tolist() == [[0, 0, 1, 1, 2, 2]] * 2
    quarter = label_maps.resize(np.arange(16, dtype=np.uint8)[:, None], (4, 1))
    assert quarter.ravel().tolist() == [2, 6, 10, 14]  # 4i + 2


def test_palette_png_round_trip(tmp_path):
    label_map = np.arange(256, dtype=np.uint8).reshape(8, 32)
    path = label_maps.label_path(tmp_path / 'new folder', '2007_000001')
    label_maps.save(path, label_map, PALETTE)
    assert path.name == '2007_000001.png'
    assert [other.name for other in path.parent.iterdir()] == [path.name]
    assert np.array_equal(label_maps.load(path), label_map)
    with Image.open(path) as picture:
        assert picture.mode == 'P'
        assert np.array_equal(np.asarray(picture.convert('RGB')).reshape(256, 3), PALETTE)


@pytest.mark.parametrize(('label', 'colour'), [
    (0, (0, 0, 0)), (1, (128, 0, 0)), (2, (0, 128, 0)), (3, (128, 128, 0)), (4, (0, 0, 128)),
    (8, (64, 0, 0)), (15, (192, 128, 128)), (20, (0, 64, 128)), (255, (224, 224, 192))])
def test_colours_of_voc(label, colour):
    assert tuple(PALETTE[label]) == colour


def test_a_label_map_of_one_pixel_and_of_another_type(tmp_path):
    label_maps.save(tmp_path / 'a.png', np.array([[20]]), PALETTE)  # int64, as arg max gives
    assert label_maps.load(tmp_path / 'a.png').tolist() == [[20]]


def test_user_errors(tmp_path):
    with pytest.raises(UserError, match='a.png: no such label map; run --x_pass True first'):
        label_maps.load(tmp_path / 'a.png', 'run --x_pass True first')
    Image.new('RGB', (4, 4)).save(tmp_path / 'rgb.png')
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / 'deep.png')
    for name in ('rgb.png', 'deep.png'):
        with pytest.raises(UserError, match=f'{name}: not a label map'):
            label_maps.load(tmp_path / name)
    label_maps.save(tmp_path / 'b.png', np.zeros((64, 64), np.uint8), PALETTE)
    whole = (tmp_path / 'b.png').read_bytes()
    for length in (0, 20, len(whole) - 30):
        (tmp_path / 'b.png').write_bytes(whole[:length])
        with pytest.raises(UserError, match='b.png: cannot be decoded'):
            label_maps.load(tmp_path / 'b.png')
    (tmp_path / 'folder').write_text('a file')
    with pytest.raises(UserError, match='cannot write .*folder/a.png'):
        label_maps.save(tmp_path / 'folder' / 'a.png', np.zeros((4, 4), np.uint8), PALETTE)
