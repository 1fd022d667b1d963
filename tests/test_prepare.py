"""train_aug made of small drawn trees, and what the command says of what is missing."""
from pathlib import Path

import pytest

from misc.pyutils import UserError
from voc12 import prepare
from voc12.dataloader import VOC12, read_list

XML = '<annotation><object><name>{}</name></object></annotation>'
IDS = ['2007_000001', '2007_000002', '2007_000003', '2007_000004', '2008_000005', '2008_000006']
TRAIN, VAL, TRAIN_AUG = IDS[:2], IDS[2:4], ['2007_000001', '2007_000002', '2008_000005',
                                            '2008_000006']


def write_list(path: Path, ids: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{image_id}\n' for image_id in ids))


def touch(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.fixture
def root(tmp_path):
    """Two images of train, two of val and two more, complete; what is never decoded is an empty
    file.
    """
    root = tmp_path / 'VOC2012'
    write_list(root / 'ImageSets' / 'Segmentation' / 'train.txt', TRAIN)
    write_list(root / 'ImageSets' / 'Segmentation' / 'val.txt', VAL)
    touch(root / 'JPEGImages', [f'{image_id}.jpg' for image_id in IDS])
    touch(root / 'SegmentationClass', [f'{image_id}.png' for image_id in TRAIN + VAL])
    (root / 'Annotations').mkdir()
    for image_id in IDS:
        (root / 'Annotations' / f'{image_id}.xml').write_text(XML.format('cat'))
    return root


@pytest.fixture
def sbd(tmp_path):
    """SBD shares images with both of VOC's lists: 6 and 1 in its train, 3 and 5 in its val."""
    folder = tmp_path / 'sbd' / 'benchmark_RELEASE' / 'dataset'
    write_list(folder / 'train.txt', [IDS[5], IDS[0]])
    write_list(folder / 'val.txt', [IDS[2], IDS[4]])
    return tmp_path / 'sbd'


@pytest.fixture
def counts(monkeypatch):
    monkeypatch.setattr(prepare, 'EXPECTED', {'train': 2, 'val': 2, 'train_aug': 4})


def command(root: Path, *more: object) -> int:
    return prepare.main(['--voc12_root', str(root), *map(str, more)])


@pytest.mark.parametrize('below', ['.', 'benchmark_RELEASE', 'benchmark_RELEASE/dataset'])
def test_sbd_united_with_train_without_val(root, sbd, below):
    assert prepare.train_aug_of_sbd(VOC12(root), sbd / below) == TRAIN_AUG


def test_masks_without_val(root, tmp_path):
    touch(tmp_path / 'aug', [f'{image_id}.png' for image_id in reversed(IDS)] +
          ['._2007_000001.png', 'readme.txt'])
    assert prepare.train_aug_of_masks(VOC12(root), tmp_path / 'aug') == TRAIN_AUG


def test_wrong_folders_are_named(root, tmp_path):
    source, empty = VOC12(root), tmp_path / 'empty'
    empty.mkdir()
    with pytest.raises(UserError, match='empty: no train.txt and val.txt'):
        prepare.train_aug_of_sbd(source, empty)
    with pytest.raises(UserError, match="VOC's own lists"):
        prepare.train_aug_of_sbd(source, root / 'ImageSets' / 'Segmentation')
    with pytest.raises(UserError, match='empty: no PNG'):
        prepare.train_aug_of_masks(source, empty)
    with pytest.raises(UserError, match='nowhere: cannot be read'):
        prepare.train_aug_of_masks(source, tmp_path / 'nowhere')


def test_command_writes_the_list_and_a_line(root, sbd, tmp_path, counts, capsys):
    out = tmp_path / 'new' / 'train_aug.txt'
    assert command(root, '--sbd', sbd, '--out', out) == 0
    assert out.read_text() == ''.join(f'{image_id}\n' for image_id in TRAIN_AUG)
    assert [path.name for path in out.parent.iterdir()] == ['train_aug.txt']
    assert capsys.readouterr().out == f'wrote {out} (train 2, val 2, train_aug 4): complete\n'


def test_other_counts_are_reported_and_nothing_is_written(root, sbd, tmp_path, capsys):
    out = tmp_path / 'train_aug.txt'
    out.write_text('as it was')
    assert command(root, '--sbd', sbd, '--out', out) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == ['train: 2 images, not 1464', 'val: 2 images, not 1449',
                                     'train_aug: 4 images, not 10582']
    assert (said.err.startswith('error: ') and '--allow_other_counts' in said.err
            and said.err.count('\n') == 1)
    assert out.read_text() == 'as it was'


def test_other_counts_may_be_allowed(root, sbd, tmp_path, capsys):
    assert command(root, '--sbd', sbd, '--out', tmp_path / 'list.txt', '--allow_other_counts') == 0
    assert read_list(tmp_path / 'list.txt') == TRAIN_AUG
    assert 'complete' in capsys.readouterr().out


def test_train_must_be_part_of_train_aug(root, tmp_path, capsys):
    touch(tmp_path / 'aug', [f'{IDS[0]}.png'])
    out = tmp_path / 'list.txt'
    assert command(root, '--segmentation_class_aug', tmp_path / 'aug', '--out', out,
                   '--allow_other_counts') == 1
    said = capsys.readouterr()
    assert said.out == f'1 image of train not in train_aug: {IDS[1]}\n'
    assert 'allow_other_counts' not in said.err  # it was given already
    assert not out.exists()


def test_images_of_val_in_train_aug_are_named():
    lists = {'train': ['a'], 'val': ['b', 'c'], 'train_aug': ['a', 'c']}
    assert prepare.wrong_lists(lists,
                               allow_other_counts=True) == ['1 image of val in train_aug too: c']


def test_missing_data_is_named_and_the_list_written(root, sbd, tmp_path, counts, capsys):
    (root / 'JPEGImages' / f'{IDS[0]}.jpg').unlink()
    (root / 'Annotations' / f'{IDS[1]}.xml').unlink()
    (root / 'Annotations' / f'{IDS[4]}.xml').write_text('<annotation>')
    (root / 'Annotations' / f'{IDS[5]}.xml').write_text('<annotation></annotation>')
    (root / 'SegmentationClass' / f'{IDS[3]}.png').unlink()
    out = tmp_path / 'list.txt'
    assert command(root, '--sbd', sbd, '--out', out) == 1
    assert capsys.readouterr().out.splitlines() == [
        f'1 image without JPEG in JPEGImages: {IDS[0]}',
        f'2 images without a valid XML in Annotations: {IDS[1]}, {IDS[4]}',
        f'1 image without a class in their XML: {IDS[5]}',
        f'1 image of train and val without mask in SegmentationClass: {IDS[3]}',
        f'wrote {out} (train 2, val 2, train_aug 4): with the problems named above']
    assert read_list(out) == TRAIN_AUG


def test_only_the_first_twenty_are_named():
    ids = [f'{number:02d}' for number in range(23)]
    assert prepare.named(ids) == ', '.join(ids[:20]) + ' and 3 more'
    assert prepare.named(ids[:20]) == ', '.join(ids[:20])


def test_without_a_source_the_lists_are_checked(root, tmp_path, counts, monkeypatch, capsys):
    monkeypatch.setattr(prepare, 'LISTS', tmp_path / 'lists')
    for split, ids in (('train', TRAIN), ('val', VAL), ('train_aug', TRAIN_AUG)):
        write_list(tmp_path / 'lists' / f'{split}.txt', ids)
    assert command(root) == 0
    assert capsys.readouterr().out.startswith(f'checked the lists in {tmp_path / "lists"} (train '
                                              f'2, val 2, train_aug 4')
    write_list(tmp_path / 'lists' / 'train_aug.txt', [*TRAIN_AUG[:3], VAL[0]])
    assert command(root) == 1
    assert capsys.readouterr().out.startswith(f'1 image of val in train_aug too: {VAL[0]}\n')


def test_the_shipped_lists_are_the_known_ones():
    lists = {split: read_list(prepare.LISTS / f'{split}.txt')
             for split in ('train', 'val', 'train_aug')}
    assert prepare.wrong_lists(lists, allow_other_counts=False) == []
    assert lists['train_aug'] == sorted(lists['train_aug'])


def test_a_wrong_root_is_one_line(tmp_path, capsys):
    assert command(tmp_path / 'nowhere') == 1
    said = capsys.readouterr()
    assert (said.out == '' and said.err.startswith('error: ') and said.err.count('\n') == 1
            and 'nowhere' in said.err)


@pytest.mark.parametrize('flags', [['--out', 'x'], ['--sbd', 'a', '--segmentation_class_aug', 'b'],
                                   ['--nonsense']])
def test_wrong_flags_exit_with_2(root, flags):
    with pytest.raises(SystemExit) as exit_:
        command(root, *flags)
    assert exit_.value.code == 2


# what tools write: lists and XML

@pytest.mark.parametrize(('names', 'text', 'expected'), [
    (['frame', 'frame.1'], 'frame.1\n', ['frame.1']), (['frame', 'frame.1'], 'frame.1.jpg\nframe\n',
                                                       ['frame.1', 'frame']),
    (['a_jpg.rf.0b31'], 'a_jpg.rf.0b31\n', ['a_jpg.rf.0b31']),
    (['my cat 1', 'my cat 2'], 'my cat 1\nmy cat 2', ['my cat 1', 'my cat 2']),
    (['a', 'b'], '\ufeffa\r\nb\r\n', ['a', 'b']),
    (['a', 'b'], 'JPEGImages\\a.jpg\r\nJPEGImages\\b.jpg\r\n', ['a', 'b']),
    (['a', 'b'], '/JPEGImages/a.jpg /SegmentationClassAug/a.png\n', ['a']),
    (['my cat'], '/J/my cat.jpg /S/my cat.png\n', ['my cat']),
    (['a', 'b', 'c'], 'a  1\nb -1\nc  0\n', ['a', 'c']),
    (['a', 'a 1', 'b'], 'a 1\nb\n', ['a 1', 'b']),
    (['a', 'a 1', 'b', 'b -1'], 'a 1\nb -1\n', ['a 1', 'b -1']),
    (['a'], 'a a\n', ['a']), (['Stra\u00dfe \u00e9'], 'Stra\u00dfe e\u0301\n',
                              ['Stra\u00dfe \u00e9']),
    (['Stra\u00dfe e\u0301'], 'Stra\u00dfe \u00e9\n', ['Stra\u00dfe e\u0301'])], ids=range(14))
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-16'])
def test_lists_as_tools_write_them(root, names, text, expected, encoding):
    touch(root / 'JPEGImages', [f'{name}.jpg' for name in names])
    path = root / 'list.txt'
    path.write_bytes(text.lstrip('\ufeff' if encoding == 'utf-16' else '').encode(encoding))
    source = VOC12(root)
    assert source.names(path) == expected
    assert source.image_path(expected[0]).is_file()
    marked = 'b -1' in text and 'b -1' not in names
    assert [note.startswith(f'{path}: as in ImageSets/Main, -1')
            for note in source.check(()).notes] == [True] * marked


@pytest.mark.parametrize(('text', 'told'), [
    ('my cat 3\n', 'are not in .*JPEGImages: my cat 3;'), ('frame.2\n', 'JPEGImages: frame.2;'),
    ('frame 2\nframe 1', 'JPEGImages: frame 2, frame 1;'),
    ('frame 1\nframe 0', 'line 2: frame is listed twice .line 1'),
    ('frame -1\n', 'an empty list.*marks all 1 with -1')])
def test_no_other_image_is_taken_for_one_that_is_missing(root, text, told):
    touch(root / 'JPEGImages', ['frame.jpg', 'my.jpg', 'my cat.jpg'])
    (root / 'list.txt').write_text(text)
    with pytest.raises(UserError, match=told):
        VOC12(root).names(root / 'list.txt')


def test_lists_of_the_project_are_found_from_any_folder(root, tmp_path, monkeypatch):
    """A list of that name in the folder one is in comes first."""
    monkeypatch.chdir(tmp_path)
    touch(root / 'JPEGImages', [f'{name}.jpg' for name in read_list(prepare.LISTS / 'train.txt')])
    assert len(VOC12(root).names('voc12/train.txt')) == 1464
    write_list(tmp_path / 'voc12' / 'train.txt', IDS[:1])
    assert VOC12(root).names('voc12/train.txt') == IDS[:1]


@pytest.mark.parametrize('text', [
    '<a:annotation xmlns:a="http://x/y"><a:object><a:name>cat</a:name></a:object></a:annotation>',
    '<annotation xmlns="http://x/y"><object><name> cat </name></object></annotation>',
    '<Annotation><Object><Name>cat</Name></Object></Annotation>',
    '<root><annotation><object><name>cat</name></object></annotation></root>',
    '<annotations><object><name>cat</name></object></annotations>',
    '\ufeff<?xml version="1.0" encoding="utf-8"?><annotation><!-- x '
    '--><object><name>cat</name></object></annotation>',
    '<annotation><object><part><name>head</name></part><name>cat</name></object></annotation>'])
def test_xml_as_tools_write_it(root, text):
    (root / 'Annotations' / f'{IDS[0]}.xml').write_text(text, encoding='utf-8')
    source = VOC12(root)
    assert [source.classes[key] for key in source.labels(IDS[0]).nonzero()[0]] == ['cat']


@pytest.mark.parametrize(('text', 'told'), [
    ('<svg><g/></svg>', 'no annotation of VOC .<svg>, without an object'),
    ('', 'not readable as XML'), ('<annotation>', 'not readable as XML'),
    ('<annotation><object><name>Cat</name></object></annotation>', "'Cat' is not one of the 20 "
                                                                   "classes; is it 'cat'"),
    ('<annotation><object name="cat"/></annotation>', 'an object without a <name>')])
def test_xml_that_is_none_is_told(root, text, told):
    (root / 'Annotations' / f'{IDS[0]}.xml').write_text(text)
    with pytest.raises(UserError, match=told) as caught:
        VOC12(root).labels(IDS[0])
    assert '\n' not in str(caught.value)
    (root / 'Annotations' / f'{IDS[0]}.xml').write_text('<annotation><size/></annotation>')
    assert not VOC12(root).labels(IDS[0]).any()
