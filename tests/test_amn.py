"""The method from Python: what the stages write, for images of every form, and what it refuses."""
import functools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import amn
from misc import imutils
from misc.files import activations, label_maps
from tests.conftest import GOLDEN, Command
from tests.test_show import IDS, SETTINGS, photograph, tiny_weights
from voc12.dataloader import CLASSES, VOC12

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    return tiny_weights(tmp_path_factory.mktemp('trained'))


@pytest.fixture(scope='module')
def model(trained):
    return amn.load(trained, device='cpu', **SETTINGS)


def same(one, other):
    return all(np.array_equal(*pair) for pair in zip(one, other, strict=True))


def test_what_the_stages_write(trained, model, tmp_path):
    command = Command(GOLDEN / 'tree', tmp_path)
    flags = {f'{name}_weights_name': trained / 'sess' / f'res50_{name}.pth'
             for name in ('cam', 'amn', 'irn')}
    assert command('make_cam', 'cam_to_ir_label', 'make_amn_cam', 'amn_cam_to_ir_label',
                   'make_sem_seg', **SETTINGS, **flags) == 0
    for image_id in IDS[:2]:
        path = GOLDEN / 'tree' / 'JPEGImages' / f'{image_id}.jpg'
        names = np.array(CLASSES)[VOC12(GOLDEN / 'tree').labels(image_id)].tolist()
        found, masks = model.activations(path, names), model.masks(path, names)
        for folder, planes in (('cam', found.cam), ('amn_cam', found.amn)):
            stored = activations.load(tmp_path / folder, image_id).without_background()
            assert np.array_equal(planes, stored.high_res)
            assert [model.classes[key] for key in found.keys] == names
        for folder, label_map in (('ir_label', found.cam_seed), ('amn_ir_label', found.amn_seed),
                                  ('sem_seg', masks.pseudo)):
            assert np.array_equal(label_map, label_maps.load(tmp_path / folder / f'{image_id}.png'))
        hw = imutils.read_image(path).shape[:2]
        assert found.walked.shape == (len(names), *hw)
        assert found.edge.shape == (1, *(-(-side // 4) for side in hw))
        assert np.array_equal(masks.amn, amn.mask_of(found.keys, found.amn, 0.25))
        assert np.array_equal(masks.cam, amn.mask_of(found.keys, found.cam, 0.15))
        assert [array.dtype for array in masks] == [np.uint8] * 3
        assert set(np.unique(masks.pseudo)) <= {0, *(found.keys + 1)}
    refined = amn.load(trained, **SETTINGS, sem_seg_crf=True).masks(path, names).pseudo
    assert command('make_sem_seg', **SETTINGS, **flags, sem_seg_crf=True, overwrite=True) == 0
    assert np.array_equal(refined, label_maps.load(tmp_path / 'sem_seg' / f'{image_id}.png'))
    assert not np.array_equal(refined, masks.pseudo)


def test_a_photograph_in_every_form(model, tmp_path):
    path = photograph(tmp_path / 'yard.png')
    pixels = imutils.read_image(path)
    expected = model.masks(path, ['dog', 'cat'])
    for form in (str(path), pixels, Image.fromarray(pixels), Image.open(path)):
        assert same(model.masks(form, ['dog', 'cat']), expected)
    grey = pixels[:, :, 0]
    assert same(model.masks(grey, 'dog'), model.masks(np.repeat(grey[:, :, None], 3, 2), 'dog'))
    turned = Image.fromarray(pixels)
    turned.getexif()[274] = 6  # a quarter to the right
    turned.save(tmp_path / 'turned.png', exif=turned.getexif())
    for form in (tmp_path / 'turned.png', turned, Image.open(tmp_path / 'turned.png')):
        assert same(model.masks(form, 'dog'), model.masks(np.rot90(pixels, -1), 'dog'))
    deep = Image.fromarray(grey.astype(np.uint16) << 8)
    assert same(model.masks(deep, 'dog'), model.masks(grey, 'dog'))


@pytest.mark.parametrize('given', [['cat', 'dog'], ('dog', 'cat'), [8, 12], np.array([12, 8]),
                                   ['dog', 8, 'cat']])
def test_names_and_numbers(given):
    assert np.flatnonzero(amn.present_classes(given, CLASSES)).tolist() == [7, 11]


@pytest.mark.parametrize(('given', 'told'), [
    ('dgo', r"labels 'dgo' \(dog\?\): not among the 20 classes of these weights: aeroplane, "),
    ([0, 21, 'cat'], r'labels 0 \(1 to 20 are\), 21 \(1 to 20 are\): not among the 20 classes'),
    ([], 'labels names none of the 20 classes')])
def test_labels_that_are_not_among_the_classes(given, told):
    with pytest.raises(amn.UserError, match=told):
        amn.present_classes(given, CLASSES)


@pytest.mark.parametrize('image', [
    np.zeros((4, 5, 3)), np.zeros((4, 5, 4), np.uint8), np.zeros((1, 3, 4, 5), np.uint8),
    np.zeros((0, 5), np.uint8), np.zeros(5, np.uint8)])
def test_arrays_that_are_no_photographs(model, image):
    with pytest.raises(amn.UserError, match=re.escape(f'{image.shape}: give uint8 (H, W, 3) RGB')):
        model.masks(image, 'dog')


def test_without_irn(tmp_path):
    model = amn.load(tiny_weights(tmp_path, names=('cam', 'amn')), device='cpu', **SETTINGS)
    found = model.activations(np.zeros((20, 30, 3), np.uint8), 'dog')
    assert found.edge is None and found.walked is None
    assert model.masks(np.zeros((20, 30, 3), np.uint8), 'dog').pseudo is None


def test_flags_by_their_names(trained):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    flags = SETTINGS | {'device': 'cpu'}
    one = amn.load(trained, **flags).activations(image, 'dog')
    other = amn.load(trained, **flags | {'cam_scales': (1.0, 1.5), 'backbone': None})
    other = other.activations(image, 'dog')
    assert not np.array_equal(one.cam, other.cam)
    everything = amn.load(trained, **flags, eval_cam_thres=0).masks(image, 'dog')
    assert everything.cam.all()


@pytest.mark.parametrize(('flags', 'told'), [
    ({'cam_scale': 1}, r'unrecognized arguments: --cam_scale \(--cam_scales'),
    ({'eval_cam_thres': 2}, '2 is not at least 0 and at most 1'),
    ({'eval_cam_thres': 'auto'}, '--eval_cam_thres: auto takes the activations of many images'),
    ({'device': 'abacus'}, 'not a device'),
    ({'cam_weights_name': 'no.pth'}, 'no.pth: no such weights; train them with run_sample.py')])
def test_flags_that_are_refused(trained, flags, told):
    with pytest.raises(amn.UserError, match=told):
        amn.load(trained, **SETTINGS | flags)


def test_the_classes_of_the_weights(tmp_path):
    work = tiny_weights(tmp_path, 3)
    for name in ('cam', 'amn'):
        record = work / 'sess' / f'res50_{name}.json'
        record.write_text(json.dumps({'classes': ['crack', 'rust', 'traffic light']}))
    model = amn.load(work, device='cpu', **SETTINGS)
    assert model.classes == ('crack', 'rust', 'traffic light')
    found = model.activations(np.zeros((20, 30, 3), np.uint8), ['rust', 3])
    assert found.keys.tolist() == [1, 2]


def test_the_page_runs(trained, tmp_path, monkeypatch):
    """Every example of docs/api.md, on weights of the small networks."""
    photograph(tmp_path / 'yard.jpg')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(amn, 'load', functools.partial(amn.load, **SETTINGS))
    (tmp_path / 'my_run').symlink_to(trained)
    text = (ROOT / 'docs' / 'api.md').read_text(encoding='utf-8')
    examples = re.findall('^```python\n(.*?)^```', text, re.M | re.S)
    assert len(examples) >= 2
    scope = {}
    for example in examples:
        exec(compile(example, 'docs/api.md', 'exec'), scope)
    assert label_maps.load(tmp_path / 'yard_mask.png').shape == (40, 50)
