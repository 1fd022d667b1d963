"""One's own photographs: layouts, everything that can be wrong with one, every stage, the page of
--check_data.
"""
import importlib
import json
import re
import shutil
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from PIL import Image

import run_sample
from folder.dataloader import Folder
from misc import imutils
from misc.command import checking
from misc.files import label_maps, weights
from misc.pyutils import UserError
from step.pipeline import STAGES
from tests.conftest import GOLDEN, Command
from tests.tiny import QUICK
from voc12.dataloader import VOC12

ROOT = GOLDEN.parent.parent
# there is no truth of single objects
ALL = [stage.name for stage in STAGES if stage.name != 'eval_ins_seg']
LAYOUT = 'a row is the name of an image, a comma, and its classes with ; between them'
ALONE = 'the comma alone for an image without a class'
UNSCORED = [stage for stage in ALL if not stage.startswith(('eval_', 'analyze_'))]


def lay_out(root, rows, *, images=None, classes=None, masks=(), size=(8, 6)):
    """A folder with a photograph for each of `images` (by default for the ids of `rows`). rows:
    text of labels.csv.
    """
    (root / 'images').mkdir(parents=True)
    for name in [f'{row.split(",")[0]}.jpg' for row in rows.split()] if images is None else images:
        Image.new('RGB', size).save(root / 'images' / name, 'PNG' if name.lower().endswith('png')
                                    else 'JPEG')
    (root / 'labels.csv').write_bytes(rows.encode() if isinstance(rows, str) else rows)
    if classes is not None:
        (root / 'classes.txt').write_text(classes)
    for image_id in masks:
        label_maps.save(root / 'masks' / f'{image_id}.png', np.zeros(size[::-1], np.uint8),
                        Folder.palette)
    return root


def shown(source):
    """id -> names of its classes."""
    return {image_id: [source.classes[key] for key in np.flatnonzero(source.labels(image_id))]
            for image_id in source.names('all')}


def wrong(root):
    return Folder(root).check(()).wrong


def notes(root):
    return Folder(root).check(()).notes


# layouts

@pytest.mark.parametrize('text', [
    'a,cat\nb,dog;cat\nc,\n', 'image,classes\na,cat\nb,dog;cat\nc,\n',
    '\ufeffImage,Classes\r\na.jpg,cat\r\nb.jpeg,dog;cat\r\nc,\r\n',
    'a , cat\n\nb.jpeg,  dog ;; cat;\n,\nc,""', '"a.jpg","cat"\n"b", "dog;cat"\n"c"," "',
    'a,cat\rb,dog;cat;dog\rc,;', 'a.JPG,cat\nb.png,dog;cat\nc.Png,\n'])
def test_spellings_of_a_table(tmp_path, text):
    """Headings, byte-order mark, line ends, spaces, quotation marks, with and without ending."""
    source = Folder(lay_out(tmp_path, text, images=['a.jpg', 'b.jpeg', 'c.PNG']))
    assert source.check(()).wrong == []
    assert source.classes == ('cat', 'dog')
    assert shown(source) == {'a': ['cat'], 'b': ['cat', 'dog'], 'c': []}
    assert [source.image_path(name).name for name in 'abc'] == ['a.jpg', 'b.jpeg', 'c.PNG']


@pytest.mark.parametrize('text', [
    'a,cat\nb,cat|dog\nc,', 'a;cat\nb;cat,dog\nc;', 'a.jpg;cat;\nb.jpeg;cat;dog\nc;;',
    'a\tcat\nb\tcat;dog\nc\t', 'a,cat,,\nb,cat;dog,,\nc,,,', 'sep=;\na;cat\nb;dog;cat\nc;',
    'File Name,Label\na,cat\nb,cat;dog\nc,',
    'a,[\'cat\']\nb,"[\'cat\', \'dog\']"\nc,[]', 'a,"[""cat""]"\nb,"[""dog"", ""cat""]"\nc,',
    'a,"{\'cat\'}"\nb,"(\'cat\', \'dog\')"\nc,',
    'image,cat,dog\na,1,0\nb,1,1\nc,0,0', 'f;cat;dog\na;x;\nb;x;x\nc;;',
    ',cat,dog\na,True,False\nb,TRUE,true\nc,false,no',
    ',image,cat,dog\n0,a,1.0,0.0\n1,b,1.0,1.0\n2,c,0.0,0.0',
    ',image,classes\n0,a,cat\n1,b,cat;dog\n2,c,',
    'images/a.jpg,cat\nC:\\photos\\images\\b.jpeg,cat;dog\n./c,',
    'a,cat\u200b\nb,cat\u200b;dog\nc,',
    'a\tcat\nb\tcat;dog\nc\t\n'.encode('utf-16'), 'a,cat\r\nb,cat;dog\r\nc,\r\n'.encode('utf-16')],
                         ids=range(19))
def test_tables_as_programs_write_them(tmp_path, text):
    """Other marks between columns and classes, lists of Python and JSON, a column a class, numbers
    of rows, paths, UTF-16.
    """
    root = lay_out(tmp_path, text, images=['a.jpg', 'b.jpeg', 'c.PNG'])
    source = Folder(root)
    assert source.check(()).wrong == []
    assert source.classes == ('cat', 'dog')
    assert shown(source) == {'a': ['cat'], 'b': ['cat', 'dog'], 'c': []}


def test_yes_and_no_without_a_name_is_told(tmp_path):
    for number, text in enumerate(('a,1\nb,0', 'image,label\na,1\nb,0')):
        told, = wrong(lay_out(tmp_path / str(number), text, images=['a.jpg', 'b.jpg']))
        assert ('the classes of all rows are 0 and 1: a table of yes and no needs a first row that '
                'names its classes' in told)
    source = Folder(lay_out(tmp_path / 'names', 'a,1\nb,0', images=['a.jpg', 'b.jpg'],
                            classes='0\n1'))
    assert source.check(()).wrong == []


def test_words_that_names_share_are_noted(tmp_path):
    told, = notes(lay_out(tmp_path, 'a,cat dog\nb,dog bird\nc,cat bird',
                          images=['a.jpg', 'b.jpg', 'c.jpg']))
    assert told.startswith("3 names of classes are made of words that others are made of, too "
                           "('cat dog', 'dog bird'")
    assert notes(lay_out(tmp_path / 'other', 'a,traffic light\nb,stop sign',
                         images=['a.jpg', 'b.jpg'])) == []


def test_classes_txt_says_what_is_one_name(tmp_path):
    source = Folder(lay_out(tmp_path, 'a,fire truck\nb,"dog, small;fire"\nc,be\u0301be\u0301|truck',
                            classes='fire\ntruck\n'
                            'fire truck\ndog, small\nb\u00e9b\u00e9\n',
                            images=['a.jpg', 'b.jpg', 'c.jpg']))
    assert source.check(()).wrong == []
    assert shown(source) == {'a': ['fire truck'], 'b': ['fire', 'dog, small'],
                             'c': ['truck', 'b\u00e9b\u00e9']}


@pytest.mark.parametrize('forms', [('NFC', 'NFD'), ('NFD', 'NFC')])
def test_names_in_another_unicode_form_are_the_same(tmp_path, forms):
    table, disk = forms
    name = unicodedata.normalize(disk, 'Stra\u00dfe \u00e9')
    root = lay_out(tmp_path, '', images=[f'{name}.jpg'])
    (root / 'labels.csv').write_text(unicodedata.normalize(table, 'Stra\u00dfe \u00e9.jpg,cat\n'))
    (root / 'list.txt').write_text(unicodedata.normalize(table, 'Stra\u00dfe \u00e9\n'))
    label_maps.save(root / 'masks' / f'{unicodedata.normalize(table, name)}.png',
                    np.zeros((6, 8), np.uint8), Folder.palette)
    source = Folder(root)
    assert source.check(()).wrong == source.check(()).notes == []
    image_id, = source.names('all')
    assert source.names('masked') == source.names(root / 'list.txt') == [image_id]
    assert source.image_path(image_id).is_file()
    assert source.mask_path(image_id).is_file()


def test_a_folder_a_class(tmp_path):
    """images/CLASS/x.jpg and CLASS/x.jpg are one data set."""
    for number, name in enumerate(('cat/1.jpg', 'cat/2.JFIF', 'dog/1.jpg', 'dog/deeper/3.jpg',
                                   'dog/4.heic')):
        path = tmp_path / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (8, 6), (number, 0, 0)).save(path, 'JPEG')
    label_maps.save(tmp_path / 'masks' / 'dog_1.png', np.zeros((6, 8), np.uint8), Folder.palette)
    (tmp_path / 'list.txt').write_text('cat/2.JFIF\r\nimages\\dog\\1.jpg\r\n')
    source = Folder(tmp_path)
    assert source.check(()).wrong == []
    assert shown(source) == shown(
        Folder(tmp_path / 'images')) == {'cat_1': ['cat'], 'cat_2': ['cat'], 'dog_1': ['dog']}
    assert source.image_path('dog_1') == Folder(tmp_path /
                                                'images').image_path(
                                                    'dog_1') == tmp_path / 'images/dog/1.jpg'
    assert source.names('masked') == ['dog_1']
    assert source.names(tmp_path / 'list.txt') == ['cat_2', 'dog_1']
    told, = source.check(()).notes
    assert told.startswith('2 in dog/ are not used (4.heic, deeper/ with 1 photographs)')
    (tmp_path / 'classes.txt').write_text('dog\ncat\n')
    assert Folder(tmp_path).classes == ('dog', 'cat')
    (tmp_path / 'images' / 'Cat').mkdir()
    assert (Folder(tmp_path).check(()).notes[0] == '1 folders without photographs are no classes '
                                                   '(Cat)')
    (tmp_path / 'images' / 'Cat' / 'x.jpg').write_text('')
    assert Folder(tmp_path).check(()).wrong == ["the folder 'Cat' is not in classes.txt: mend one "
                                                "of the two"]
    (tmp_path / 'classes.txt').unlink()
    assert 'the folders \'Cat\' and \'cat\' look alike' in Folder(tmp_path).check(()).wrong[0]
    (tmp_path / 'up').mkdir()
    (tmp_path / 'images').rename(tmp_path / 'up' / 'train')
    with pytest.raises(UserError, match=f'photographs lie too deep; give --data_root '
                                        f'{tmp_path}/up/train: it holds'):
        Folder(tmp_path / 'up')


def test_a_list_may_mark_its_images(tmp_path):
    """1, 0 and -1 as in ImageSets/Main; what is an image as it stands is that image."""
    source = Folder(lay_out(tmp_path, 'a,cat\nb,cat\nc,\nc 1,cat',
                            images=['a.jpg', 'b.jpg', 'c.jpg', 'c 1.jpg']))
    path = tmp_path / 'list.txt'
    path.write_bytes('\ufeffa  1\r\nimages\\b.jpg -1\r\nc 0\r\n'.encode())
    assert source.names(path) == ['a', 'c']
    assert source.check(()).notes == [f'{path}: as in ImageSets/Main, -1 after an image leaves it '
                                      f'out (1 images), 0 and 1 keep '
                                      'it']
    path.write_text('c 1\na\n')
    assert source.names(path) == ['c 1', 'a']
    for text, told in (('a 1\nb\n', "line 1: no photograph 'a 1'"),
                       ('a -1\nb -1\n', 'an empty list.*marks all 2 with -1')):
        path.write_text(text)
        with pytest.raises(UserError, match=told):
            source.names(path)


def test_photographs_are_turned_and_masks_lie_over_them_so(tmp_path):
    root = lay_out(tmp_path, 'a,cat\nb,cat', size=(8, 6))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (8, 6)).save(root / 'images' / 'a.jpg', exif=exif)
    label_maps.save(root / 'masks' / 'a.png', np.zeros((8, 6), np.uint8), Folder.palette)
    source = Folder(root)
    assert imutils.read_of(source, 'a').shape == (8, 6, 3)
    assert imutils.read_of(source, 'b').shape == (6, 8, 3)
    text, is_good = page(root)
    assert is_good
    assert '1 photographs carry an orientation (EXIF), which is followed, as viewers do (a)' in text
    label_maps.save(root / 'masks' / 'a.png', np.zeros((6, 8), np.uint8), Folder.palette)
    text, is_good = page(root)
    assert not is_good
    assert 'a.png: 6 x 8, but a is 8 x 6: a mask has the size of its image' in text


def test_what_is_hidden_or_dark_is_told(tmp_path):
    root = lay_out(tmp_path, 'a,cat\nb,cat\nc,cat', images=['a.png', 'b.png', 'c.gif'])
    hidden = np.full((6, 8, 4), 100, np.uint8)
    hidden[:3, :, 3] = 0
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6,
                                                          8) // 8).save(root / 'images' / 'b.png')
    Image.fromarray(hidden).save(root / 'images' / 'a.png')
    frames = [Image.new('L', (8, 6), 200), Image.new('L', (8, 6), 100)]
    frames[0].save(root / 'images' / 'c.gif', save_all=True, append_images=frames[1:])
    text, is_good = page(root)
    assert is_good
    for told in ('1 photographs have transparent parts', '1 photographs are nearly black',
                 '1 files hold several pictures'):
        assert f'- {told}' in text


def test_names_with_spaces_dots_and_commas(tmp_path):
    source = Folder(lay_out(tmp_path, 'my cat.v2,"cat, big; Hund"\nimage,cat\nx.jpg,ü\n',
                            images=['my cat.v2.jpg', 'image.jpg', 'x.jpg.png', 'x.jpeg']))
    assert shown(source) == {'my cat.v2': ['Hund', 'cat, big'], 'image': ['cat'], 'x.jpg': ['ü']}
    assert source.image_path('x.jpg').name == 'x.jpg.png'


def test_a_file_name_comes_before_an_id(tmp_path):
    source = Folder(lay_out(tmp_path, 'x.jpg,cat\nx.jpg.png,dog', images=['x.jpg', 'x.jpg.png']))
    assert shown(source) == {'x': ['cat'], 'x.jpg': ['dog']}


def test_classes_txt_fixes_the_order(tmp_path):
    source = Folder(lay_out(tmp_path, 'a,cat\nb,dog', classes='\ufeffdog\r\nzebra \r\ncat\r\n\r\n'))
    assert source.classes == ('dog', 'zebra', 'cat')
    assert source.labels('a').tolist() == [False, False, True]


@pytest.mark.parametrize('number', [1, 3, 254])
def test_numbers_of_classes(tmp_path, number):
    source = Folder(lay_out(tmp_path, 'a,' + ';'.join(f'c{key:03}' for key in range(number))))
    assert source.n_classes == len(source.classes) == number
    assert source.labels('a').all()
    assert source.labels('a').shape == (number,)
    assert source.palette.shape == (256, 3)


def test_splits(tmp_path):
    root = lay_out(tmp_path, ''.join(f'i{number:03},cat\n' for number in range(300)),
                   masks=['i002', 'i001'])
    source = Folder(root)
    everything = [f'i{number:03}' for number in range(300)]
    assert source.names('all') == everything
    assert source.names('masked') == ['i001', 'i002']
    some = source.names('some')
    assert len(some) == len(set(some)) == 200
    assert (some[0], some[-1]) == ('i000', 'i299')
    (root / 'lists').mkdir()
    (root / 'lists' / 'mine.txt').write_text('\ufeffi005.jpg\n\n i001 \n')
    assert source.names('mine') == source.names(root / 'lists' / 'mine.txt') == ['i005', 'i001']
    for text, told in (('i001\nnone\n', "mine.txt line 2: no photograph 'none' in images/"),
                       ('\n', 'mine.txt: an empty list'),
                       ('i001\ni002\ni001.jpg',
                        'mine.txt line 3: i001 is listed twice \\(line 1\\)')):
        (root / 'lists' / 'mine.txt').write_text(text)
        with pytest.raises(UserError, match=told):
            source.names('mine')
    with pytest.raises(UserError, match='other: neither a list file nor one of all, masked, some'):
        source.names('other')


def test_what_a_source_offers(tmp_path):
    source = Folder(lay_out(tmp_path, 'a,cat\nb,', masks=['b'], images=['a.jpg', 'b.jpg', 'c.jpg']))
    found = source.check(['a', 'b', 'c'])
    assert (found.images, found.missing_image, found.missing_annotation,
            found.no_class) == (3, [], ['c'], ['b'])
    assert found.missing_mask == ['a', 'c']
    assert found.per_class.tolist() == [1]
    assert source.mask_path('b') == tmp_path / 'masks' / 'b.png'
    for use, told in ((source.labels, "labels.csv: no row for 'x'"),
                      (source.image_path, "no photograph of the name 'x'"),
                      (source.object_mask_path, 'no truth of single objects')):
        with pytest.raises(UserError, match=told):
            use('x')


# what can be wrong

@pytest.mark.parametrize(('text', 'told'), [
    ('a,cat\nx,cat', "labels.csv line 2: no photograph 'x' in images/: Mend the name, or take the "
                     "line out"),
    ('A.jpg,cat', "labels.csv line 1: no photograph 'A.jpg' in images/; is it 'a.jpg'? Mend the "
                  "name, or take the line out"),
    ('Bild,Klasse\na,cat', "labels.csv line 1: no photograph 'Bild' in images/: Mend the name, or "
                           "take the line out"),
    ('elsewhere/x.jpg,cat', "labels.csv line 1: no photograph 'elsewhere/x.jpg' in images/: Mend "
                            "the name, or take the line "
     'out'),
    ('a,cat\nb,cat\n\na.jpg,dog', "labels.csv line 4: 'a' has a row already (line 1): join the "
                                  "two, with ; between the "
     'classes'),
    ('a,cat,dog', f'labels.csv line 1: 3 columns; {LAYOUT}, and "quotation marks" go around a name '
                  f'with a comma; or a first '
     'row with the name of each class, and 0 or 1 below it'),
    ('a,cat dog\nb,cat;dog', "labels.csv line 1: 'cat dog': a class of that name, though cat and "
                             "dog are classes: write "
     'cat;dog, or, where it is one, list all classes in classes.txt'),
    ('a,"cat, dog"\nb,cat;dog', "labels.csv line 1: 'cat, dog': a class of that name, though cat "
                                "and dog are classes: write "
     'cat;dog, or, where it is one, list all classes in classes.txt'),
    ('a,traffic light\nb,traffic\u00a0light', "labels.csv line 2: 'traffic\\xa0light' and 'traffic "
                                              "light' (line 1) look "
     'alike (blanks, Unicode form): spell them alike'),
    ('a,b\u00e9b\u00e9\nb,be\u0301be\u0301', "labels.csv line 2: 'be\\u0301be\\u0301' and "
                                             "'b\\xe9b\\xe9' (line 1) look alike "
     '(blanks, Unicode form): spell them alike'),
    ('a', f'labels.csv line 1: one column; {LAYOUT}; {ALONE}'),
    ('a;cat', f'labels.csv line 1: one column; {LAYOUT} (here the comma is ;); {ALONE}'),
    ('a\tcat', f'labels.csv line 1: one column; {LAYOUT} (here the comma is a tab); {ALONE}'),
    (',cat', f'labels.csv line 1: no image is named; {LAYOUT}'),
    ('a,Background', "labels.csv line 1: 'Background' is no class, it is what no class covers "
                     "(label 0): take it out"),
    ('a,cat\nb,Cat', "labels.csv line 2: 'Cat' and 'cat' (line 1) differ by case alone: spell them "
                     "alike, or, where they are "
     'two classes, list both in classes.txt')])
def test_wrong_rows(tmp_path, text, told):
    root = lay_out(tmp_path, text + '\nc,bird\n', images=['a.jpg', 'b.jpg', 'c.jpg'])
    assert wrong(root) == [told]


@pytest.mark.parametrize(('classes', 'text', 'told'), [
    ('cat\ndog', 'a,catt\nb,catt', "labels.csv line 1: 'catt' is not in classes.txt; is it 'cat'? "
                                   "Mend it in every row, or add "
     'it to classes.txt'),
    ('cat\ndog', 'b,DOG', "labels.csv line 1: 'DOG' is not in classes.txt; is it 'dog'? Mend it in "
                          "every row, or add it to "
     'classes.txt'),
    ('cat\ndog', 'b,rhinoceros', "labels.csv line 1: 'rhinoceros' is not in classes.txt: Mend it "
                                 "in every row, or add it to "
     'classes.txt'),
    ('cat\n\ndog', 'a,cat', 'classes.txt line 2: empty; the number of a line is the number of its '
                            'class: take it out'),
    ('cat\ncat', 'a,cat', "classes.txt line 2: 'cat' is there already (line 1): take one out"),
    ('cat\nbackground', 'a,cat', "classes.txt line 2: 'background' is no class, it is what no "
                                 "class covers (label 0): take it "
     'out'),
    ('cat;dog', 'a,', "classes.txt line 1: 'cat;dog': ; separates names in labels.csv; choose "
                      "another name")])
def test_wrong_classes(tmp_path, classes, text, told):
    assert wrong(lay_out(tmp_path, text, images=['a.jpg', 'b.jpg'], classes=classes)) == [told]


def test_two_photographs_of_a_name(tmp_path):
    root = lay_out(tmp_path, 'a,cat', images=['a.jpg', 'a.png'])
    assert wrong(root) == ['images/a.jpg and images/a.png: two photographs of the name a: rename '
                           'one, in labels.csv too']


def test_everything_wrong_is_told_at_once(tmp_path):
    root = lay_out(tmp_path, 'a,cat\nx,cat\na,dog\nb,cat,dog', images=['a.jpg', 'b.jpg'])
    assert [line.split(':')[0] for line in wrong(root)] == [f'labels.csv line {line}'
                                                            for line in (2, 3, 4)]


@pytest.mark.parametrize(('damage', 'told'), [
    (lambda root: shutil.rmtree(root),
     '--data_root is the folder that holds images/ and labels.csv'),
    (lambda root: (root / 'images').rename(root / 'photos'), 'has no folder images/: the '
                                                             'photographs belong there'),
    (lambda root: (root / 'labels.csv').unlink(), 'labels.csv: missing; a row is the name of an '
                                                  'image'),
    (lambda root: (root / 'labels.csv').write_text('image,classes\n\n'), 'labels.csv: no row; a '
                                                                         'row is the name'),
    (lambda root: (root / 'labels.csv').write_text('a,\n'), 'labels.csv: no classes; 1 to 254 are '
                                                            'possible'),
    (lambda root: (root / 'labels.csv').write_text('a\n'), r'labels.csv line 1: one column.*\(no '
                                                           r'row is good\)'),
    (lambda root: (root / 'labels.csv').write_text('a,' + ';'.join(map(str, range(255)))),
     'labels.csv: 255 classes; 1 to 254'),
    (lambda root: (root / 'classes.txt').write_text('\n'.join(map(str, range(255)))),
     'classes.txt: 255 classes; 1 to 254'),
    (lambda root: (root / 'classes.txt').write_text(' \n'), 'classes.txt: no class; write one name '
                                                            'a line, or remove the file'),
    (lambda root: (root / 'labels.csv').write_bytes('a,cat\nb,\xfc'.encode('latin-1')),
     'labels.csv line 2: not UTF-8; save'),
    (lambda root: (root / 'labels.csv').write_bytes('a,cat\n'.encode('utf-16-le')),
     'labels.csv: not UTF-8 text; save it'),
    (lambda root: (root / 'classes.txt').write_bytes(b'\xff'), 'classes.txt line 1: not UTF-8'),
    (lambda root: (root / 'labels.csv').write_text('a,"cat\n'), 'labels.csv line 1: not readable '
                                                                'as CSV .*quotation mark'),
    (lambda root: (root / 'labels.csv').write_text('a,cat\nb,"c"at\n'), 'labels.csv line 2: not '
                                                                        'readable as CSV')],
    ids=range(14))
def test_folders_that_are_none(tmp_path, damage, told, capsys):
    root = lay_out(tmp_path / 'mine', 'a,cat', images=['a.jpg', 'b.jpg'])
    damage(root)
    with pytest.raises(UserError, match=told):
        Folder(root)
    assert run_sample.main(['--dataset', 'folder', '--data_root', str(root), '--check_data']) == 1
    error, = capsys.readouterr().err.splitlines()
    assert error.startswith(f'error: {root}')


def test_too_low_a_level(tmp_path):
    lay_out(tmp_path, 'a,cat')
    with pytest.raises(UserError,
                       match=f'images has no folder images/: give --data_root {tmp_path}'):
        Folder(tmp_path / 'images')


def test_what_is_not_used_is_noted(tmp_path):
    root = lay_out(tmp_path, 'a,cat', images=['a.jpg', 'b.jpg', 'c.JPEG', '.hidden.jpg'],
                   masks=['a', 'b', 'z'])
    for name in ('images/d.heic', 'images/.DS_Store', 'masks/a.jpg', 'lists/all.txt',
                 'masks/.part'):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text('')
    (root / 'images' / 'holiday').mkdir()
    (root / 'images' / 'holiday' / 'e.jpg').write_text('')
    assert wrong(root) == []
    told = notes(root)
    assert [line.split(':')[0] for line in told] == [
        '3 in images/ are not used (d.heic, holiday/ with 1 photographs, .hidden.jpg)',
        '2 in masks/ are the mask of no image (a.jpg, z.png)',
        '2 photographs without a row in labels.csv are not used (b, c)',
        'lists/all.txt is not read']
    assert Folder(root).names('masked') == ['a']


# the page

def page(root, decode=True, **lists):
    source = Folder(root)
    usual = {'train_list': 'all', 'val_list': 'some', 'infer_list': 'all', 'eval_set': 'masked'}
    return checking.page(source, usual | lists, 0, decode=decode)


def test_page_of_a_good_folder(tmp_path):
    root = lay_out(tmp_path, 'a,cat\nb,dog;cat\nc,', masks=['b'])
    Image.new('RGB', (20, 10)).save(root / 'images' / 'c.jpg')
    text, is_good = page(root)
    assert is_good
    rows = [line.split() for line in text.splitlines()]
    assert f'folder {root}: 2 classes' in text
    assert ['--train_list', 'all', '3', '0', '1', '2'] in rows
    assert ['--eval_set', 'masked', '1', '0', '0', '0'] in rows
    assert ['cat', '2', '2', '1'] in rows  # all (train and infer list), some, masked
    assert ['dog', '1', '1', '1'] in rows
    assert ('Width x height of all 3 images: smallest 8 x 6, median 8 x 6, largest 20 x 10 (by '
            'area).' in text)
    assert text.endswith('Nothing needs mending.')
    assert 'Worth knowing' not in text


def test_page_of_what_must_be_mended(tmp_path):
    root = lay_out(tmp_path, 'a,cat\nb,dog\nc,cat\nd,dog\nx,cat',
                   images=[f'{name}.jpg' for name in 'abcd'], masks='abcd')
    (root / 'images' / 'a.jpg').write_bytes(b'no photograph')
    label_maps.save(root / 'masks' / 'b.png', np.full((6, 8), 3, np.uint8), Folder.palette)
    label_maps.save(root / 'masks' / 'c.png', np.zeros((8, 6), np.uint8), Folder.palette)
    Image.new('RGB', (8, 6)).save(root / 'masks' / 'd.png')
    text, is_good = page(root, val_list='nothing')
    assert not is_good
    told = text[text.index('To be mended (6):'):].splitlines()[1:]
    assert told[0].startswith("- labels.csv line 5: no photograph 'x'")
    assert told[1].startswith('- --val_list: nothing: neither a list file nor one of')
    assert re.search(r'images/a.jpg: cannot be decoded .*replace it', told[2])
    assert told[3].endswith('masks/c.png: 8 x 6, but c is 6 x 8: a mask has the size of its image')
    assert told[4].endswith('masks/d.png: not a label map (one channel, 8 bits)')
    assert told[5].startswith('- the masks of 1 images (b) hold labels above 2, the number of '
                              'classes (b: 3)')


def test_page_notes(tmp_path):
    root = lay_out(tmp_path, 'a,cat\nb,cat\nc,cat', classes='cat\ndog', size=(1500, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (8, 6)).save(root / 'images' / 'b.jpg', exif=exif)
    text, is_good = page(root)
    assert is_good
    for told in ('1 photographs carry an orientation (EXIF)',
                 'most photographs are longer than 1024 pixels',
                 'no image of masked has a mask: nothing can be scored',
                 'no image of all shows dog'):
        assert f'- {told}' in text


def test_page_of_a_split_without_all_masks(tmp_path):
    text, is_good = page(lay_out(tmp_path, 'a,cat\nb,cat', masks='a'), eval_set='all')
    assert not is_good
    assert '- --eval_set all: ' in text
    assert 'masks/b.png: missing; a score needs the mask of every image (1 of 2 images)' in text


def test_many_classes_stand_side_by_side(tmp_path):
    names = [f'a class with the number {number} and a long name' if number % 7 == 0
             else f'c{number}' for number in range(80)]
    text, is_good = page(lay_out(tmp_path, 'a,' + ';'.join(names[:79]) + '\nb,c1',
                                 classes='\n'.join(names)))
    assert is_good
    table = text[text.index('images that show'):].split('\n\n')[0].splitlines()
    assert len(table) == 42
    assert max(map(len, table)) <= 120
    cells = ' '.join(table)
    assert all(f' {name} ' in f' {cells} ' for name in names if len(name) < 24)
    assert cells.count('…') == 12


def test_many_problems_are_counted(tmp_path):
    text, is_good = page(lay_out(tmp_path,
                                 'a,cat\n' + ''.join(f'x{number},cat\n' for number in range(50)),
                                 images=['a.jpg']))
    assert not is_good
    assert 'To be mended (50):' in text
    assert text.endswith('  ... and 30 more')


def test_many_images_are_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(checking, 'LOOKED_AT', 2)
    text, _ = page(lay_out(tmp_path, 'a,cat\nb,cat\nc,cat'), decode=False)
    assert 'Width x height of 2 of 3 images, drawn evenly: smallest 8 x 6' in text


# stages

class OnFolder(Command):
    """The command on a folder, with its own default lists."""

    def words(self, *stages, **flags):
        words = super().words(*stages, **flags)
        for name in ('--voc12_root', '--train_list', '--val_list', '--infer_list', '--seg_list'):
            if name[2:] not in flags:
                at = words.index(name)
                del words[at:at + 2]
        return ['--dataset', 'folder', '--data_root', str(self.tree), *words]


def golden_folder(root, names=('bird', 'cat', 'dog', 'person', 'sheep'), masked=True,
                  unlabelled=True):
    """The small tree as a folder: of its classes those in `names`, in this order."""
    real = VOC12(GOLDEN / 'tree')
    renumbered = np.zeros(256, np.uint8)
    renumbered[255] = 255
    for number, name in enumerate(names, start=1):
        if name in real.classes:
            renumbered[real.classes.index(name) + 1] = number
    rows = ['image,classes']
    (root / 'images').mkdir(parents=True)
    for image_id in real.names('train'):
        shutil.copy(real.image_path(image_id), root / 'images' / f'{image_id}.JPG')
        present = [real.classes[key] for key in np.flatnonzero(real.labels(image_id))]
        rows.append(f'{image_id}.JPG,{";".join(name for name in names if name in present)}')
        if masked:
            label_maps.save(root / 'masks' / f'{image_id}.png',
                            renumbered[label_maps.load(real.mask_path(image_id))], real.palette)
    (root / 'labels.csv').write_text('\n'.join(rows))
    (root / 'classes.txt').write_text('\n'.join(names))
    return root


@pytest.mark.parametrize('n_classes', [1, 3, 254])
def test_all_stages(tmp_path, n_classes):
    names = (['person', 'dog', 'sheep'] + [f'other {number}' for number in range(254)])[:n_classes]
    command = OnFolder(golden_folder(tmp_path / 'mine', names), tmp_path / 'out')
    assert command(*ALL, **QUICK) == 0
    score = command.scores()['eval_sem_seg']
    assert (score['data'], score['split'], score['images']) == ('folder', 'masked', 4)
    assert list(score['iou']) == ['background', *names]
    source = Folder(command.tree)
    for image_id in source.names('all'):
        label_map = label_maps.load(command.folder / 'sem_seg' / f'{image_id}.png')
        assert set(np.unique(label_map)) <= {0, *(np.flatnonzero(source.labels(image_id)) + 1)}
    log = (command.folder / 'run.log').read_text()
    assert f'data_root={command.tree} dataset=folder' in log
    assert 'train_list=all val_list=some' in log


def test_a_folder_scores_as_voc_does(tmp_path):
    """The same photographs, classes and weights behind another source: the same numbers."""
    folder = OnFolder(golden_folder(tmp_path / 'mine', VOC12.classes), tmp_path / 'folder')
    voc = Command(GOLDEN / 'tree', tmp_path / 'voc')
    weights.save_state(importlib.import_module(QUICK['cam_network']).Net(20), tmp_path / 'cam.pth')
    scores = []
    for command in (folder, voc):
        assert command('make_cam', 'eval_cam', cam_weights_name=tmp_path / 'cam.pth', **QUICK) == 0
        line = command.scores()['eval_cam']
        scores.append({key: value for key, value in line.items()
                       if key not in ('time', 'data', 'split')})
    assert scores[0] == scores[1]


def test_from_photographs_to_masks_in_three_commands(tmp_path, capsys):
    """README's, without masks; scores are refused."""
    root = golden_folder(tmp_path / 'mine', masked=False)
    data = ['--dataset', 'folder', '--data_root', str(root)]
    quick = [word for name, value in QUICK.items()
             for word in (f'--{name}', *map(str, value if isinstance(value, list) else [value]))]
    run = [*data, '--work_dir', str(tmp_path), '--pretrained', 'none', '--num_workers', '0', *quick]
    assert run_sample.main([*data, '--check_data']) == 0
    assert run_sample.main([*run, *(f'--{stage}_pass' for stage in UNSCORED)]) == 0
    sheet = tmp_path / 'sheet.png'
    done = subprocess.run([sys.executable, 'script/contact_sheet.py', *data, '--work_dir', tmp_path,
                           '--out', sheet],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with Image.open(sheet) as picture:
        assert picture.width > 1000
        assert picture.height > 4 * 190
    assert len(list((tmp_path / 'result' / 'sem_seg').glob('*.png'))) == 4
    assert len(list((tmp_path / 'result' / 'report' / 'images').glob('*_sem_seg.png'))) == 4
    capsys.readouterr()
    for stage in (stage for stage in ALL if stage not in UNSCORED):
        assert run_sample.main([*run, f'--{stage}_pass']) == 1
        error, = capsys.readouterr().err.splitlines()
        assert error.startswith(
            f'error: {root / "masks" / "2007_000001.png"}: 4 of the 4 masks of all are missing; a '
            f'score needs the mask of '
            'every image of --seg_list' if stage == 'eval_seg' else
            f'error: --eval_set masked: no such image in {root}; a score needs masks, every other '
            f'stage goes without')


def test_wrong_rows_are_told_before_the_first_stage(tmp_path, capsys):
    command = OnFolder(golden_folder(tmp_path / 'mine'), tmp_path / 'out')
    with open(command.tree / 'labels.csv', 'a') as stream:
        stream.write('\nx,cat\ny,catt\n')
    assert command('train_cam', **QUICK) == 1
    error, = capsys.readouterr().err.splitlines()
    assert f"{command.tree}: labels.csv line 6: no photograph 'x' in images/" in error
    assert error.endswith('(and 1 more, which --check_data lists)')
    assert not command.folder.exists()


def test_check_data_of_the_command(tmp_path, capsys):
    command = OnFolder(golden_folder(tmp_path / 'mine'), tmp_path / 'out')
    assert command(check_data=True, num_workers=2) == 0
    out = capsys.readouterr().out
    assert f'folder {command.tree}: 5 classes' in out
    assert ('Steps of training with these flags: CAM 0, AMN 0, IRN 0 (published: 3305, 3305, 990)'
            in out)
    assert command(check_data=True, cam_batch_size=2, cam_num_epoches=3) == 0
    assert 'CAM 6, AMN 0, IRN 0' in capsys.readouterr().out
    (command.tree / 'images' / '2007_000001.JPG').unlink()
    assert command(check_data=True) == 1
    out = capsys.readouterr().out
    assert "- labels.csv line 2: no photograph '2007_000001.JPG' in images/" in out
    assert 'Steps of training' not in out


def test_a_list_shorter_than_a_batch_names_the_flag(tmp_path, capsys):
    command = OnFolder(golden_folder(tmp_path / 'mine'), tmp_path / 'out')
    assert command('train_cam', **QUICK | {'cam_batch_size': 16}) == 1
    assert ('train_cam: a batch of 16 is larger than the list of 4 images: give --cam_batch_size 4 '
            'or less, or a longer list'
            in capsys.readouterr().err)


def test_checkpoints_of_other_classes(tmp_path, capsys):
    """VOC's weights for a folder of three classes; a folder whose classes changed their order; IRN
    knows no classes.
    """
    command = OnFolder(golden_folder(tmp_path / 'mine', ('cat', 'dog', 'sheep')), tmp_path / 'out')
    net = importlib.import_module(QUICK['cam_network']).Net(20)
    weights.save_state(net, command.folder / 'cam.pth')
    assert command('make_cam', **QUICK) == 1
    assert 'cam.pth: trained for 20 classes, this data set has 3' in capsys.readouterr().err
    assert command(*UNSCORED, overwrite=True, **QUICK) == 0
    capsys.readouterr()
    (command.tree / 'classes.txt').write_text('cat\nsheep\ndog')
    for stage, name in (('make_cam', 'cam.pth: trained'), ('cam_to_ir_label', 'cam: made'),
                        ('make_amn_cam', 'amn.pth: trained'), ('make_sem_seg', 'amn_cam: made')):
        assert command(stage, **QUICK) == 1
        assert (f"{name} for other classes: number 2 of 3 is 'dog' there and 'sheep' in this data "
                f"set: give it another "
                '--work_dir' in capsys.readouterr().err)
    assert command('train_cam', **QUICK) == 1
    assert 'cam.pth: trained with other settings' in capsys.readouterr().err
    other = OnFolder(golden_folder(tmp_path / 'other', ('person',)), tmp_path / 'out of another')
    assert other(*UNSCORED, **QUICK) == 0
    assert other('make_sem_seg', irn_weights_name=command.folder / 'irn.pth',
                 sem_seg_out_dir=tmp_path / 'masks', **QUICK) == 0


def test_record_tells_the_classes(tmp_path):
    command = OnFolder(golden_folder(tmp_path / 'mine', ('cat', 'dog')), tmp_path / 'out')
    assert command('train_cam', 'make_cam', **QUICK) == 0
    for path in (command.folder / 'cam.json', command.folder / 'cam' / '_settings.json'):
        assert json.loads(path.read_text())['classes'] == ['cat', 'dog']
