"""What made a folder or a weights file."""
import json
import logging

import pytest

from misc.files import label_maps, records
from misc.pyutils import UserError

SETTINGS = {'stage': 'make_cam', 'scales': [1.0, 0.5], 'classes': ('a', 'b'), 'weights': '00ff'}


def open_folder(folder, overwrite=False, **changed):
    records.open_folder(folder, SETTINGS | changed, ('.npz', '.npy'), overwrite)


def legend_of(folder, text, overwrite=False, **changed):
    records.open_folder(folder, SETTINGS | changed, ('.png',), overwrite, legend=text)
    path = folder / 'classes.txt'
    return path.read_text() if path.exists() else None


def stored(folder):
    return json.loads((folder / '_settings.json').read_text())


def test_fresh_and_the_same_again(tmp_path):
    folder = tmp_path / 'result' / 'cam'
    open_folder(folder)
    assert stored(folder) == SETTINGS | {'classes': ['a', 'b']}
    (folder / 'x.npz').write_text('1')
    open_folder(folder)
    assert (folder / 'x.npz').read_text() == '1'


def test_an_empty_folder_takes_other_settings(tmp_path):
    open_folder(tmp_path)
    open_folder(tmp_path, scales=[1.0])
    assert stored(tmp_path)['scales'] == [1.0]


def test_other_settings_are_refused_by_name(tmp_path):
    open_folder(tmp_path)
    (tmp_path / 'x.npz').write_text('1')
    with pytest.raises(UserError,
                       match=r'made with other settings \(scales: was \[1.0, 0.5\], now \[1.0\]; '
                                        'weights: was 00ff, now 11ff'):
        open_folder(tmp_path, scales=[1.0], weights='11ff')
    with pytest.raises(UserError, match='power: was not set, now 2'):
        open_folder(tmp_path, power=2)
    assert stored(tmp_path)['scales'] == [1.0, 0.5]
    assert (tmp_path / 'x.npz').exists()


def test_overwrite_removes_the_files_of_the_stage_only(tmp_path):
    open_folder(tmp_path)
    for name in ('x.npz', 'y.npy', 'notes.txt', '.hidden.npz'):
        (tmp_path / name).write_text('1')
    open_folder(tmp_path, overwrite=True, scales=[2.0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ['.hidden.npz', '_settings.json',
                                                                'notes.txt']
    assert stored(tmp_path)['scales'] == [2.0]


@pytest.mark.parametrize('overwrite', [False, True])
@pytest.mark.parametrize('name', ['x.npz', 'x.png'])
def test_what_another_stage_made_is_left_alone(tmp_path, overwrite, name):
    open_folder(tmp_path)
    (tmp_path / name).write_text('1')
    with pytest.raises(UserError, match='holds what make_cam made: name another folder'):
        open_folder(tmp_path, overwrite, stage='make_amn_cam')
    assert (tmp_path / name).exists()
    assert stored(tmp_path)['stage'] == 'make_cam'


def test_overwrite_and_files_made_elsewhere(tmp_path):
    (tmp_path / 'x.npz').write_text('1')
    with pytest.raises(UserError,
                       match='holds 1 files without a record .* which --overwrite would delete'):
        records.open_folder(tmp_path, SETTINGS, ('.npz',), overwrite=True, only_own=True)
    assert [path.name for path in tmp_path.iterdir()] == ['x.npz']
    open_folder(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ['_settings.json']


@pytest.mark.parametrize('name', ['x.npz', 'x.npy'])
def test_files_made_elsewhere_are_used_and_get_no_record(tmp_path, caplog, name):
    (tmp_path / name).write_text('1')
    with caplog.at_level(logging.INFO, 'amn'):
        records.log.propagate = True
        open_folder(tmp_path)
    assert '1 files without a record of their settings' in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert records.made_by(tmp_path) == 'unknown'


def test_a_file_stands_in_the_way(tmp_path):
    (tmp_path / 'cam').write_text('1')
    with pytest.raises(UserError, match='cam: a file stands where the output folder should be'):
        open_folder(tmp_path / 'cam')
    with pytest.raises(UserError, match='cannot write'):
        open_folder(tmp_path / 'cam' / 'deeper')


def test_made_by_tells_settings_apart(tmp_path):
    open_folder(tmp_path / 'a')
    open_folder(tmp_path / 'b')
    open_folder(tmp_path / 'c', scales=[1.0])
    a, b, c = (records.made_by(tmp_path / name) for name in 'abc')
    assert a == b == records.fingerprint(SETTINGS)
    assert a != c
    assert records.fingerprint(dict(reversed(SETTINGS.items()))) == a


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / 'x.npz').write_text('1')
    (tmp_path / '_settings.json').write_text('{"stage"')
    for use in (open_folder, records.made_by):
        with pytest.raises(UserError, match='_settings.json: not readable'):
            use(tmp_path)


def test_record_of_weights(tmp_path):
    path = tmp_path / 'res50_cam.pth'
    assert records.read_weights_record(path) is None
    records.write_json(records.weights_record(path), SETTINGS)
    assert (tmp_path / 'res50_cam.json').is_file()
    assert records.read_weights_record(path) == records.as_stored(SETTINGS)


def test_difference_names_every_setting():
    assert records.difference({'a': 1, 'b': 2, 'c': 3}, {'a': 1, 'b': 4, 'd': None}) == (
        'b: was 2, now 4; c: was 3, now not set')


def test_difference_of_long_lists_is_short():
    names = [f'class {number}' for number in range(80)]
    swapped = [*names[:41], names[42], names[41], *names[43:]]
    difference = records.difference({'classes': names}, {'classes': swapped})
    assert difference == 'classes: number 42 of 80 was class 41, now class 42'
    assert records.difference({'classes': names},
                              {'classes': names[:3]}) == 'classes: were 80, now 3'


def test_folders_of_other_classes_are_refused(tmp_path):
    records.check_classes(tmp_path, 'ab')  # no record
    open_folder(tmp_path)
    records.check_classes(tmp_path, ('a', 'b'))
    with pytest.raises(UserError, match='made for 2 classes, this data set has 20: give it another '
                                        '--work_dir'):
        records.check_classes(tmp_path, [str(number) for number in range(20)])
    with pytest.raises(UserError, match="made for other classes: number 1 of 2 is 'a' there and "
                                        "'b' in this data set"):
        records.check_classes(tmp_path, ('b', 'a'))


def test_whether_a_folder_is_of_given_settings(tmp_path):
    assert not records.is_of(tmp_path, SETTINGS)
    open_folder(tmp_path)
    assert records.is_of(tmp_path, SETTINGS)
    assert not records.is_of(tmp_path, SETTINGS | {'weights': '11ff'})
    open_folder(tmp_path, weights='unknown')
    assert not records.is_of(tmp_path, SETTINGS | {'weights': 'unknown'})  # nothing tells


def test_code_is_compared_with_digests_of_the_same_scheme_only(tmp_path):
    open_folder(tmp_path, code='0123456789abcdef')  # by an earlier version
    (tmp_path / 'x.npz').write_text('1')
    before = stored(tmp_path)
    open_folder(tmp_path, code='2:aa')
    assert records.is_of(tmp_path, SETTINGS | {'code': '2:aa'})
    assert stored(tmp_path) == before  # what was made from it stays valid
    open_folder(tmp_path, overwrite=True, code='2:aa')
    (tmp_path / 'x.npz').write_text('1')
    with pytest.raises(UserError, match='code: was 2:aa, now 2:bb'):
        open_folder(tmp_path, code='2:bb')
    assert records.completed({'code': '2:aa'}, {}) == {'code': '2:aa'}


def test_what_the_values_mean_lies_beside_the_record(tmp_path):
    text = label_maps.legend(('cat', 'a dog'))
    assert text == '0 background\n1 cat\n2 a dog\n255 ignored\n'
    assert label_maps.legend(('cat', 'a dog'), first=0) == '0 cat\n1 a dog\n'
    assert legend_of(tmp_path / 'new', text) == text
    (tmp_path / 'new' / 'x.png').write_text('1')
    before = (tmp_path / 'new' / 'classes.txt').stat().st_mtime_ns
    assert legend_of(tmp_path / 'new', text) == text
    assert (tmp_path / 'new' / 'classes.txt').stat().st_mtime_ns == before
    (tmp_path / 'new' / 'classes.txt').unlink()  # made by an earlier version
    assert legend_of(tmp_path / 'new', text) == text
    with pytest.raises(UserError, match='made with other settings'):
        legend_of(tmp_path / 'new', 'other', classes=('b', 'a'))
    assert (tmp_path / 'new' / 'classes.txt').read_text() == text
    assert legend_of(tmp_path / 'new', 'other', overwrite=True, classes=('b', 'a')) == 'other'
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere' / 'x.png').write_text('1')  # whose values are not known
    assert legend_of(tmp_path / 'elsewhere', text) is None
