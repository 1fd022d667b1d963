"""MS-COCO 2014: label maps against ones worked out by hand, lists and labels, what prepare says,
the drawn sample.
"""
import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from coco14 import prepare, sample
from coco14.dataloader import CATEGORY_IDS, CLASSES, COCO14, labels_path
from misc import imutils
from misc.files import label_maps
from misc.pyutils import UserError

# pycocotools under numpy 2
pytestmark = pytest.mark.filterwarnings('ignore:__array__ implementation')

HW = (6, 8)
PERSON, CAT, DOG, TOOTHBRUSH = 1, 17, 18, 90  # COCO's category ids
CATEGORIES = [{'id': number, 'name': name}
              for number, name in zip(CATEGORY_IDS, CLASSES, strict=True)]


def box(top, left, bottom, right):
    """The polygon that covers these rows and columns, the last ones not included."""
    return [left, top, right, top, right, bottom, left, bottom]


def annotation(segmentation, category, image=9, crowd=0, number=1):
    return {'id': number, 'image_id': image, 'category_id': category, 'iscrowd': crowd,
            'segmentation': segmentation}


def runs(*rows):
    """Uncompressed run lengths of a mask written row by row as strings of 0 and 1."""
    flat = np.array([[int(digit) for digit in row] for row in rows]).ravel('F')
    counts, value = [], 0
    while len(flat):
        length = int((flat != value).argmax()) if (flat != value).any() else len(flat)
        counts.append(length)
        flat, value = flat[length:], 1 - value
    return {'size': [len(rows), len(rows[0])], 'counts': counts}


def rows_of(label_map):
    letters = {0: '.', 1: 'p', 16: 'c', 17: 'd', 80: 't', 255: 'x'}
    return [''.join(letters[value] for value in row) for row in label_map.tolist()]


# label maps

def test_classes_and_their_order():
    assert len(CLASSES) == len(set(CLASSES)) == len(CATEGORY_IDS) == 80
    order = dict(zip(CATEGORY_IDS, CLASSES, strict=True))
    assert [order[number] for number in (1, 11, 13, 25, 27, 44, 46, 65, 67, 70, 72, 82, 84,
                                         90)] == [
        'person', 'fire hydrant', 'stop sign', 'giraffe', 'backpack', 'bottle', 'wine glass', 'bed',
        'dining table', 'toilet', 'tv', 'refrigerator', 'book', 'toothbrush']


def test_no_annotation_is_all_background():
    assert rows_of(prepare.label_map([], (2, 3))) == ['...', '...']


def test_polygons_run_lengths_crowd_and_overlap():
    """By hand: a crowd of persons below, a dog of two polygons, a smaller cat on it, the smallest
    of all on the cat.
    """
    crowd = runs('11111111', '11111111', '00000000', '00000000', '00000000', '00000000')
    cat = runs('00000000', '01110000', '01110000', '01110000', '00000000', '00000000')
    brush = coco_mask.encode(np.asfortranarray(np.pad(np.ones((1, 1), np.uint8), ((2, 3), (2, 5)))))
    brush = {'size': list(HW), 'counts': brush['counts'].decode()}
    dog = [box(1, 0, 5, 3), box(1, 5, 3, 7)]
    expected = ['xxxxxxxx',
                'dcccxddx',
                'dctc.dd.',
                'dccc....',
                'ddd.....',
                '........']
    annotations = [annotation(brush, TOOTHBRUSH), annotation(dog, DOG),
                   annotation(crowd, PERSON, crowd=1), annotation(cat, CAT)]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        assert rows_of(prepare.label_map([annotations[number] for number in order], HW)) == expected


def test_of_equal_areas_the_later_is_on_top():
    cat, dog = annotation([box(0, 0, 2, 4)], CAT), annotation([box(0, 2, 2, 6)], DOG)
    assert rows_of(prepare.label_map([cat, dog], HW))[0] == 'ccdddd..'
    assert rows_of(prepare.label_map([dog, cat], HW))[0] == 'ccccdd..'


def test_polygons_without_an_area_cover_nothing():
    """Two points would be taken for a box by pycocotools."""
    assert not prepare.label_map([annotation([[0, 0, 5, 5]], CAT), annotation([], DOG)], HW).any()


@pytest.mark.parametrize('broken', [{'size': [6, 8], 'counts': [0, 47]},
                                    {'size': [8, 6], 'counts': [0, 48]}, {'size': [6, 8]},
                                    None, [['a'] * 6]])
def test_broken_segmentations_are_told(broken):
    with pytest.raises(UserError, match='annotation 7: not a segmentation of COCO'):
        prepare.label_map([annotation(broken, CAT, number=7)], HW)


# reading JSON in pieces

@pytest.mark.parametrize('piece', [1, 7, 64, 1 << 20])
@pytest.mark.parametrize('indent', [None, 1])
def test_entries_are_where_they_are_said_to_be(monkeypatch, piece, indent):
    monkeypatch.setattr(prepare, 'PIECE', piece)
    content = {'info': {'images': [1, 2], 'year': 2014},
               'images': [{'id': 1, 'name': 'caf\u00e9 ]}"'}, {'id': 2}],
               'number': 3.25, 'annotations': [], 'licenses': None,
               'categories': [{'id': 12}, 5, [1]]}
    text = json.dumps(content, indent=indent, ensure_ascii=False).encode()
    found = list(prepare.entries(io.BytesIO(text), ('images', 'annotations', 'categories')))
    assert [name for name, *_ in found] == ['images', 'images', 'categories', 'categories',
                                            'categories']
    assert [json.loads(text[start:end]) for _, _, start, end
            in found] == content['images'] + content['categories']
    assert [value for _, value, *_ in found][1:] == content['images'][1:] + content['categories']


@pytest.mark.parametrize('text', ['', '[]', '{', '{"images"', '{"images": [{"id": 1}',
                                  '{"images": [{"id": 1} {"id": 2}]}',
                                  '{"images": [{"id": 1}]', '{"images": {"id": 1}}',
                                  '{"images": [{"id": ]}', '{"a": 12'])
def test_what_is_not_whole_json_is_refused(text):
    with pytest.raises(ValueError, match='byte'):
        list(prepare.entries(io.BytesIO(text.encode()), ('images',)))


# the command

TRAIN, VAL = ['000000000009', '000000000025', '000000581921'], ['000000000042']
ANNOTATIONS = {'train2014': [annotation([box(0, 0, 3, 4)], CAT, 9, number=11),
                             annotation(runs(*['01100000'] * 6), TOOTHBRUSH, 581921, crowd=1,
                                        number=12),
                             annotation([box(0, 0, 1, 1)], PERSON, 9, number=13)],
               'val2014': [annotation([box(2, 2, 6, 8)], DOG, 42)]}


def write_annotations(root, changes=None):
    """changes: of the JSON of train2014."""
    for split, ids in (('train2014', TRAIN), ('val2014', VAL)):
        content = {'info': {}, 'licenses': [], 'annotations': ANNOTATIONS[split],
                   'categories': CATEGORIES, 'images': [
            {'id': int(image_id), 'file_name': f'COCO_{split}_{image_id}.jpg', 'height': HW[0],
             'width': HW[1]}
            for image_id in reversed(ids)]} | ((changes or {}) if split == 'train2014' else {})
        path = root / 'annotations' / f'instances_{split}.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))


@pytest.fixture
def root(tmp_path):
    """Three images of train2014, the middle one without a class and grey, one of val2014."""
    root = tmp_path / 'coco'
    for split, ids in (('train2014', TRAIN), ('val2014', VAL)):
        (root / 'JPEGImages' / split).mkdir(parents=True)
        for image_id in ids:
            picture = Image.new('L' if image_id == TRAIN[1] else 'RGB', HW[::-1], 77)
            picture.save(root / 'JPEGImages' / split / f'COCO_{split}_{image_id}.jpg')
    write_annotations(root)
    return root


def command(root, *more):
    return prepare.main(['--coco_root', str(root), '--num_workers', '0', *map(str, more)])


@pytest.fixture
def prepared(root):
    assert command(root, '--allow_other_counts') == 0
    return root


def contents(folder: Path):
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob('*')) if path.is_file()
            and not path.name.endswith('.lock')}


def test_lists_labels_and_label_maps(prepared):
    source = COCO14(prepared)
    assert source.names('train2014') == TRAIN
    assert source.names('val2014') == VAL
    names = {image_id: [CLASSES[key] for key in np.flatnonzero(source.labels(image_id))]
             for image_id in TRAIN + VAL}
    assert names == {TRAIN[0]: ['person', 'cat'], TRAIN[1]: [], TRAIN[2]: ['toothbrush'],
                     VAL[0]: ['dog']}
    assert source.labels(TRAIN[0]).dtype == bool
    assert (source.mask_path(TRAIN[0]) == prepared / 'SegmentationClass' / 'train2014' /
            f'{TRAIN[0]}.png')
    masks = {image_id: rows_of(label_maps.load(source.mask_path(image_id)))
             for image_id in TRAIN + VAL}
    assert masks == {TRAIN[0]: ['pccc....', 'cccc....', 'cccc....', *['........'] * 3],
                     TRAIN[1]: ['........'] * 6,
                     TRAIN[2]: ['.xx.....'] * 6, VAL[0]: ['........'] * 2 + ['..dddddd'] * 4}
    with Image.open(source.mask_path(VAL[0])) as picture:
        assert picture.getpalette()[:768] == label_maps.PALETTE.ravel().tolist()


def test_report(root, capsys):
    assert command(root, '--allow_other_counts') == 0
    assert capsys.readouterr().out.splitlines() == [
        'train2014: 3 images, 3 annotations; 1 image without a class, 1 image with crowd regions',
        'val2014: 1 image, 1 annotations; 0 images without a class, 0 images with crowd regions',
        f'prepared {root} (train2014 3, val2014 1): complete']
    (root / 'JPEGImages' / 'train2014' / f'COCO_train2014_{TRAIN[1]}.jpg').unlink()
    assert command(root, '--allow_other_counts', '--splits', 'train2014') == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f'1 image without JPEG in {root}/JPEGImages/train2014: {TRAIN[1]}',
        f'prepared {root} (train2014 3): with the problems named above']


def test_other_counts_are_told_and_nothing_is_written(root, capsys):
    before = contents(root)
    assert command(root) == 1
    told = capsys.readouterr().err
    assert 'train2014: 3 images, not 82783; val2014: 1 images, not 40504: nothing written' in told
    assert '--allow_other_counts' in told and told.count('\n') == 1
    assert contents(root) == before


def test_workers_make_the_same_files(root, prepared, tmp_path):
    before = contents(root)
    for name in ('ImageSets', 'SegmentationClass'):
        for path in (root / name).rglob('*.*'):
            if path.is_file():
                path.unlink()
    assert prepare.main(['--coco_root', str(root), '--num_workers', '2',
                         '--allow_other_counts']) == 0
    assert contents(root) == before


def test_going_on_makes_only_what_is_missing(prepared):
    folder = prepared / 'SegmentationClass' / 'train2014'
    (folder / f'{TRAIN[0]}.png').unlink()
    (folder / f'{TRAIN[1]}.png').write_bytes(b'')  # as after a power cut
    (folder / f'.{TRAIN[1]}.png.x.part').write_bytes(b'half')
    kept = (folder / f'{TRAIN[2]}.png').stat().st_mtime_ns
    assert command(prepared, '--allow_other_counts') == 0
    assert (folder / f'{TRAIN[2]}.png').stat().st_mtime_ns == kept
    assert sorted(path.name for path in folder.iterdir()) == [*(f'{image_id}.png' for image_id
                                                                in TRAIN), '_settings.json']
    assert label_maps.load(folder / f'{TRAIN[0]}.png')[0, 0] == 1


def test_label_maps_of_other_annotations_are_not_mixed(prepared, capsys):
    write_annotations(prepared, {'annotations': ANNOTATIONS['train2014'][:1]})
    assert command(prepared, '--allow_other_counts') == 1
    assert ('SegmentationClass/train2014 was made with other settings (annotations: was'
            in capsys.readouterr().err)
    assert command(prepared, '--allow_other_counts', '--overwrite') == 0
    assert label_maps.load(COCO14(prepared).mask_path(TRAIN[0]))[0, 0] == 16


@pytest.mark.parametrize(('change', 'told'), [
    ({'segmentation': None}, 'without segmentation; not drawn'),
    ({'segmentation': []}, 'its segmentation is empty; not drawn'),
    ({'segmentation': [[1, 1, 4, 4]]}, 'its outlines have fewer than 3 points; not drawn'),
    ({'segmentation': [[0, 0, 4, 0, 4, 4, 2]]}, 'an outline of 7 numbers, an x without its y; not '
                                                'drawn'),
    ({'segmentation': [[0, 0, float('nan'), 0, 4, 4]]}, 'an outline with NaN or infinite numbers; '
                                                        'not drawn'),
    ({'segmentation': [[0, 0, float('inf'), 0, 4, 4]]}, 'an outline with NaN or infinite numbers; '
                                                        'not drawn'),
    ({'segmentation': [[5, 5, 1e9, 5, 1e9, 1e9]]}, 'an outline far outside its image of 8 x 6 (5 '
                                                   'to 1000000000.0); not drawn'),
    ({'segmentation': [[0, 0, 10 ** 400, 0, 4, 4]]}, 'an outline far outside its image of 8 x 6 (0 '
                                                     'to 1'),
    ({'segmentation': [['0', '0', '4', '0', '4', '4']]}, 'an outline that is not a list of '
                                                         'numbers; not drawn'),
    ({'segmentation': [[0, 0, None, 0, 4, 4]]}, 'an outline that is not a list of numbers; not '
                                                'drawn'),
    ({'segmentation': 'RLE'}, 'its segmentation is neither a list of outlines nor run lengths; not '
                              'drawn'),
    ({'segmentation': {'size': [6, 8], 'counts': 'zzzzz!!'}}, "compressed run lengths with 'z'; "
                                                              "not drawn"),
    ({'segmentation': {'size': [6, 8], 'counts': 'XoP'}}, 'compressed run lengths'),
    ({'segmentation': {'size': [6, 8], 'counts': [10, -5, 43]}}, 'run lengths below 0; not drawn'),
    ({'segmentation': {'size': [6, 8], 'counts': [1, 2]}}, 'run lengths of 3 pixels, its image has '
                                                           '48; not drawn'),
    ({'segmentation': {'size': [6, 8], 'counts': [1.5, 46.5]}}, 'run lengths that are not whole '
                                                                'numbers; not drawn'),
    ({'segmentation': {'size': [8, 6], 'counts': [48]}}, 'run lengths of the size [8, 6], its '
                                                         'image is [6, 8]; not drawn'),
    ({'image_id': float('nan')}, 'image_id NaN is not a whole number; left out'),
    ({'image_id': 'a.jpg'}, 'image_id "a.jpg" is not a whole number; left out'),
    ({'image_id': 10}, 'image 10 is not listed; left out'),
    ({'image_id': 10 ** 30}, f'image_id 1{30 * "0"} is not a whole number; left out'),
    ({'category_id': 12}, 'category 12 is none of MS-COCO 2014; left out'),
    ({'iscrowd': None}, 'iscrowd null is not')])
@pytest.mark.parametrize('images_first', [True, False])
def test_a_broken_annotation_is_told_and_does_not_lose_the_others(root, capsys, change, told,
                                                                  images_first):
    first, *others = ANNOTATIONS['train2014']
    write_annotations(root, {'annotations': [first | change, *others]})
    path = root / 'annotations' / 'instances_train2014.json'
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: content[key]
                                for key in sorted(content, reverse=images_first)}))
    assert command(root, '--allow_other_counts') == 1
    shown = capsys.readouterr()
    line, = (line for line in shown.out.splitlines() if line.startswith('annotation '))
    assert line.startswith(f'annotation 11: {told}')
    assert f'train2014: 1 broken entries in {path}' in shown.out
    source = COCO14(root)
    assert rows_of(label_maps.load(source.mask_path(TRAIN[0]))) == ['p.......', *['........'] * 5]
    assert rows_of(label_maps.load(source.mask_path(TRAIN[2]))) == ['.xx.....'] * 6
    assert source.labels(TRAIN[0])[CLASSES.index('cat')] == ('left out' not in line and 'iscrowd'
                                                             not in line)


def test_entries_without_their_parts_are_told(root, capsys):
    write_annotations(root, {'images': [{'id': 9, 'file_name': f'COCO_train2014_{TRAIN[0]}.jpg',
                                         'height': 6, 'width': 8},
                                        {'id': 25, 'file_name': f'COCO_train2014_{TRAIN[1]}.jpg',
                                         'width': 8}, None],
                             'annotations': [*ANNOTATIONS['train2014'][:1], [1],
                                             {'id': 3, 'image_id': 9},
                                             annotation([box(0, 0, 2, 2)], DOG, 25, number=4)]})
    assert command(root, '--allow_other_counts') == 1
    told = [line for line in capsys.readouterr().out.splitlines() if 'left out' in line]
    assert sorted(told) == [
        'annotation 3: without category_id; left out',
        'annotation 4: image 25 is not listed; left out',
        'annotation without id [1]: not an entry of COCO ([1]); left out',
        'image 25: without height; left out',
        'image without id null: not an entry of COCO (null); left out']
    assert COCO14(root).names('train2014') == TRAIN[:1]


@pytest.mark.parametrize('change', [
    {'image_id': '9'}, {'image_id': 9.0}, {'category_id': str(CAT)}, {'iscrowd': False},
    {'id': '11'},
    {'segmentation': [[[0, 0], [4, 0], [4, 3], [0, 3]]]},
    {'segmentation': [[0, 0], [4, 0], [4, 3], [0, 3]]}, {'segmentation': [0, 0, 4, 0, 4, 3, 0, 3]}])
def test_other_spellings_are_read(root, prepared, change):
    before = contents(root / 'SegmentationClass' / 'train2014')
    first, *others = ANNOTATIONS['train2014']
    write_annotations(root, {'annotations': [first | change, *others]})
    assert command(root, '--allow_other_counts', '--overwrite') == 0
    after = contents(root / 'SegmentationClass' / 'train2014')
    assert {name for name in before if before[name] != after[name]} == {'_settings.json'}


def test_parts_that_are_not_drawn_and_ids_twice_are_told(root, capsys):
    first, *others = ANNOTATIONS['train2014']
    write_annotations(root, {'annotations': [first |
                                             {'segmentation': [[1, 1, 4, 4], *first[
                                                 'segmentation']]}, first, *others]})
    assert command(root, '--allow_other_counts') == 0
    told = capsys.readouterr().out.splitlines()
    assert 'annotation 11: 1 of its 2 outlines have fewer than 3 points and are not drawn' in told
    assert 'annotation 11: 2 of this id, all are drawn' in told


def test_compressed_run_lengths_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(20):
        region = np.asfortranarray(rng.random((40, 50)) < rng.random(), np.uint8)
        counts = coco_mask.encode(region)['counts'].decode()
        runs_of = prepare._decompressed(counts)
        flat = region.T.ravel()
        assert np.array_equal(np.repeat(np.arange(len(runs_of)) % 2, runs_of), flat)


def test_written_elsewhere_the_root_is_left_alone(root, tmp_path):
    before, out = contents(root), tmp_path / 'out'
    assert command(root, '--allow_other_counts', '--out', out) == 0
    assert command(root, '--allow_other_counts', '--out', out) == 0
    assert contents(root) == before
    source = COCO14(out)
    assert source.names('train2014') == TRAIN
    assert source.image_path(TRAIN[0]).is_file()
    assert source.mask_path(TRAIN[0]).is_relative_to(out)


@pytest.mark.parametrize(('changes', 'told'), [
    ({'categories': CATEGORIES[:79]}, 'its categories are not the 80'),
    ({'categories': [*CATEGORIES[:79], {'id': 90, 'name': 'comb'}]},
     'its categories are not the 80'),
    ({'images': []}, 'no images'),
    ({'images': [{'id': 9, 'file_name': '000000000009.jpg', 'height': 6, 'width': 8}]},
     'holds 000000000009.jpg, not images'),
    ({'images': 2 * [{'id': 9, 'file_name': f'COCO_train2014_{TRAIN[0]}.jpg', 'height': 6,
                      'width': 8}]}, 'listed twice')])
def test_other_files_are_refused_in_one_line(root, capsys, changes, told):
    write_annotations(root, changes)
    assert command(root, '--allow_other_counts') == 1
    error = capsys.readouterr().err
    assert error.startswith(f'error: {root}/annotations/instances_train2014.json') and told in error
    assert error.count('\n') == 1
    assert not (root / 'ImageSets').exists()


def test_missing_and_cut_annotations_are_told(root, tmp_path, capsys, monkeypatch):
    path = root / 'annotations' / 'instances_train2014.json'
    path.write_bytes(path.read_bytes()[:-50])
    assert command(root) == 1
    assert f'{path}: not whole JSON' in capsys.readouterr().err
    assert command(root, '--annotations', tmp_path) == 1
    assert (f'{tmp_path}/instances_train2014.json: missing; unpack annotations_trainval2014.zip'
            in capsys.readouterr().err)
    assert command(tmp_path / 'nowhere') == 1
    assert 'nowhere: no such folder' in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, 'pycocotools', None)
    assert command(root) == 1
    assert 'pip install pycocotools' in capsys.readouterr().err


def test_images_as_coco_unpacks_them(prepared):
    for split in ('train2014', 'val2014'):
        (prepared / 'JPEGImages' / split).rename(prepared / split)
    (prepared / 'JPEGImages').rmdir()
    source = COCO14(prepared)
    assert source.names('train2014') == TRAIN
    assert source.image_path(VAL[0]) == prepared / 'val2014' / f'COCO_val2014_{VAL[0]}.jpg'


# the source

def test_paths_and_grey_images(prepared):
    source = COCO14(prepared)
    assert (source.image_path(VAL[0]) == prepared / 'JPEGImages' / 'val2014' /
            f'COCO_val2014_{VAL[0]}.jpg')
    grey = imutils.read_image(source.image_path(TRAIN[1]))
    assert grey.shape == (*HW, 3)
    assert (grey[..., 0] == grey[..., 2]).all()
    assert source.object_mask_path(VAL[0]) is None


def test_lists_of_ones_own(prepared, tmp_path):
    source, path = COCO14(prepared), tmp_path / 'list.txt'
    path.write_text(f'JPEGImages/train2014/COCO_train2014_{TRAIN[2]}.jpg\n{VAL[0]}\n')
    assert source.names(path) == [TRAIN[2], VAL[0]]
    for content, told in ((f'{VAL[0]}\n2007_000032\n', "list.txt: '000032' is not an id of MS-COCO "
                                                       "2014"),
                          (f'{VAL[0]}\n000000000010\n', r'list.txt: 1 of its 2 images \(first '
                                                        r'000000000010\) are not known')):
        path.write_text(content)
        with pytest.raises(UserError, match=told):
            source.names(path)
    with pytest.raises(UserError, match='train: neither a list file nor a split'):
        source.names('train')


def test_images_that_are_not_there(prepared):
    source = COCO14(prepared)
    source.image_path(TRAIN[0]).unlink()
    with pytest.raises(UserError, match=rf'1 of its 3 images \(first {TRAIN[0]}\) are not in '
                                        rf'.*/JPEGImages/train2014'):
        source.names('train2014')
    for image_id, told in (('000000000010', '000000000010: in none of the splits'),
                           ('9', "'9' is not an id")):
        for method in (source.labels, source.image_path, source.mask_path):
            with pytest.raises(UserError, match=told):
                method(image_id)


def test_check(prepared):
    source = COCO14(prepared)
    source.image_path(TRAIN[0]).unlink()
    source.mask_path(TRAIN[2]).unlink()
    unknown = '000000000010'
    found = source.check([*VAL, *TRAIN, unknown])
    assert (found.images, found.missing_image,
            found.missing_annotation) == (5, [TRAIN[0], unknown], [unknown])
    assert (found.no_class, found.missing_mask) == ([TRAIN[1]], [TRAIN[2], unknown])
    assert {CLASSES[key]: int(found.per_class[key]) for key in np.flatnonzero(found.per_class)} == {
        'person': 1, 'cat': 1, 'dog': 1, 'toothbrush': 1}


def test_a_root_that_is_not_prepared_is_told(root, tmp_path, prepared):
    with pytest.raises(UserError, match=r'python -m coco14.prepare --coco_root .* makes'):
        COCO14(tmp_path)
    with pytest.raises(UserError, match='nowhere: no such folder'):
        COCO14(tmp_path / 'nowhere')
    path = labels_path(prepared, 'val2014')
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match='val2014.npz: not a whole file of labels'):
        COCO14(prepared)
    path.unlink()
    assert COCO14(prepared).names('train2014') == TRAIN
    path.write_bytes(labels_path(prepared, 'train2014').read_bytes())
    with pytest.raises(UserError, match='in both splits'):
        COCO14(prepared)


# the drawn sample

@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    root = sample.draw(tmp_path_factory.mktemp('drawn') / 'coco', n_train=8, n_val=8, size=80)
    assert command(root, '--allow_other_counts') == 0
    return root


def test_the_sample_is_always_alike(drawn, tmp_path):
    again = contents(sample.draw(tmp_path / 'again', n_train=8, n_val=8, size=80))
    assert again.items() <= contents(drawn).items()
    other = contents(sample.draw(tmp_path / 'other', n_train=1, n_val=1, size=80, seed=1))
    name = 'JPEGImages/train2014/COCO_train2014_000000000009.jpg'
    assert other[name] != again[name]
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob('*')}
    assert sample.draw(drawn, n_train=8, n_val=8, size=80) == drawn
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob('*')} == before


def test_the_sample_has_all_that_coco_has(drawn):
    source = COCO14(drawn)
    seen = {}
    for kind, image_id in zip(sample.KINDS, source.names('train2014'), strict=True):
        label_map, image = (label_maps.load(source.mask_path(image_id)),
                            imutils.read_image(source.image_path(image_id)))
        assert label_map.shape == image.shape[:2]
        assert sorted(image.shape[:2]) == ([66, 88] if kind == 'larger' else [60, 80])
        shown, present = set(
            np.unique(label_map)) - {0, 255}, set(np.flatnonzero(source.labels(image_id)) + 1)
        assert shown == present - ({CLASSES.index('bird') + 1} if kind == 'crowd' else set())
        with Image.open(source.image_path(image_id)) as picture:
            assert (picture.mode == 'L') == (kind == 'grey')
        assert (255 in label_map) == (kind == 'crowd')
        seen[kind] = label_map
    assert not seen['empty'].any()
    assert (seen['ball'] == CLASSES.index('sports ball') + 1).sum() > 20
    content = json.loads((drawn / 'annotations' / 'instances_train2014.json').read_text())
    forms = {type(item['segmentation']) for item in content['annotations']}
    assert forms == {list, dict}
    order = [item['image_id'] for item in content['annotations']]
    assert order != sorted(order)


def test_run_lengths_of_the_sample():
    mask = np.array([[1, 0, 0], [1, 0, 1]], np.uint8)
    assert sample._run_lengths(mask) == {'counts': [0, 2, 3, 1], 'size': [2, 3]}
    assert sample._run_lengths(1 - mask) == {'counts': [2, 3, 1], 'size': [2, 3]}


@pytest.mark.parametrize('wrong', [{'n_train': 0}, {'n_val': 0}, {'size': 20}, {'seed': -1}])
def test_senseless_samples_are_refused(tmp_path, wrong):
    with pytest.raises(UserError, match='cannot draw'):
        sample.draw(tmp_path / 'x', **wrong)


def test_sample_command(tmp_path, capsys):
    words = [str(tmp_path / 'x'), '--n_train', '1', '--n_val', '1', '--size', '64']
    assert sample.main(words) == 0
    assert sample.main([*words, '--seed', '5']) == 1
    assert 'drawn with other parameters' in capsys.readouterr().err
