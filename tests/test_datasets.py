"""What is read ahead: batches, training crops, workers."""
import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from misc import imutils
from misc.data import datasets
from misc.files import label_maps
from misc.pyutils import UserError
from voc12.dataloader import PALETTE

SIDE = 30  # of the images below


class Coordinates:
    """A source of images whose red is the row and green the column; the refined seed of each holds
    row + column.
    """

    upright = False
    classes = ('one', 'two', 'three')
    n_classes = 254  # of the seeds, whose labels are coordinates
    palette = PALETTE

    def __init__(self, folder, ids, hw=(SIDE, SIDE)):
        self.folder = folder
        rows, columns = np.indices(hw)
        for image_id in ids:
            picture = np.stack([rows + 100, columns + 100, np.full(hw, 200)], -1).astype(np.uint8)
            Image.fromarray(picture).save(self.image_path(image_id))
            label_maps.save(folder / 'seeds' / f'{image_id}.png', (rows + columns).astype(np.uint8),
                            PALETTE)

    def image_path(self, image_id):
        return self.folder / f'{image_id}.png'

    def labels(self, image_id):
        return np.array([True, False, image_id == 'b'])


def test_batches_come_from_seed_and_epoch():
    def drawn(seed, start=0, stop=6):
        return list(datasets.Batches(10, 3, seed, start, stop))

    whole = drawn(0)
    assert [len(batch) for batch in whole] == [3] * 6
    for epoch in range(2):
        indices = [index for batch in whole[3 * epoch:3 * epoch + 3] for _, index in batch]
        assert {key[0] for batch in whole[3 * epoch:3 * epoch + 3] for key in batch} == {epoch}
        assert len(set(indices)) == 9  # the short last batch is dropped
        assert set(indices) < set(range(10))
    assert [i for b in whole[:3] for _, i in b] != [i for b in whole[3:] for _, i in b]
    assert drawn(0) == whole
    assert drawn(1) != whole
    assert len(datasets.Batches(10, 3, 0, 2, 6)) == 4


@pytest.mark.parametrize('start', [0, 1, 3, 5, 6])
def test_a_start_in_the_middle_gives_the_tail_of_the_whole(start):
    whole = list(datasets.Batches(7, 2, 5, 0, 6))
    assert list(datasets.Batches(7, 2, 5, start, 6)) == whole[start:]


def test_image_and_label_map_stay_aligned_and_padding_is_marked(tmp_path):
    source = Coordinates(tmp_path, 'ab')
    flips, offsets = set(), set()
    for crop_size in (17, 45):
        crops = datasets.TrainingCrops(source, ['a', 'b'], crop_size, 0,
                                       label_dir=tmp_path / 'seeds')
        for epoch in range(12):
            item = crops((epoch, epoch % 2))
            assert item['image'].shape == (3, crop_size, crop_size)
            assert item['label_map'].shape == (crop_size, crop_size)
            inside = item['image'][2] > 0
            assert inside.sum() == min(crop_size, SIDE) ** 2
            assert (item['image'][:, ~inside] == 0).all()
            assert (item['label_map'][~inside] == 255).all()
            pixels = np.rint((item['image'].transpose(1, 2, 0) * imutils.STD + imutils.MEAN) *
                             255)[inside] - 100
            assert np.array_equal(item['label_map'][inside], pixels[:, 0] + pixels[:, 1])
            flips.add(bool(pixels[0, 1] > pixels[1, 1]))
            offsets.add(tuple(np.argwhere(inside)[0]) if crop_size > SIDE else tuple(pixels[0]))
    assert flips == {True, False}
    assert len(offsets) > 15


def test_label_map_at_a_stride_is_the_nearest_of_the_crop(tmp_path):
    source = Coordinates(tmp_path, 'a')
    full, quarter = (datasets.TrainingCrops(source, ['a'], 24, 3, label_dir=tmp_path / 'seeds',
                                            label_stride=stride)
                     ((0, 0))['label_map'] for stride in (1, 4))
    assert quarter.dtype == np.int64
    assert np.array_equal(quarter, full[2::4, 2::4])


def test_an_item_depends_on_seed_epoch_and_image_only(tmp_path):
    source = Coordinates(tmp_path, 'ab')

    def item(seed, epoch, index, ids=('a', 'b')):
        crops = datasets.TrainingCrops(source, list(ids), 12, seed, scale=(0.5, 1.5),
                                       label_dir=tmp_path / 'seeds')
        return crops((epoch, index))

    first = item(0, 0, 0)
    assert first['labels'].tolist() == [1, 0, 0]
    assert item(0, 0, 1)['labels'].tolist() == [1, 0, 1]
    again = item(0, 0, 1, ids=('b', 'a'))  # the same image elsewhere in the list
    for name in ('image', 'label_map', 'dropout_seed'):
        assert np.array_equal(first[name], again[name])
    for other in (item(1, 0, 0), item(0, 1, 0), item(0, 0, 1)):
        assert not np.array_equal(first['image'], other['image'])
        assert first['dropout_seed'] != other['dropout_seed']


@pytest.mark.parametrize(('hw', 'low', 'high'),
                         [((40, 80), 20, 20), ((1, 1), 5, 7), ((7, 900), 90, 91)])
def test_long_side_is_drawn_from_both_ends(tmp_path, hw, low, high):
    rng, crops = np.random.default_rng(0), datasets.TrainingCrops(None, [], 8, 0,
                                                                  resize_long=(low, high))
    drawn = {max(imutils.scaled_hw(hw, crops._draw_scale(hw, rng))) for _ in range(60)}
    assert drawn == set(range(low, high + 1))


def test_factor_is_drawn_evenly():
    rng, crops = np.random.default_rng(0), datasets.TrainingCrops(None, [], 8, 0, scale=(0.5, 1.5))
    drawn = np.array([crops._draw_scale((9, 9), rng) for _ in range(500)])
    assert 0.5 <= drawn.min() < 0.52
    assert 1.48 < drawn.max() <= 1.5
    assert drawn.mean() == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize('hw', [(1, 1), (7, 900), (480, 640), (400, 513)])
def test_images_of_any_size(tmp_path, hw):
    path = tmp_path / 'a.jpg'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*hw, 3), dtype=np.uint8)).save(path)
    source = Coordinates(tmp_path, [])
    source.image_path = lambda image_id: path
    label_maps.save(tmp_path / 'seeds' / 'a.png', np.ones(hw, np.uint8), PALETTE)
    crops = datasets.TrainingCrops(source, ['a'], 64, 0, scale=(0.5, 1.5),
                                   label_dir=tmp_path / 'seeds', label_stride=16)
    item = crops((0, 0))
    assert item['image'].shape == (3, 64, 64)
    assert item['label_map'].shape == (4, 4)
    assert datasets.top_left_crop(source, 'a', 64)['image'].shape == (3, 64, 64)
    shapes = [tuple(scaled.shape[2:])
              for scaled in datasets.scaled_images(imutils.read_image(path), [1.0, 0.5])]
    assert shapes == [hw, imutils.scaled_hw(hw, 0.5)]


def test_seed_of_another_size_is_refused(tmp_path):
    Coordinates(tmp_path, 'a')
    with pytest.raises(UserError, match='a.png: 30 x 30, its image is 30 x 31'):
        datasets.read_refined_seed(tmp_path / 'seeds', 'a', (30, 31), 254, 'make it')
    with pytest.raises(UserError, match='b.png: no such label map; make it'):
        datasets.read_refined_seed(tmp_path / 'seeds', 'b', (30, 31), 254, 'make it')
    with pytest.raises(UserError, match='a.png: holds labels above 20'):
        datasets.read_refined_seed(tmp_path / 'seeds', 'a', (SIDE, SIDE), 20, 'make it')


def test_workers_change_nothing(tmp_path):
    source = Coordinates(tmp_path, 'abcdefg')
    crops = datasets.TrainingCrops(source, list('abcdefg'), 16, 0, scale=(0.5, 1.5),
                                   label_dir=tmp_path / 'seeds')
    keys = datasets.Batches(7, 2, 0, 0, 6)
    alone, helped = (list(datasets.read_ahead(crops, keys, workers, batches=True))
                     for workers in (0, 2))
    assert len(alone) == len(helped) == 6
    for mine, theirs in zip(alone, helped, strict=True):
        assert mine.keys() == theirs.keys() == {'image', 'labels', 'index', 'dropout_seed',
                                                   'label_map'}
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize('workers', [0, 2])
def test_user_errors_come_in_the_place_of_their_item(workers):
    def read(key):
        if key == 3:
            raise UserError('number 3 is broken')
        return key

    got = list(datasets.read_ahead(read, [5, 3, 1], workers))
    assert (got[0], got[2]) == (5, 1)
    assert isinstance(got[1], UserError)
    batches = list(datasets.read_ahead(read, [[1, 2], [3, 4]], workers, batches=True))
    assert batches[0].tolist() == [1, 2]
    assert isinstance(batches[1], UserError)
    assert str(batches[1]) == 'number 3 is broken'
    assert list(datasets.read_ahead(read, [], workers)) == []


def test_checked_raises_a_new_error():
    error = UserError('broken')
    with pytest.raises(UserError, match='broken') as caught:
        datasets.checked(error)
    assert caught.value is not error
    assert datasets.checked([1]) == [1]


def test_a_killed_worker_is_told_of():
    def read(key):
        if key == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return key

    with pytest.raises(UserError, match='a worker process was ended by the system.*--num_workers'):
        list(datasets.read_ahead(read, range(40), 1))


@pytest.mark.parametrize(('parent', 'code'), [(os.getpid, 0), (lambda: os.getpid() + 1, 1)])
def test_a_worker_ends_where_its_run_has_ended_already(parent, code):
    worker = multiprocessing.get_context('fork').Process(
        target=datasets._in_worker, args=(parent(), False, 0))
    worker.start()
    worker.join(60)
    assert worker.exitcode == code


def test_an_error_of_the_program_within_a_worker_keeps_its_kind():
    def read(key):
        raise RuntimeError('a defect')

    with pytest.raises(RuntimeError, match='a defect'):
        list(datasets.read_ahead(read, [1], 1))
