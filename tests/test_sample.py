"""The drawn sample: always alike, in VOC's layout, and difficult in the way it says."""
import hashlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from misc.files import label_maps, weights
from misc.pyutils import UserError
from net.resnet50 import ResNet50
from script import pretrain_backbone
from voc12 import sample
from voc12.dataloader import CLASSES, PALETTE, VOC12

COUNTS = {'n_train': 7, 'n_train_aug': 14, 'n_val': 7}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return sample.draw(tmp_path_factory.mktemp('sample') / 'VOC2012', **COUNTS)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob('*')) if path.is_file()}


def all_names(root: Path) -> list[str]:
    source = VOC12(root)
    return source.names('train_aug') + source.names('val')


def test_same_seed_same_bytes(root, tmp_path):
    again = sample.draw(tmp_path / 'again', **COUNTS)
    assert contents(root) == contents(again)
    other = sample.draw(tmp_path / 'other', **COUNTS, seed=1)
    first = 'JPEGImages/2012_000001.jpg'
    assert contents(root)[first] != contents(other)[first]


def test_scene_does_not_depend_on_how_many_are_drawn(root, tmp_path):
    fewer = contents(sample.draw(tmp_path / 'fewer', n_train=2, n_train_aug=3, n_val=1))
    pictures = {name: digest for name, digest in fewer.items()
                if name.endswith(('.jpg', '.png', '.xml'))}
    assert len(pictures) == 4 * 4
    assert pictures.items() <= contents(root).items()


def test_layout(root):
    source = VOC12(root)
    train, train_aug, val = (source.names(split) for split in ('train', 'train_aug', 'val'))
    assert train == [f'2012_{number:06d}' for number in range(1, 8)]
    assert train_aug == [f'2012_{number:06d}' for number in range(1, 15)]
    assert val == [f'2012_{number:06d}' for number in range(500001, 500008)]
    check = source.check(train_aug + val)
    assert check.images == 21
    assert (check.missing_image, check.missing_annotation, check.missing_mask,
            check.no_class) == ([], [], [], [])
    for folder in ('JPEGImages', 'Annotations', 'SegmentationClass', 'SegmentationObject'):
        assert len(list((root / folder).iterdir())) == 21


def test_every_class_occurs_in_every_split(root):
    source = VOC12(root)
    for split in ('train', 'train_aug', 'val'):
        present = np.any([source.labels(name) for name in source.names(split)], axis=0)
        assert {CLASSES[i] for i in np.flatnonzero(present)} == set(sample.NAMES)


def test_annotations_agree_with_masks(root):
    source = VOC12(root)
    for name in all_names(root):
        classes, objects = (label_maps.load(source.mask_path(name)),
                            label_maps.load(source.object_mask_path(name)))
        with Image.open(source.image_path(name)) as picture:
            w, h = picture.size
            assert picture.mode == 'RGB'
        assert classes.shape == objects.shape == (h, w)
        annotation = ElementTree.parse(source.xml_path(name))
        assert (annotation.findtext('size/width'),
                annotation.findtext('size/height')) == (str(w), str(h))
        assert annotation.findtext('filename') == f'{name}.jpg'
        assert set(np.unique(classes)) - {0, 255} == set(np.flatnonzero(source.labels(name)) + 1)
        assert ((classes == 255) == (objects == 255)).all() and ((classes == 0)
                                                                 == (objects == 0)).all()
        found = annotation.findall('object')
        assert 1 <= len(found) <= 3
        assert set(np.unique(objects)) == {0, 255, *range(1, len(found) + 1)}
        for number, item in enumerate(found, start=1):
            rows, columns = np.nonzero(objects == number)
            assert set(classes[rows, columns]) == {CLASSES.index(item.findtext('name')) + 1}
            box = [int(item.findtext(f'bndbox/{side}'))
                   for side in ('xmin', 'ymin', 'xmax', 'ymax')]
            assert box == [columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1]
            assert item.findtext('difficult') == str(int(len(rows) < 0.02 * h * w))


def test_masks_have_the_palette(root):
    source = VOC12(root)
    for path in (source.mask_path('2012_000001'), source.object_mask_path('2012_000001')):
        with Image.open(path) as picture:
            assert picture.mode == 'P'
            palette = np.array(picture.getpalette('RGB'), dtype=np.uint8).reshape(-1, 3)
        np.testing.assert_array_equal(palette, PALETTE[:len(palette)])
        assert len(palette) == 256


def test_objects_are_fenced_by_their_border(root):
    """Wherever two neighbours differ, one of them is 255: no object touches the background or
    another object.
    """
    source = VOC12(root)
    for name in all_names(root):
        objects = label_maps.load(source.object_mask_path(name)).astype(int)
        for one, two in ((objects[:, 1:], objects[:, :-1]), (objects[1:], objects[:-1])):
            differ = one != two
            assert differ.any()
            assert ((one == 255) | (two == 255))[differ].all()


def test_borders_by_hand():
    index = np.zeros((3, 5), np.uint8)
    index[1, 2] = 1
    assert sample._borders(index, False).tolist() == [[0, 0, 255, 0, 0], [0, 255, 1, 255, 0],
                                                      [0, 0, 255, 0, 0]]
    assert sample._borders(index, True)[1].tolist() == [0, 255, 255, 255, 0]


def test_every_object_has_a_telling_and_a_plain_part():
    for number in range(21):
        drawn = sample.scene(number)
        assert drawn.classes[0] == sample.NAMES[number % 7]
        assert not drawn.telling[(drawn.objects == 0) | (drawn.objects == 255)].any()
        for index in range(1, len(drawn.classes) + 1):
            own = drawn.objects == index
            share = drawn.telling[own].mean()
            assert 0.04 < share < 0.75, (number, drawn.classes[index - 1], share)


def test_plain_parts_share_their_colours():
    """The same body colour reaches a plain part of every class, so that it says nothing about the
    class.
    """
    body = sample.BODY_COLOURS[0]
    for name in sample.NAMES:
        parts = sample.SHAPES[name](body)
        assert any(part.colour == body for part in parts if not part.telling), name
        assert not any(part.colour == body for part in parts if part.telling), name
        # the telling part is the same whatever the colour of the body
        other = [part.colour for part in sample.SHAPES[name](sample.BODY_COLOURS[1])
                 if part.telling]
        assert other == [part.colour for part in parts if part.telling]


def casts(first: str, n: int = 200) -> list[tuple[str, list[str]]]:
    return [sample._cast(np.random.default_rng(seed), first) for seed in range(n)]


def test_classes_have_favourite_places():
    for first in sample.NAMES:
        home = [place for place in sample.PLACES if first in sample.PLACES[place][2]]
        drawn = casts(first)
        assert {place for place, _ in drawn} > set(home)
        assert 0.7 * 200 < sum(place in home for place, _ in drawn) < 200
        assert all(names[0] == first and 1 <= len(names) <= 3 for _, names in drawn)
    assert not any(place == 'sky' for place, _ in casts('boat'))


def test_no_place_tells_the_class():
    """No class is in nearly every scene of a place, as a classifier could then name it by the
    ground, and its activation would cover that.
    """
    drawn = [cast for first in sample.NAMES for cast in casts(first)]
    for place in sample.PLACES:
        there = [set(names) for where, names in drawn if where == place]
        shares = {name: np.mean([name in names for names in there]) for name in sample.NAMES}
        assert max(shares.values()) < 0.85, (place, shares)


def test_size_of_scenes():
    shapes = {sample.scene(number, size=80).image.shape for number in range(14)}
    assert all(76 <= max(shape[:2]) <= 84 and 57 <= min(shape[:2]) <= 69 for shape in shapes)
    assert {h > w for h, w, _ in shapes} == {True, False}  # portrait and landscape


def test_large_scenes_have_wide_borders(monkeypatch):
    wide = []
    draw_borders = sample._borders
    monkeypatch.setattr(sample, '_borders', lambda index,
                        flag: wide.append(flag) or draw_borders(index, flag))
    for size in (112, 223, 224):
        sample.scene(0, size=size)
    assert wide == [False, False, True]


def test_same_sample_is_left_alone(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob('*')}
    assert sample.draw(root, **COUNTS) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob('*')} == before


def test_other_parameters_are_refused(root):
    before = contents(root)
    with pytest.raises(UserError, match='other parameters'):
        sample.draw(root, **COUNTS, seed=3)
    assert contents(root) == before


def test_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / 'JPEGImages').mkdir()
    (tmp_path / 'JPEGImages' / 'mine.jpg').write_bytes(b'precious')
    with pytest.raises(UserError, match='is not a drawn sample'):
        sample.draw(tmp_path, **COUNTS)
    assert contents(tmp_path) == {'JPEGImages/mine.jpg': hashlib.sha256(b'precious').hexdigest()}
    file = tmp_path / 'file'
    file.write_text('x')
    with pytest.raises(UserError, match='is not a drawn sample'):
        sample.draw(file, **COUNTS)
    broken = tmp_path / 'broken'
    broken.mkdir()
    (broken / 'sample.json').write_text('{')
    with pytest.raises(UserError, match='is not a drawn sample'):
        sample.draw(broken, **COUNTS)


def test_empty_folder_is_filled_and_nothing_else_is_left(tmp_path):
    root = tmp_path / 'empty'
    root.mkdir()
    sample.draw(root, n_train=1, n_train_aug=1, n_val=1)
    assert (root / 'sample.json').is_file()
    assert [path.name for path in tmp_path.iterdir()] == ['empty']


def test_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(sample, '_write_scene', full)
    with pytest.raises(UserError, match='No space left'):
        sample.draw(tmp_path / 'VOC2012', **COUNTS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('wrong', [{'n_train': 0}, {'n_train': 15}, {'n_val': 0}, {'size': 20},
                                   {'seed': -1}])
def test_senseless_numbers_are_refused(tmp_path, wrong):
    with pytest.raises(UserError, match='cannot draw'):
        sample.draw(tmp_path / 'VOC2012', **{**COUNTS, **wrong})
    assert not (tmp_path / 'VOC2012').exists()


def test_command_line(tmp_path, capsys):
    arguments = [str(tmp_path / 'VOC2012'), '--n_train', '1', '--n_train_aug', '2', '--n_val', '1',
                 '--size', '64']
    assert sample.main(arguments) == 0
    assert len(VOC12(tmp_path / 'VOC2012').names('train_aug')) == 2
    assert capsys.readouterr().err.startswith('drawing the sample ')
    assert sample.main([*arguments, '--seed', '5']) == 1
    assert capsys.readouterr().err.startswith('error: ')


def test_object_crops():
    images, targets = sample.object_crops(20, size=48, seed=4)
    again, _ = sample.object_crops(20, size=48, seed=4)
    fewer, _ = sample.object_crops(10, size=48, seed=4)
    other, _ = sample.object_crops(10, size=48, seed=5)
    assert images.shape == (20, 48, 48, 3) and images.dtype == np.uint8
    assert targets.shape == (20, 2) and targets.dtype == np.int64
    assert targets[:, 0].tolist() == [*range(10), *range(10)]
    assert set(targets[:, 1]) <= set(range(len(sample.BODY_COLOURS))) and len(set(targets[:,
                                                                                          1])) > 3
    assert len(sample.NAMES + sample.DISTRACTORS) == 10
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(images[:10], fewer)
    assert (images[:10] != other).mean() > 0.9
    assert images.reshape(20, -1).std(1).min() > 10  # none is empty


def test_the_second_label_of_a_crop_is_its_bodys_colour():
    """On average over the crops, more pixels are near the named colour than near any other."""
    images, targets = sample.object_crops(60, size=48)
    distance = np.linalg.norm(images[:, :, :, None] - np.array(sample.BODY_COLOURS, float), axis=-1)
    near = (distance < 30).mean((1, 2))  # (60, colours)
    named = near[np.arange(60), targets[:, 1]]
    others = (near.sum(1) - named) / (near.shape[1] - 1)
    assert named.mean() > 2 * others.mean()


def test_pretraining_counts_class_and_colour():
    """Logits by hand: both right, the class alone, the colour alone."""
    logits = torch.zeros(3, 17)
    logits[0, 3], logits[0, 10 + 2] = 5, 5
    logits[1, 9], logits[1, 10 + 6] = 5, 5
    logits[2, 1], logits[2, 10 + 1] = 5, 5
    labels_of = torch.tensor([[3, 2], [9, 0], [0, 1]])
    loss, right = pretrain_backbone.loss_and_right(logits, labels_of)
    assert right.tolist() == [[True, True], [True, False], [False, True]]
    # right, wrong
    high, low = np.log(np.exp(5) + np.array([9, 6])) - 5, np.log(np.exp(5) + np.array([9, 6]))
    assert loss.item() == pytest.approx(((2 * high[0] + low[0]) + (2 * high[1] + low[1])) / 3,
                                        rel=1e-5)


def test_pretraining_writes_a_backbone(tmp_path, capsys):
    """One tiny epoch: the file loads as torchvision's would, and its statistics are measured ones.
    """
    out = tmp_path / 'backbone.pth'
    tiny = ['--images', '8', '--batch_size', '4', '--size', '32', '--epochs', '1', '--device',
            'cpu']
    assert pretrain_backbone.main(['--out', str(out), *tiny]) == 0
    assert 'right on 400 held-out crops: class ' in capsys.readouterr().out
    state = torch.load(out, weights_only=True)
    # 10 classes, 7 colours
    assert state['fc.weight'].shape == (17, 2048) and state['fc.bias'].shape == (17,)
    backbone = ResNet50()
    assert set(state) == {*backbone.state_dict(), 'fc.weight', 'fc.bias'}
    assert weights.load_pretrained(backbone, str(out)) == weights.digest(backbone.state_dict())
    assert all(torch.isfinite(value).all() for value in state.values())
    assert not torch.equal(state['bn1.running_mean'], torch.zeros(64))
    assert state['bn1.num_batches_tracked'] == 1  # the statistics were measured anew, on one batch


def test_pretraining_refuses_senseless_numbers(tmp_path, capsys):
    assert pretrain_backbone.main(['--out', str(tmp_path / 'x'), '--images', '3', '--batch_size',
                                   '4']) == 1
    assert capsys.readouterr().err.startswith('error: at least')
    assert list(tmp_path.iterdir()) == []
