"""Masks handed on to other tools, read back by these where they are installed (requirements-
export.txt), and by a few lines of our own.
"""
import base64
import io
import json
import os
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from folder.dataloader import Folder
from misc import imutils
from misc.export import outlines
from misc.files import label_maps
from misc.method import instances
from step import export

CLASSES = ['Kätzchen', 'a "dog"', '犬 <2> 🐕']
HOLE = np.array([[int(digit) for digit in row] for row in (
    '0000000000', '0111110000', '0100010022', '0101010022', '0100010000', '0111110000',
    '0000001000', '5000000030')], np.uint8)


def map_of(scale=4):
    """A ring around a block that touches it, at one corner, nowhere; single pixels; ignored ones.
    """
    big = np.kron(HOLE, np.ones((scale, scale), np.uint8))
    big[big == 5] = label_maps.IGNORE
    big[0, 0], big[-1, 20], big[0, -1] = 3, 2, label_maps.IGNORE
    return big


MAPS = {'hüllen a': map_of(), 'turned': map_of(3).T.copy(), 'leer': np.zeros((5, 7), np.uint8),
        'p.q': np.full((6, 9), label_maps.IGNORE, np.uint8)}
FILES = {'hüllen a': 'hüllen a.jpg', 'turned': 'turned.JPG', 'leer': 'leer.png', 'p.q': 'p.q.png'}


def photograph(path, hw, orientation=1, shade=0):
    """As viewers show it of size (H, W); on the disk it is as orientation 6 or 1 wants it."""
    values = np.random.default_rng(shade).integers(0, 256, (*hw, 3), np.uint8)
    picture, exif = Image.fromarray(values), Image.Exif()
    if orientation == 6:
        picture, exif[0x0112] = picture.transpose(Image.Transpose.ROTATE_90), 6
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, exif=exif)


@pytest.fixture
def mine(tmp_path):
    """Photographs with label maps and instance masks, as stages leave them."""
    root = tmp_path / 'mine'
    for image_id, label_map in MAPS.items():
        photograph(root / 'images' / FILES[image_id], label_map.shape,
                   6 if image_id == 'turned' else 1)
        label_maps.save(tmp_path / 'result' / 'sem_seg' / f'{image_id}.png', label_map,
                        label_maps.PALETTE)
        instances.save(tmp_path / 'result' / 'ins_seg', image_id, found_in(label_map))
    (root / 'classes.txt').write_text('\n'.join(CLASSES), encoding='utf-8')
    (root / 'labels.csv').write_text(''.join(
        f'{FILES[image_id]},{"" if image_id == "leer" else CLASSES[0]}\n' for image_id in MAPS),
        encoding='utf-8')
    return root


def found_in(label_map):
    """Each region of each class as an instance; the last of them a fragment."""
    classes, instance_map = [], np.zeros(label_map.shape, np.int32)
    for label in range(1, len(CLASSES) + 1):
        regions = instances._components(label_map == label)
        instance_map[regions > 0] = regions[regions > 0] + len(classes)
        classes += [label - 1] * regions.max()
    scores = np.linspace(1, 0, len(classes), dtype=np.float32)
    return instances.Instances(np.array(classes, np.int64), scores, instance_map)


def run(mine, form, *words, out='out'):
    return export.main(['--format', form, str(mine.parent / out), '--dataset', 'folder',
                        '--data_root', str(mine), '--work_dir', str(mine.parent),
                        '--num_workers', '0', *map(str, words)])


def made(mine, form, *words, out='out'):
    assert run(mine, form, *words, out=out) == 0
    return mine.parent / out


def error(capsys):
    lines = capsys.readouterr().err.splitlines()
    told = [line for line in lines if line.startswith('error: ')]
    assert len(told) == 1 and 'Traceback' not in ''.join(lines), lines
    return told[0]


def polygon_area(points, hw=(1, 1)):
    x, y = (np.array(points, float) * hw[::-1]).T
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def areas_of(pairs):
    """(class from 1, area) of each polygon -> the sum of each class."""
    total = np.zeros(len(CLASSES))
    for label, area in pairs:
        total[label - 1] += area
    return total


def pixels_of(label_map):
    return np.bincount(label_map.ravel(), minlength=256)[1:len(CLASSES) + 1]


def close(areas, label_map, tolerance):
    exact = pixels_of(label_map)
    within = 1e-3 if tolerance == 0 else outlines.MOST * exact + 1e-3
    assert (np.abs(areas - exact) <= within).all()


# polygons

@pytest.mark.parametrize('share', [0.1, 0.5, 0.9])
@pytest.mark.parametrize('scale', [1, 4])
def test_outlines_hold_the_pixels_and_no_others(share, scale):
    rng = np.random.default_rng(1)
    for _ in range(20):
        mask = np.kron(rng.random(rng.integers(1, 20, 2)) < share, np.ones((scale, scale), bool))
        rings = outlines.outlines(mask, 0)
        assert sum(map(outlines.area, rings)) == mask.sum()
        drawn = coco_mask.frPyObjects([ring.ravel().tolist() for ring in rings], *mask.shape)
        if rings:
            assert (coco_mask.decode(coco_mask.merge(drawn)) == mask).all()
        for exact, simple in zip(rings, outlines.outlines(mask, 2.0), strict=True):
            assert 3 <= len(simple) <= len(exact)
            assert outlines.area(simple) == pytest.approx(outlines.area(exact), rel=outlines.MOST)


def test_outlines_are_simplified_as_far_as_they_may_be():
    y, x = np.indices((90, 120))
    disc = (x - 60) ** 2 + (y - 40) ** 2 < 30 ** 2
    exact, = outlines.outlines(disc, 0)
    simple, = outlines.outlines(disc, 1)
    assert len(simple) < len(exact) / 3
    assert outlines.area(simple) == pytest.approx(disc.sum(), rel=0.02)
    assert np.abs(np.hypot(*(simple - (60.5, 40.5)).T) - 30).max() < 1.5
    assert outlines.outlines(np.zeros((3, 4), bool), 1) == []
    single, = outlines.outlines(np.pad([[True]], ((2, 1), (1, 3))), 9)
    assert sorted(map(tuple, single)) == [(1, 2), (1, 3), (2, 2), (2, 3)]


# COCO

def coco_of(out):
    return COCO(str(out / 'annotations.json'))


def test_coco_run_lengths_are_the_label_maps(mine):
    out = made(mine, 'coco', '--images', 'link')
    coco = coco_of(out)
    assert [(one['id'], one['name']) for one in coco.loadCats(coco.getCatIds())] == [
        (number, name) for number, name in enumerate(CLASSES, start=1)]
    images = coco.loadImgs(coco.getImgIds())
    assert [one['file_name'] for one in images] == list(FILES.values())
    for one, (image_id, label_map) in zip(images, MAPS.items(), strict=True):
        assert (one['height'], one['width']) == label_map.shape
        again = np.zeros_like(label_map)
        found = coco.loadAnns(coco.getAnnIds(one['id']))
        for each in found:
            mask = coco.annToMask(each).astype(bool)
            assert each['area'] == mask.sum()
            x, y, w, h = map(int, each['bbox'])
            assert mask[y:y + h, x:x + w].sum() == mask.sum()
            again[mask] = each['category_id']
        assert (again == np.where(label_map == label_maps.IGNORE, 0, label_map)).all()
        assert bool(found) == (image_id not in ('leer', 'p.q'))
        link = out / 'images' / one['file_name']
        assert link.is_symlink() and link.resolve() == (mine / 'images' / one['file_name'])


@pytest.mark.parametrize('tolerance', [0, 1])
def test_coco_polygons(mine, tolerance):
    out = made(mine, 'coco', '--segments', 'polygons', '--tolerance', tolerance)
    coco = coco_of(out)
    for one, label_map in zip(coco.loadImgs(coco.getImgIds()), MAPS.values(), strict=True):
        found = coco.loadAnns(coco.getAnnIds(one['id']))
        close(areas_of((each['category_id'], polygon_area(np.reshape(ring, (-1, 2))))
                       for each in found for ring in each['segmentation']), label_map, tolerance)
        for each in found:
            mask = label_map == each['category_id']
            assert each['area'] == mask.sum()
            if tolerance == 0:
                assert (coco.annToMask(each) == mask).all()
        copied = out / 'images' / one['file_name']
        assert not copied.is_symlink()
        assert copied.read_bytes() == (mine / 'images' / one['file_name']).read_bytes()


def test_coco_of_instances_is_what_the_stage_writes(mine):
    out = made(mine, 'coco', '--what', 'make_ins_seg', '--images', 'none')
    assert not (out / 'images').exists()
    theirs = instances.to_coco(Folder(mine), MAPS, lambda image_id: found_in(MAPS[image_id]))
    ours = json.loads((out / 'annotations.json').read_text())
    assert ours['images'] == json.loads(json.dumps(theirs['images']))
    assert ours['annotations'] == json.loads(json.dumps(theirs['annotations']))
    assert len(ours['annotations']) > 4


def test_supervision_reads_coco(mine):
    sv = pytest.importorskip('supervision')
    out = made(mine, 'coco')
    read = sv.DetectionDataset.from_coco(str(out / 'images'), str(out / 'annotations.json'),
                                         force_masks=True)
    assert set(read.classes) == set(CLASSES) and len(read) == len(MAPS)
    for path, detections in read.annotations.items():
        label_map = next(MAPS[key] for key, name in FILES.items() if path.endswith(name))
        found = [] if detections.mask is None else [mask.sum() for mask in detections.mask]
        assert sorted(found) == sorted(count for count in pixels_of(label_map) if count)


# YOLO

def yolo_polygons(out, image_id):
    for line in (out / 'labels' / f'{image_id}.txt').read_text().splitlines():
        label, *values = line.split()
        yield int(label) + 1, polygon_area(np.reshape(values, (-1, 2)), MAPS[image_id].shape)


@pytest.mark.parametrize('tolerance', [0, 1])
def test_yolo(mine, tolerance):
    out = made(mine, 'yolo', '--tolerance', tolerance)
    for image_id, label_map in MAPS.items():
        close(areas_of(yolo_polygons(out, image_id)), label_map, tolerance)
        assert (out / 'images' / FILES[image_id]).is_file()
    text = (out / 'data.yaml').read_text(encoding='utf-8')
    assert 'train: images\nval: images\n' in text and '  1: "a \\"dog\\""\n' in text
    assert '  2: "犬 <2> 🐕"\n' in text


def test_ultralytics_reads_yolo(mine, monkeypatch):
    monkeypatch.setenv('YOLO_CONFIG_DIR', str(mine.parent))
    monkeypatch.setenv('YOLO_OFFLINE', 'true')
    utils = pytest.importorskip('ultralytics.data.utils')
    out = made(mine, 'yolo', '--tolerance', 0)
    about = utils.check_det_dataset(str(out / 'data.yaml'), autodownload=False)
    assert list(about['names'].values()) == CLASSES
    paths = [str(Path(about['train']) / name) for name in FILES.values()]
    for image_id, path, text in zip(MAPS, paths, utils.img2label_paths(paths), strict=True):
        _, found, hw, segments, *_, corrupt, told = utils.verify_image_label(
            (path, text, '', False, len(CLASSES), 0, 0, False))
        if min(MAPS[image_id].shape) < 10:  # it takes none so small
            continue
        assert not corrupt, told
        assert hw == MAPS[image_id].shape
        close(areas_of((int(row[0]) + 1, polygon_area(segment, hw))
                       for row, segment in zip(found, segments, strict=True)), MAPS[image_id], 0)


def test_supervision_reads_yolo(mine):
    sv = pytest.importorskip('supervision')
    out = made(mine, 'yolo')
    read = sv.DetectionDataset.from_yolo(str(out / 'images'), str(out / 'labels'),
                                         str(out / 'data.yaml'), force_masks=True)
    assert read.classes == CLASSES and len(read) >= 3  # it passes by endings in capitals
    detections = next(found for path, found in read.annotations.items() if 'hüllen' in path)
    label_map = MAPS['hüllen a']
    assert sorted(set(detections.class_id)) == [0, 1, 2]
    for label in range(3):
        drawn = detections.mask[detections.class_id == label].any(0)
        assert not (drawn & ~_grown(label_map == label + 1)).any()  # it draws the edges, too
        assert not ((label_map == label + 1) & ~_grown(drawn)).any()


def _grown(mask):
    padded = np.pad(mask, 2)
    return np.any([padded[y:y + mask.shape[0], x:x + mask.shape[1]]
                   for y in range(5) for x in range(5)], axis=0)


# CVAT

def cvat_images(out):
    return ElementTree.parse(out / 'annotations.xml').getroot().findall('image')


@pytest.mark.parametrize('tolerance', [0, 1])
def test_cvat_polygons(mine, tolerance):
    out = made(mine, 'cvat', '--tolerance', tolerance)
    for number, (image, image_id) in enumerate(zip(cvat_images(out), MAPS, strict=True)):
        assert (image.get('id'), image.get('name')) == (str(number), FILES[image_id])
        assert (int(image.get('height')), int(image.get('width'))) == MAPS[image_id].shape
        close(areas_of((CLASSES.index(each.get('label')) + 1, polygon_area(
            [point.split(',') for point in each.get('points').split(';')])) for each in image),
            MAPS[image_id], tolerance)
    assert [one['name'] for one in json.loads((out / 'labels.json').read_text())] == CLASSES


def test_cvat_masks(mine):
    out = made(mine, 'cvat', '--segments', 'rle')
    for image, label_map in zip(cvat_images(out), MAPS.values(), strict=True):
        again = np.zeros_like(label_map)
        for each in image:
            lengths = [int(length) for length in each.get('rle').split(',')]
            left, top, width, height = (int(each.get(name))
                                        for name in ('left', 'top', 'width', 'height'))
            piece = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(height, width)
            again[top:top + height, left:left + width][piece] = (
                CLASSES.index(each.get('label')) + 1)
        assert (again == np.where(label_map == label_maps.IGNORE, 0, label_map)).all()


@pytest.mark.parametrize('segments', ['rle', 'polygons'])
def test_datumaro_reads_cvat(mine, segments):
    datumaro = pytest.importorskip('datumaro')
    flags = ['--tolerance', 0] if segments == 'polygons' else []
    out = made(mine, 'cvat', '--segments', segments, *flags)
    read = datumaro.Dataset.import_from(str(out), 'cvat')
    names = [label.name for label in read.categories()[datumaro.AnnotationType.label]]
    assert names == CLASSES and len(read) == len(MAPS)
    for item in read:
        close(areas_of((one.label + 1, one.get_area()) for one in item.annotations), MAPS[item.id],
              0)


# LabelMe

@pytest.mark.parametrize('tolerance', [0, 1])
def test_labelme_polygons(mine, tolerance):
    out = made(mine, 'labelme', '--tolerance', tolerance)
    for image_id, label_map in MAPS.items():
        read = json.loads((out / 'images' / f'{image_id}.json').read_text())
        assert read['imagePath'] == FILES[image_id]
        assert (read['imageHeight'], read['imageWidth']) == label_map.shape
        close(areas_of((CLASSES.index(each['label']) + 1, polygon_area(each['points']))
                       for each in read['shapes']), label_map, tolerance)
    several = json.loads((out / 'images' / 'hüllen a.json').read_text())['shapes']
    assert {each['group_id'] for each in several} == {1, 2, 3}  # one object each, in regions


@pytest.mark.parametrize('segments', ['rle', 'polygons'])
@pytest.mark.parametrize('images', ['copy', 'link', 'none'])
def test_labelme_reads_its_files(mine, segments, images):
    labelme = pytest.importorskip('labelme')
    out = made(mine, 'labelme', '--segments', segments, '--images', images)
    for image_id, label_map in MAPS.items():
        read = labelme.LabelFile(str(out / 'images' / f'{image_id}.json'))  # it checks the size
        with Image.open(io.BytesIO(read.image_data)) as picture:
            assert (picture.height, picture.width) == label_map.shape
        pairs = []
        for each in read.shapes:
            if segments == 'rle':
                (left, top), (right, bottom) = each['points']
                assert each['mask'].shape == (bottom - top + 1, right - left + 1)
            area = each['mask'].sum() if segments == 'rle' else polygon_area(each['points'])
            pairs.append((CLASSES.index(each['label']) + 1, area))
        close(areas_of(pairs), label_map, 0 if segments == 'rle' else 1)


def test_labelme_masks_are_pngs(mine):
    out = made(mine, 'labelme', '--segments', 'rle', '--what', 'ins_seg')
    shapes = json.loads((out / 'images' / 'turned.json').read_text())['shapes']
    found = found_in(MAPS['turned'])
    assert len(shapes) == np.count_nonzero(found.scores)
    with Image.open(io.BytesIO(base64.b64decode(shapes[0]['mask']))) as picture:
        assert np.count_nonzero(picture) == np.count_nonzero(found.instance_map == 1)


# PNG

def test_cutouts_and_overlays(mine):
    out = made(mine, 'png')
    for image_id, label_map in MAPS.items():
        image = imutils.read_image(mine / 'images' / FILES[image_id], upright=True)
        overlay = imutils.read_image(out / 'overlays' / f'{image_id}.png')
        assert overlay.shape == image.shape
        assert (overlay != image).any() == (image_id != 'leer')
        paths = sorted((out / 'cutouts' / image_id).glob('*')) if image_id in (
            'hüllen a', 'turned') else []
        assert len(paths) == len(set(np.unique(label_map)) - {0, label_maps.IGNORE})
        for path in paths:
            with Image.open(path) as picture:
                assert picture.mode == 'RGBA'
                cut = np.array(picture)
            assert ((cut[..., 3] == 255) == (label_map == int(path.name[0]))).all()
            assert (cut[..., :3] == image).all()
    assert {path.name for path in (out / 'cutouts' / 'turned').iterdir()} == {
        '1_Kätzchen.png', '2_a_dog_.png', '3_犬_2_.png'}
    assert not (out / 'images').exists()


def test_cutouts_of_instances(mine):
    out = made(mine, 'png', '--what', 'ins_seg')
    found = found_in(MAPS['turned'])
    assert len(list((out / 'cutouts' / 'turned').iterdir())) == np.count_nonzero(found.scores)


# Hugging Face

def test_hf_masks_are_the_label_maps(mine):
    out = made(mine, 'hf')
    rows = [json.loads(line) for line in (out / 'metadata.jsonl').read_text().splitlines()]
    assert [row['image_id'] for row in rows] == list(MAPS)
    for row in rows:
        label_map = MAPS[row['image_id']]
        assert (label_maps.load(out / row['mask_file_name']) == label_map).all()
        assert (out / row['file_name']).is_file()
        assert row['labels'] == sorted(set(np.unique(label_map).tolist()) - {0, label_maps.IGNORE})
    assert (out / 'classes.txt').read_text(encoding='utf-8').splitlines() == [
        '0 background', *(f'{k} {name}' for k, name in enumerate(CLASSES, 1)), '255 ignored']


@pytest.mark.parametrize('images', ['link', 'copy'])
@pytest.mark.parametrize('what', ['sem_seg', 'ins_seg'])
def test_datasets_reads_it(mine, what, images, monkeypatch):
    for name in ('HF_HUB_OFFLINE', 'HF_DATASETS_OFFLINE'):
        monkeypatch.setenv(name, '1')
    monkeypatch.setenv('HF_HOME', str(mine.parent / 'home'))
    datasets = pytest.importorskip('datasets')
    out = made(mine, 'hf', '--what', what, '--images', images)
    read = datasets.load_dataset('imagefolder', data_dir=str(out), split='train',
                                 cache_dir=str(mine.parent / 'cache'))
    assert len(read) == len(MAPS)
    for row in read:
        label_map = MAPS[row['image_id']]
        assert row['image'].size == label_map.shape[::-1]
        if what == 'sem_seg':
            assert (np.array(row['mask']) == label_map).all()
            continue
        found = found_in(label_map)
        numbers = np.array(row['instances'])
        assert numbers.max() == len(row['instance_labels']) == np.count_nonzero(found.scores)
        for number, label in enumerate(row['instance_labels'], start=1):
            assert (np.array(row['mask'])[numbers == number] == label).all()
            assert (label_map[numbers == number] == label).all()


# which images and masks

def test_lists_and_other_folders(mine, capsys):
    (mine / 'lists').mkdir()
    (mine / 'lists' / 'two.txt').write_text('turned\nleer')
    shutil.copytree(mine.parent / 'result' / 'sem_seg', mine.parent / 'other')
    out = made(mine, 'coco', '--list', 'two', '--sem_seg_out_dir', mine.parent / 'other')
    assert [one['file_name'] for one in coco_of(out).dataset['images']] == ['turned.JPG',
                                                                            'leer.png']
    out = made(mine, 'coco', '--mask_list', 'two', out='usual')
    assert len(coco_of(out).dataset['images']) == 2
    preset = mine / 'preset.txt'
    preset.write_text(f'--dataset folder\n--infer_list two\n--stages train_cam..make_sem_seg\n'
                      f'--data_root {mine}\n--cam_batch_size 8')
    words = ['--format', 'coco', mine.parent / 'of', '--preset', preset, '--work_dir', mine.parent]
    assert export.main(list(map(str, words))) == 0
    assert len(coco_of(mine.parent / 'of').dataset['images']) == 2
    assert export.main([*map(str, words), '--mask_list', 'all', '--overwrite']) == 0
    assert len(coco_of(mine.parent / 'of').dataset['images']) == 4
    assert run(mine, 'coco', '--what', 'seg', out='seg') == 1
    assert 'seg/hüllen a.png: 4 of the 4 masks of all are missing: run --make_seg_pass True' in (
        error(capsys))
    assert not (mine.parent / 'seg').exists()


def test_label_maps_for_an_evaluation_server(tree, tmp_path):
    (tree / 'ImageSets' / 'Segmentation' / 'test.txt').write_text('2007_000002')
    server = tmp_path / 'result' / 'seg' / 'results' / 'VOC2012' / 'Segmentation'
    server.joinpath('comp6_test_cls').mkdir(parents=True)
    shutil.copy(tree / 'SegmentationClass' / '2007_000002.png', server / 'comp6_test_cls')
    assert export.main(['--format', 'coco', str(tmp_path / 'out'), '--voc12_root', str(tree),
                        '--work_dir', str(tmp_path), '--what', 'seg', '--list', 'test']) == 0
    image, = coco_of(tmp_path / 'out').dataset['images']
    assert image['file_name'] == '2007_000002.jpg'


def test_a_folder_a_class(tmp_path):
    for name in ('dog', 'cat'):
        photograph(tmp_path / 'mine' / name / 'x.jpg', (6, 8))
        label_maps.save(tmp_path / 'result' / 'sem_seg' / f'{name}_x.png', np.full((6, 8), 1),
                    label_maps.PALETTE)
    for form, own in (('coco', 'annotations.json'), ('yolo', 'labels/dog/x.txt'),
                      ('labelme', 'images/dog/x.json'), ('hf', 'masks/dog/x.png')):
        out = made(tmp_path / 'mine', form, out=form)
        assert (out / own).is_file() and (out / 'images' / 'dog' / 'x.jpg').is_file()
    names = [one['file_name'] for one in coco_of(tmp_path / 'coco').dataset['images']]
    assert names == ['cat/x.jpg', 'dog/x.jpg']


def test_workers_change_nothing(mine):
    one, two = (made(mine, 'coco', out='one'), made(mine, 'coco', '--num_workers', 2, out='two'))
    assert (one / 'annotations.json').read_bytes() == (two / 'annotations.json').read_bytes()


# what is there already

def content(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob('*'))
            if path.is_file()}


@pytest.mark.parametrize('form', list(export.FORMATS))
def test_the_same_again_and_anew(mine, form, capsys):
    out = made(mine, form)
    before = content(out)
    times = {name: (out / name).stat().st_mtime_ns for name in before}
    assert content(made(mine, form)) == before
    own = export.FORMATS[form].own
    if own:
        done = 2 if form == 'yolo' else 4  # an empty file may be what a lost power left
        assert f'{done} of 4 images are already done' in capsys.readouterr().out
        name = f'{own[0]}/turned{own[1]}'
        assert (out / name).stat().st_mtime_ns == times[name]
    assert run(mine, form, '--list', 'some', '--mask_list', 'some', '--overwrite') == 0
    assert content(out) == before
    other = next(name for name in export.FORMATS if name != form)
    assert run(mine, other) == 1
    assert (f"another export (format: was {form}, now {other}"
            in (line := error(capsys))) and '--overwrite' in line
    assert content(out) == before
    (out / 'notes.txt').write_text('mine')
    made(mine, other, '--overwrite')
    files = content(out)
    assert files.pop('notes.txt') == b'mine'
    assert files.keys() == content(made(mine, other, out='fresh')).keys()


def test_a_stopped_export_goes_on(mine, monkeypatch):
    whole = content(made(mine, 'labelme', out='whole'))

    def stop(*arguments):
        monkeypatch.undo()
        raise KeyboardInterrupt
    made_of = export.picture_of
    monkeypatch.setattr(export, 'picture_of', lambda *each: stop() if each[4] == 'leer' else
                        made_of(*each))
    assert run(mine, 'labelme') == 130
    out = mine.parent / 'out'
    assert len(list((out / 'images').glob('*.json'))) == 2
    (out / 'images' / '.x.jpg.12345678.part').write_text('of a killed run')
    assert content(made(mine, 'labelme')) == whole


def test_corrections_stay_and_changed_masks_are_written_anew(mine):
    out = made(mine, 'labelme')
    for image_id in ('turned', 'leer'):
        (out / 'images' / f'{image_id}.json').write_text('corrected')
    label_maps.save(mine.parent / 'result' / 'sem_seg' / 'leer.png', np.ones((5, 7)),
                    label_maps.PALETTE)
    before = {path: path.stat().st_mtime_ns for path in (out / 'images').glob('*')}
    photograph(mine / 'images' / 'p.q.png', (6, 9), shade=7)
    made(mine, 'labelme')
    assert {path.name for path in before if path.stat().st_mtime_ns != before[path]
            } == {'leer.json', 'p.q.png', 'p.q.json'}
    assert (out / 'images' / 'p.q.png').read_bytes() == (
        mine / 'images' / 'p.q.png').read_bytes()
    assert (out / 'images' / 'turned.json').read_text() == 'corrected'
    shape, = json.loads((out / 'images' / 'leer.json').read_text())['shapes']
    assert polygon_area(shape['points']) == 35


def test_cutouts_of_another_mask_do_not_stay(mine):
    out = made(mine, 'png')
    assert len(list((out / 'cutouts' / 'turned').iterdir())) == 3
    label_maps.save(mine.parent / 'result' / 'sem_seg' / 'turned.png', MAPS['turned'] == 1,
                label_maps.PALETTE)
    made(mine, 'png')
    assert [path.name[0] for path in (out / 'cutouts' / 'turned').iterdir()] == ['1']


@pytest.mark.parametrize('name', ['sem_seg', 'other', 'file'])
def test_folders_that_are_no_export_are_left_alone(mine, name, capsys):
    out = mine.parent / 'out'
    if name == 'file':
        out.write_text('a file')
        before = None
    else:
        out.mkdir()
        (out / ('_settings.json' if name == 'sem_seg' else 'thesis.txt')).write_text(
            '{"stage": "make_sem_seg"}')
        before = content(out)
    for words in ((), ('--overwrite',)):
        assert run(mine, 'yolo', *words) == 1
        assert {'sem_seg': 'holds what make_sem_seg made', 'other': 'is not empty, and no export',
                'file': 'a file stands where'}[name] in error(capsys)
    assert out.read_text() == 'a file' if before is None else content(out) == before


# what the user can mend

@pytest.mark.parametrize(('words', 'told'), [
    (('yolo', '--segments', 'rle'), 'yolo has no rle: leave out --segments, or take --format coco'),
    (('hf', '--segments', 'polygons'), 'hf has no polygons'),
    (('coco', '--tolerance', 1), '--tolerance 1 is for polygons: add --segments polygons'),
    (('png', '--images', 'copy'), 'makes pictures of its own: leave out --images'),
    (('hf', '--images', 'none'), 'hf needs the photographs'),
    (('coco', '--list', 'none'), 'none: neither a list file nor one of')])
def test_flags_that_do_not_fit(mine, words, told, capsys):
    assert run(mine, *words) == 1
    assert told in error(capsys)
    assert not (mine.parent / 'out').exists()


@pytest.mark.parametrize(('words', 'told'), [
    (('--what', 'cam'), "invalid choice: 'cam' (choose from ir_label, amn_ir_label, sem_seg, "),
    (('--tolerance', '-1'), '-1 is not a number of pixels')])
def test_words_that_do_not_parse(mine, words, told, capsys):
    with pytest.raises(SystemExit) as ended:
        run(mine, 'cvat', *words)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_masks_that_do_not_fit(mine, capsys):
    folder = mine.parent / 'result' / 'sem_seg'
    label_maps.save(folder / 'leer.png', np.zeros((4, 7)), label_maps.PALETTE)
    label_maps.save(folder / 'p.q.png', np.full((6, 9), 9), label_maps.PALETTE)
    assert run(mine, 'coco') == 1
    assert '2 of 4 images failed, the others are done; first leer' in (line := error(capsys))
    assert 'leer.png: 4 x 7, its image is 5 x 7' in line
    assert not (mine.parent / 'out' / 'annotations.json').exists()
    (folder / '_inputs.jsonl').write_text('{"image": "turned", "labels": ["cow"]}\n')
    assert run(mine, 'coco', out='b') == 1
    assert 'sem_seg was made from other inputs (labels of 1 image: turned.JPG): run ' in (
        error(capsys))
    (folder / '_settings.json').write_text('{"classes": ["cat", "dog", "cow"]}')
    assert run(mine, 'coco', out='b') == 1
    assert "made for other classes: number 1 of 3 is 'cat' there" in error(capsys)
    (folder / 'turned.png').unlink()
    assert run(mine, 'coco', out='b') == 1
    assert 'turned.png: 1 of the 4 masks of all are missing' in error(capsys)
    assert not (mine.parent / 'b').exists()


def test_names_that_are_no_text_are_told_of(mine, capsys):
    folder = os.fsencode(mine / 'images')
    os.rename(folder + b'/leer.png', folder + b'/\xff.png')
    rows = (mine / 'labels.csv').read_text(encoding='utf-8').replace('leer.png,\n', '')
    (mine / 'labels.csv').write_text(rows, encoding='utf-8')
    assert run(mine, 'coco') == 0  # which has no row
    (mine / 'images' / 'p.q.png').rename(mine / 'images' / 'p\x02.png')
    (mine / 'labels.csv').write_text(f'p\x02.png,{CLASSES[0]}\n', encoding='utf-8')
    shutil.copy(mine.parent / 'result' / 'sem_seg' / 'p.q.png',
                mine.parent / 'result' / 'sem_seg' / 'p\x02.png')
    assert run(mine, 'cvat', out='b') == 1
    assert "'p\\x02.png': a name with signs that are no text (UTF-8): rename it" in error(capsys)
