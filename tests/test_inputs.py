"""An output knows what it was made from: what is noticed, what is not, what is told."""
import importlib
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import run_sample
from misc import inference
from misc.files import inputs, label_maps, records, weights
from misc.files.inputs import Inputs, Part
from misc.pyutils import UserError, unlock
from misc.score import masks
from tests.test_folder import OnFolder, lay_out
from tests.tiny import QUICK

SETTINGS = {'stage': 'make_cam'}


class Source:
    """Photographs in a folder, ids with and without folders of their own."""

    classes = ('cat', 'dog')

    def __init__(self, root, ids=('a', 'deep/b', 'c')):
        self.root, self.ids = root, ids
        self.shown = {image_id: [True, False] for image_id in ids}
        for image_id in ids:
            self.image_path(image_id).parent.mkdir(parents=True, exist_ok=True)
            self.image_path(image_id).write_text(f'photograph {image_id}')
            os.utime(self.image_path(image_id), (1, 1))

    def image_path(self, image_id):
        return self.root / f'{image_id}.jpg'

    def labels(self, image_id):
        return np.array(self.shown[image_id])


@pytest.fixture
def source(tmp_path):
    return Source(tmp_path / 'photographs')


def make(source, folder, workers=0, overwrite=False, ids=None, **parts):
    """Run a stage that copies the photograph; the ids that it made."""
    ids, made_ids = list(ids or source.ids), folder.parent / 'made ids'
    folder.parent.mkdir(exist_ok=True)
    made_ids.write_text('')
    made = records.open_folder(folder, SETTINGS, ('.txt',), overwrite,
                               inputs=Inputs(source, **parts), ids=ids)

    def read(image_id):
        (folder / f'{image_id}.txt').parent.mkdir(exist_ok=True)
        (folder / f'{image_id}.txt').write_text(source.image_path(image_id).read_text())
        with open(made_ids, 'a') as stream:
            stream.write(f'{image_id}\n')

    with inference.Images(ids, lambda image_id: (folder / f'{image_id}.txt').is_file(), workers,
                          made=[made]) as images:
        images.make(read)
    unlock()
    return sorted(made_ids.read_text().split())


def told(caplog, call):
    records.log.propagate = True
    with caplog.at_level('INFO', 'amn'):
        caplog.clear()
        result = call()
    return result, caplog.text


def test_changes_are_made_anew_and_told(source, tmp_path, caplog):
    folder = tmp_path / 'cam'
    assert make(source, folder) == sorted(source.ids)
    assert make(source, folder) == []
    source.shown['deep/b'] = [True, True]
    source.image_path('c').write_text('another one')
    made, text = told(caplog, lambda: make(source, folder))
    assert made == ['c', 'deep/b']
    assert '2 of 3 images are made anew' in text
    assert 'labels of 1 image: deep/b.jpg; photographs of 1 image: c.jpg' in text
    assert (folder / 'c.txt').read_text() == 'another one'
    assert make(source, folder) == []


@pytest.mark.parametrize('workers', [0, 2])
def test_the_record_is_the_same_for_any_number_of_workers(source, tmp_path, workers):
    make(source, tmp_path / 'cam', workers)
    lines = [json.loads(line)
             for line in (tmp_path / 'cam' / '_inputs.jsonl').read_text().splitlines()]
    assert [line['image'] for line in lines] == ['a', 'c', 'deep/b']
    assert all(line.keys() == {'image', 'labels', 'photograph'} for line in lines)
    assert lines[0]['labels'] == ['cat']
    assert sorted(path.name for path in (
        tmp_path / 'cam').iterdir()) == ['_inputs.jsonl', '_settings.json', 'a.txt', 'c.txt',
                                        'deep']


def test_content_is_read_where_size_or_time_differ_alone(source, tmp_path, monkeypatch):
    folder, looked_at = tmp_path / 'cam', []
    make(source, folder)
    look = inputs._look
    monkeypatch.setattr(inputs, '_look', lambda path: looked_at.append(path.stem) or look(path))
    monkeypatch.setattr(inputs, 'RACY', 0)
    make(source, folder)  # those that were younger than RACY
    looked_at.clear()
    assert make(source, folder) == []
    assert looked_at == []
    os.utime(source.image_path('a'))
    assert make(source, folder) == []
    assert looked_at == ['a']


def test_the_same_size_and_time_do_not_hide_another_photograph(source, tmp_path):
    make(source, tmp_path / 'cam')
    path = source.image_path('a')
    before = path.stat()
    path.write_text('PHOTOGRAPH a')
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert make(source, tmp_path / 'cam') == ['a']


def test_a_copied_data_set_and_moved_results_are_the_same(source, tmp_path):
    make(source, tmp_path / 'out' / 'cam')
    shutil.copytree(source.root, tmp_path / 'elsewhere', copy_function=shutil.copyfile)
    (tmp_path / 'out').rename(tmp_path / 'moved')
    source.root = tmp_path / 'elsewhere'
    assert make(source, tmp_path / 'moved' / 'cam') == []


def test_outputs_without_a_line_are_used(source, tmp_path, caplog):
    folder = tmp_path / 'cam'
    make(source, folder)
    (folder / '_inputs.jsonl').unlink()
    source.image_path('a').write_text('another one')
    made, text = told(caplog, lambda: make(source, folder))
    assert made == []
    assert '3 files without a record of what they were made from' in text


def test_a_run_that_was_killed_leaves_no_output_with_a_wrong_line(source, tmp_path):
    """Noted and not made: the photograph changes before the run goes on."""
    folder = tmp_path / 'cam'
    made = records.open_folder(folder, SETTINGS, ('.txt',), False, inputs=Inputs(source),
                               ids=source.ids)
    made.note('a')
    unlock()
    with open(next(tmp_path.glob('.cam.inputs.*')), 'a') as stream:
        stream.write('{"image": "c", "la')  # the kill fell into this line
    source.image_path('a').write_text('another one')
    assert make(source, folder) == sorted(source.ids)
    assert (folder / 'a.txt').read_text() == 'another one'
    assert make(source, folder) == []
    source.image_path('a').write_text('photograph a')
    assert make(source, folder) == ['a']


def test_overwrite_reaches_ids_in_folders(source, tmp_path):
    folder = tmp_path / 'cam'
    make(source, folder)
    assert make(source, folder, overwrite=True, ids=['a']) == ['a']
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob('*.txt')) == ['a.txt']


def test_what_is_read_must_be_up_to_date(source, tmp_path):
    cam, seeds = tmp_path / 'cam', tmp_path / 'seeds'
    part = Part(str(cam), lambda folder, image_id: cam / f'{image_id}.txt',
                'run --make_cam_pass True first')
    make(source, cam)
    make(source, seeds, activation=part)
    source.image_path('a').write_text('another one')
    with pytest.raises(UserError, match=r'cam was made from other inputs \(photographs of 1 image: '
                                        r'a.jpg\): run --make_cam'):
        make(source, seeds, activation=part)
    unlock()
    assert (seeds / 'a.txt').is_file()  # nothing goes before it can be made anew
    assert make(source, cam) == ['a']
    assert make(source, seeds, activation=part) == ['a']
    (cam / 'c.txt').write_text('made by hand')
    assert make(source, seeds, activation=part) == ['c']


def test_another_data_set_does_not_cost_a_large_folder(source, tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, 'FEW', 1)
    make(source, tmp_path / 'cam')
    for image_id in ('a', 'c'):
        source.image_path(image_id).write_text('another one')
    with pytest.raises(UserError,
                       match='photographs of 2 images: a.jpg, c.jpg.*--overwrite makes it anew'):
        make(source, tmp_path / 'cam')
    assert (tmp_path / 'cam' / 'a.txt').is_file()


# the command

def photograph(path, seed, size=(96, 72)):
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(path)


@pytest.fixture
def mine(tmp_path):
    root = lay_out(tmp_path / 'mine', 'a.jpg,cat\nb.jpg,dog\nc.jpg,cat;dog\nd.jpg,dog',
                   images=[f'{name}.jpg' for name in 'abcd'])
    for number, name in enumerate('abcd'):
        photograph(root / 'images' / f'{name}.jpg', number)
        values = np.zeros((72, 96), np.uint8)
        values[20:50, 30:60] = 1 + (name in 'bd')
        label_maps.save(root / 'masks' / f'{name}.png', values, label_maps.PALETTE)
    return OnFolder(root, tmp_path / 'out')


def test_labels_and_a_photograph_mended(mine, capsys):
    assert mine('train_cam', 'make_cam', 'cam_to_ir_label', **QUICK) == 0
    before = {path.name: path.read_bytes() for path in (mine.folder / 'ir_label').glob('*.png')}
    table = mine.tree / 'labels.csv'
    table.write_text(table.read_text().replace('a.jpg,cat',
                                               'a.jpg,cat;dog').replace('d.jpg,dog', 'd.jpg,cat'))
    Image.open(
        mine.tree / 'images' / 'c.jpg').rotate(90, expand=True).save(mine.tree / 'images' / 'c.jpg')
    capsys.readouterr()
    assert mine('train_cam', **QUICK) == 1
    assert ('cam.pth: trained with other inputs (labels of 2 images: a.jpg, d.jpg; photographs of '
            '1 image: c.jpg): --overwrite') in capsys.readouterr().err
    assert mine('eval_cam') == 0
    assert 'cam was made from other inputs (labels of 2 images' in capsys.readouterr().out
    assert mine('cam_to_ir_label', **QUICK) == 1
    assert 'cam was made from other inputs (labels of 2 images' in capsys.readouterr().err
    assert mine('make_cam', 'cam_to_ir_label', **QUICK) == 0
    out = capsys.readouterr().out
    assert out.count('3 of 4 images are made anew') == 2
    after = {path.name: path.read_bytes() for path in (mine.folder / 'ir_label').glob('*.png')}
    assert after['b.png'] == before['b.png']
    assert label_maps.load(mine.folder / 'ir_label' / 'c.png').shape == (96, 72)
    assert mine('make_cam', 'cam_to_ir_label', **QUICK) == 0
    assert capsys.readouterr().out.count('4 of 4 images are already done') == 2


def test_an_earlier_record_without_inputs_is_used(mine, capsys):
    assert mine('train_cam', 'make_cam', **QUICK) == 0
    path = mine.folder / 'cam.json'
    record = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in record.items() if name != 'inputs'}))
    photograph(mine.tree / 'images' / 'a.jpg', 9)
    capsys.readouterr()
    assert mine('train_cam', **QUICK) == 0
    assert 'has no record of what it was made from' in capsys.readouterr().out


def test_label_maps_may_be_moved_while_a_training_is_unfinished(mine, tmp_path, capsys,
                                                                monkeypatch):
    from misc import training
    flags = QUICK | {'seg_steps': 4, 'save_every': 1e-9, 'seg_label_dir': mine.tree / 'masks'}

    def stop(self):
        save(self)
        raise KeyboardInterrupt

    save = training._State.save
    with monkeypatch.context() as patch:
        patch.setattr(training._State, 'save', stop)
        assert mine('train_seg', **flags) == 130
    moved = OnFolder(mine.tree.rename(tmp_path / 'new'), mine.folder.rename(tmp_path / 'new out'))
    flags['seg_label_dir'] = moved.tree / 'masks'
    label_maps.save(moved.tree / 'masks' / 'b.png', np.ones((72, 96)), label_maps.PALETTE)
    assert moved('train_seg', **flags) == 1
    assert ('unfinished training with other inputs (label maps of 1 image: b.jpg)'
            in capsys.readouterr().err)
    values = np.zeros((72, 96), np.uint8)
    values[20:50, 30:60] = 2
    label_maps.save(moved.tree / 'masks' / 'b.png', values, label_maps.PALETTE)
    assert moved('train_seg', **flags) == 0
    assert 'going on from' in capsys.readouterr().out


def test_a_replaced_photograph_is_segmented_again(mine, tmp_path, capsys):
    from step import segment
    net = importlib.import_module(QUICK['seg_network']).Net(2)
    weights.save_state(net, tmp_path / 'seg.pth')
    words = [str(mine.tree / 'images'), '--out', str(tmp_path / 'segmented'), '--seg_weights_name',
             str(tmp_path / 'seg.pth'), '--seg_network', QUICK['seg_network'], '--num_workers', '0']
    assert segment.main(words) == 0
    photograph(mine.tree / 'images' / 'a.jpg', 7, (40, 120))
    capsys.readouterr()
    assert segment.main(words) == 0
    assert 'photographs of 1 image: a.jpg' in capsys.readouterr().out
    for path in (tmp_path / 'segmented' / 'a.png', tmp_path / 'segmented' / 'overlay' / 'a.png'):
        with Image.open(path) as picture:
            assert picture.size == (40, 120)


# truth, damaged photographs

def of(**shown):
    """Masks by id: (values, labels)."""
    return [masks.Seen(name, frozenset(values), frozenset(labelled))
            for name, (values, labelled) in shown.items()]


def test_masks_that_cannot_be_meant():
    assert masks.odd(('cat', 'dog'), of(a=({1, 255}, {1, 2}), b=({2}, {2}), c=(set(), {1}))) == ([],
                                                                                                 [])
    (line,), notes = masks.odd(('thing',), of(a=({255}, {1}), b=({255}, {1})))
    assert ('the masks of 2 images (a, b) hold nothing but 0 and 255: 255 is left out, it is no '
            'class; write 1 (thing)' in line)
    assert notes == []
    wrong, (note,) = masks.odd(('cat', 'dog'), of(a=({255}, {1}), b=({2}, {2})))
    assert wrong == []
    assert 'of 1 images (a) hold nothing but 0 and 255' in note
    wrong, (note,) = masks.odd(('cat', 'dog'), of(a=({2}, {1}), b=({1}, {2}), c=({1, 2}, {1, 2})))
    assert ('the masks of 2 images (a, b) show classes that the labels of the image deny (a: 2, '
            'which is dog)' in note)
    wrong, (note,) = masks.odd(('cat', 'dog', 'cow'), of(a=({2}, {1}), b=({3}, {2})))
    assert 'It looks like another numbering: 2 stands for cat (1), 3 stands for dog (2)' in note
    (line,), notes = masks.odd(('cat', 'dog'),
                               of(a=({17}, {1}), b=({17, 18, 255}, {1, 2}), c=({18}, {2})))
    assert line.startswith('the masks of 3 images (a, b, c) hold labels above 2, the number of '
                           'classes (a: 17): write 1, 2, ')
    assert line.endswith('It looks like another numbering: 17 stands for cat (1), 18 stands for '
                         'dog (2)')
    assert notes == []


def test_masks_of_0_and_255_are_told_by_check_and_score(mine, capsys):
    for path in (mine.tree / 'masks').iterdir():
        label_maps.save(path, np.where(label_maps.load(path) > 0, 255, 0), label_maps.PALETTE)
        label_maps.save(mine.folder / 'sem_seg' / path.name, np.zeros((72, 96)), label_maps.PALETTE)
    assert mine(check_data=True) == 1
    told = 'the masks of 4 images (a, b, c, d) hold nothing but 0 and 255'
    assert f'- {told}' in capsys.readouterr().out
    assert mine('eval_sem_seg') == 0
    assert f'Look at the truth: {told}' in capsys.readouterr().out


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[:len(content) * 2 // 3])


def test_every_damaged_photograph_is_named(mine, capsys):
    for name in 'bd':
        truncate(mine.tree / 'images' / f'{name}.jpg')
    assert mine(check_data=True) == 1
    out = capsys.readouterr().out
    assert all(f'{name}.jpg: cannot be decoded' in out for name in 'bd')
    assert mine(check_data='quick') == 0
    assert 'Nothing needs mending' in capsys.readouterr().out
    assert mine('train_cam', **QUICK) == 1
    assert 'train_cam: 2 of 4 photographs cannot be decoded: b, d' in capsys.readouterr().err


def test_a_training_goes_on_without_damaged_photographs(mine, capsys):
    truncate(mine.tree / 'images' / 'b.jpg')
    states = []
    for workers in (0, 2):
        assert mine('train_cam', **QUICK, on_damaged='skip', num_workers=workers,
                    overwrite=True) == 0
        assert ('1 images were left out, because they cannot be decoded: b'
                in capsys.readouterr().out)
        states.append(torch.load(mine.folder / 'cam.pth', weights_only=True))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_photograph_ten_times_as_large_and_the_memory(mine, capsys):
    photograph(mine.tree / 'images' / 'a.jpg', 1, (960, 720))
    label_maps.save(mine.tree / 'masks' / 'a.png', np.ones((720, 960)), label_maps.PALETTE)
    assert run_sample.main(['--dataset', 'folder', '--data_root', str(mine.tree), '--check_data',
                            '--num_workers', '0']) == 0
    out = capsys.readouterr().out
    assert ('1 photographs have 10 times the pixels of the median one, or more (a; a is 960 x 720)'
            in out)
    assert ('train_cam 3.7 GB, train_amn 8.7 GB, train_irn 8.7 GB; make_cam and make_amn_cam 2.0 '
            'GB for the largest' in out)


def test_a_voc_root_of_other_classes(tree, command, capsys):
    for path in (tree / 'Annotations').iterdir():
        path.unlink()
        path.write_text('<annotation></annotation>')
    assert command(check_data=True) == 1
    assert ('- no image of any list shows one of the 20 classes of voc12; for classes of your own '
            'take --dataset folder') in capsys.readouterr().out
    for path in (tree / 'Annotations').iterdir():
        path.write_text('<annotation><object><name>zebra</name></object></annotation>')
    assert command(check_data=True) == 1
    assert "for other classes than those of voc12 take --dataset folder" in capsys.readouterr().out
