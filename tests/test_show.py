"""The command for one photograph: the same numbers as the stages, a sheet that shows them, and what
it refuses.
"""
import importlib
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from amn import FLAGS, Activations, Model
from misc.command import options
from misc.draw import drawing
from misc.files import activations, label_maps, records, weights
from misc.pyutils import UserError
from step import show
from step.pipeline import STAGES
from tests.conftest import GOLDEN, Command
from tests.tiny import NETWORKS, QUICK
from voc12.dataloader import CLASSES, VOC12

IDS = [f'2007_00000{number}' for number in range(1, 5)]
SHOWN = {name: network for name, network in NETWORKS.items() if name != 'seg_network'}
SETTINGS = {name: QUICK[name] for name in (*SHOWN, 'cam_scales', 'exp_times')}


def tiny_weights(folder, n_classes=20, names=('cam', 'amn', 'irn')):
    """Random weights of the small networks where the command looks for them."""
    torch.manual_seed(0)
    for name in names:
        net = importlib.import_module(f'tests.tiny.{name}').Net(n_classes)
        weights.save_state(net, folder / 'sess' / f'res50_{name}.pth')
    return folder


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A work folder with weights, the current folder."""
    monkeypatch.chdir(tmp_path)
    return tiny_weights(tmp_path)


def words(image, names, **flags):
    result = [str(image), '--labels', names]
    for name, value in (SETTINGS | flags).items():
        result += [f'--{name}', *map(str, value if isinstance(value, list) else [value])]
    return result


def names_of(tree, image_id):
    return ','.join(np.array(CLASSES)[VOC12(tree).labels(image_id)])


def the_error(capsys):
    captured = capsys.readouterr()
    assert captured.out == ''
    lines = captured.err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith('error: ')
    return lines[0]


# the stages' numbers

@pytest.fixture(scope='module')
def staged(tmp_path_factory):
    """The stages on the small tree, with weights that make masks of several classes."""
    folder = tiny_weights(tmp_path_factory.mktemp('staged'))
    command = Command(GOLDEN / 'tree', folder)
    flags = {f'{name}_weights_name': folder / 'sess' / f'res50_{name}.pth'
             for name in ('cam', 'amn', 'irn')}
    assert command('make_cam', 'cam_to_ir_label', 'make_amn_cam', 'amn_cam_to_ir_label',
                   'make_sem_seg', **SETTINGS, **flags) == 0
    return folder


@pytest.mark.parametrize('image_id', IDS)
def test_the_mask_is_the_stages_mask(staged, tmp_path, image_id):
    image = GOLDEN / 'tree' / 'JPEGImages' / f'{image_id}.jpg'
    assert show.main(words(image, names_of(GOLDEN / 'tree', image_id), work_dir=staged,
                           out=tmp_path / 'sheet.png', mask_out=tmp_path / 'mask.png')) == 0
    assert (tmp_path / 'mask.png').read_bytes() == (staged / 'sem_seg' /
                                                    f'{image_id}.png').read_bytes()
    assert label_maps.load(tmp_path / 'mask.png').any()  # not background alone


@pytest.mark.parametrize('image_id', IDS)
def test_activations_and_seeds_are_the_stages(staged, image_id, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(show, 'draw', lambda args, image, made, classes: seen.append(made) or image)
    image = GOLDEN / 'tree' / 'JPEGImages' / f'{image_id}.jpg'
    assert show.main(words(image, names_of(GOLDEN / 'tree', image_id), work_dir=staged,
                           out=tmp_path / 'sheet.png')) == 0
    made, = seen
    for folder, planes in (('cam', made.cam), ('amn_cam', made.amn)):
        stored = activations.load(staged / folder, image_id).without_background()
        assert made.keys.tolist() == stored.keys.tolist()
        assert (planes == stored.high_res).all()
    for folder, seed in (('ir_label', made.cam_seed), ('amn_ir_label', made.amn_seed)):
        assert (seed == label_maps.load(staged / folder / f'{image_id}.png')).all()


def test_settings_reach_the_stages_functions(staged, tmp_path, monkeypatch):
    """Flags of every part, against the stages run with them."""
    flags = {'cam_scales': [1.0], 'conf_fg_thres': 0.6, 'amn_conf_bg_thres': 0.3, 'exp_times': 1,
             'beta': 2.0, 'sem_seg_bg_thres': 0.4, 'sem_seg_power': 2.0, 'sem_seg_canvas': 0,
             'sem_seg_from': 'mean', 'sem_seg_background': 'amn'}
    other = Command(GOLDEN / 'tree', tmp_path / 'other')
    where = {f'{name}_weights_name': staged / 'sess' / f'res50_{name}.pth'
             for name in ('cam', 'amn', 'irn')}
    assert other('make_cam', 'cam_to_ir_label', 'make_amn_cam', 'amn_cam_to_ir_label',
                 'make_sem_seg', **NETWORKS | where | flags) == 0
    seen = []
    monkeypatch.setattr(show, 'draw', lambda args, image, made, classes: seen.append(made) or image)
    image = GOLDEN / 'tree' / 'JPEGImages' / f'{IDS[0]}.jpg'
    assert show.main(words(image, names_of(GOLDEN / 'tree', IDS[0]), work_dir=staged,
                           out=tmp_path / 'sheet.png', mask_out=tmp_path / 'mask.png',
                           **flags)) == 0
    made, = seen
    for folder, seed in (('ir_label', made.cam_seed), ('amn_ir_label', made.amn_seed)):
        assert (seed == label_maps.load(other.folder / folder / f'{IDS[0]}.png')).all()
    mask = label_maps.load(tmp_path / 'mask.png')
    assert (mask == label_maps.load(other.folder / 'sem_seg' / f'{IDS[0]}.png')).all()
    assert (mask != label_maps.load(staged / 'sem_seg' / f'{IDS[0]}.png')).any()


def test_golden_mask(formula_weights, tmp_path):
    """The real networks and full settings, against the authors' stages."""
    image = GOLDEN / 'tree' / 'JPEGImages' / f'{IDS[0]}.jpg'
    flags = [word for name in ('cam', 'amn', 'irn')
             for word in (f'--{name}_weights_name', str(formula_weights / f'res50_{name}.pth'))]
    assert show.main([str(image), '--labels', names_of(GOLDEN / 'tree', IDS[0]), '--out',
                      str(tmp_path / 'sheet.png'),
                      '--mask_out', str(tmp_path / 'mask.png'), *flags]) == 0
    theirs = label_maps.load(GOLDEN / 'expected' / 'sem_seg' / f'{IDS[0]}.png')
    assert (label_maps.load(tmp_path / 'mask.png') != theirs).mean() <= 1e-3


# the sheet

def photograph(path, hw=(40, 50), mode='RGB'):
    noise = np.random.default_rng(0).integers(0, 256, (*hw, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


def sheet_of(monkeypatch, arguments):
    """What contact_sheet was given."""
    seen, real = [], drawing.contact_sheet
    monkeypatch.setattr(drawing, 'contact_sheet',
                        lambda rows, headings, **more: seen.append({'rows': rows,
                                                                    'headings': headings} | more)
                        or real(rows, headings, **more))
    assert show.main(arguments) == 0
    return seen[0]


def test_the_sheet_says_what_it_shows(work, monkeypatch, capsys):
    given = sheet_of(monkeypatch, words(photograph(work / 'yard.png'), 'person, dog',
                                        eval_cam_thres=0.2))
    assert given['headings'] == ['photograph', 'CAM', 'AMN', 'random walk']
    assert given['title'] == 'yard.png: dog, person'
    assert given['captions'][0] == ['', 'mask at 0.20', 'mask at 0.25', 'pseudo-mask, at 0.25']
    assert given['captions'][1] == ['dog in the pseudo-mask', 'dog', 'dog', 'dog']
    assert given['captions'][2] == ['person in the pseudo-mask', 'person', 'person', 'person']
    assert given['captions'][3][1:] == ['refined seed, 0.30 and 0.05',
                                        'refined seed, 0.45 and 0.15', "IRN's class boundaries"]
    assert all(len(row) == 4 for row in given['rows'])
    # 40 x 50, long side 320
    assert {picture.shape[:2] for row in given['rows'][:3] for picture in row} == {(256, 320)}
    assert capsys.readouterr().out == 'written: yard_amn.png\n'
    with Image.open('yard_amn.png') as picture:
        assert (picture.format, picture.mode) == ('PNG', 'RGB')


def test_the_sheet_draws_what_was_made(tmp_path, monkeypatch):
    """A column of each method from planes whose masks are known: the left half of CAM's, the right
    half of AMN's.
    """
    args = show.parse(['flat.png', '--labels', 'cat'])
    options.resolve_settings(STAGES, args)
    image = np.full((160, 320, 3), 100, np.uint8)
    left, right = np.zeros((1, 160, 320), np.float32), np.ones((1, 160, 320), np.float32)
    left[..., :160], right[..., :160] = 1, 0
    seed = np.full((160, 320), 255, np.uint8)
    made = Activations(np.array([7]), left, seed, right, seed, None, None)
    seen = []
    monkeypatch.setattr(drawing, 'contact_sheet', lambda rows, headings, **more: seen.append(rows))
    show.draw(args, image, made, CLASSES)
    (photo, cam_mask, amn_mask), (alone, cam, amn), (scale, cam_seed, _) = seen[0]
    colour = 0.4 * 100 + 0.6 * show.PALETTE[8].astype(float)
    assert (photo == image).all()
    assert np.abs(cam_mask[:, :159] - colour).max() <= 0.5 and (cam_mask[:, 160:] == 100).all()
    assert np.abs(amn_mask[:, 160:] - colour).max() <= 0.5 and (amn_mask[:, :159] == 100).all()
    assert (alone == amn_mask).all()  # without IRN, AMN's mask is the last one
    assert (cam[:, 160:] == 100).all() and (amn[:, :160] == 100).all()
    assert len(np.unique(cam[:, :160].reshape(-1, 3), axis=0)) == 1 and (cam[0, 0] != 100).any()
    assert len(np.unique(cam_seed.reshape(-1, 3), axis=0)) == 2  # hatched
    assert (scale[0] == drawing.PAPER).all()
    assert (scale[-1, 0] == 128).all() and (scale[-1, -1] == drawing.overlay_activation(
        np.full((1, 1, 3), 128, np.uint8), np.ones((1, 1)))).all()


@pytest.mark.parametrize(('hw', 'mode', 'ending'), [
    ((1, 1), 'RGB', 'png'), ((7, 300), 'L', 'png'), ((90, 3), 'RGBA', 'png'),
    ((33, 47), 'CMYK', 'jpg'), ((30, 20), 'P', 'gif')])
def test_photographs_of_every_kind(work, hw, mode, ending):
    image = photograph(work / f'odd.{ending}', hw, mode)
    assert show.main(words(image, 'cat', mask_out='mask.png')) == 0
    assert label_maps.load('mask.png').shape == hw
    with Image.open('odd_amn.png') as sheet:
        assert sheet.width > 4 * show.CELL_WIDTH


def test_all_classes_at_once(work, monkeypatch):
    given = sheet_of(monkeypatch, words(photograph(work / 'yard.png'), ','.join(reversed(CLASSES))))
    assert [caption[1] for caption in given['captions'][1:-1]] == list(CLASSES)


# classes

@pytest.mark.parametrize('n_classes', [1, 3, 30])
def test_classes_come_from_the_record_beside_the_weights(tmp_path, monkeypatch, n_classes):
    monkeypatch.chdir(tiny_weights(tmp_path, n_classes))
    classes = ['traffic light', *(f'class {number}' for number in range(1, n_classes))]
    for name in ('cam', 'amn'):
        (tmp_path / 'sess' / f'res50_{name}.json').write_text(json.dumps({'classes': classes}))
    given = sheet_of(monkeypatch, words(photograph(tmp_path / 'yard.png'), classes[-1]))
    assert given['title'] == f'yard.png: {classes[-1]}'


def test_weights_of_different_classes_are_refused(work, capsys):
    for name, classes in (('cam', ['cat', 'dog']), ('amn', ['dog', 'cat'])):
        records.write_json(records.weights_record(work / 'sess' / f'res50_{name}.pth'),
                           {'classes': classes})
    assert show.main(words(photograph(work / 'yard.png'), 'cat')) == 1
    assert ('res50_cam.pth and sess/res50_amn.pth were trained for different classes'
            in the_error(capsys))


def test_weights_without_a_record_of_other_classes_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tiny_weights(tmp_path, 3))
    assert show.main(words(photograph(tmp_path / 'yard.png'), 'cat')) == 1
    assert 'res50_cam.pth: trained for 3 classes, this data set has 20' in the_error(capsys)


@pytest.mark.parametrize(('names', 'told'), [
    ('dgo',
     "--labels 'dgo' (dog?): not among the 20 classes of these weights: aeroplane, bicycle, "),
    ('cat,Persn,xyzzy', "--labels 'Persn' (person?), 'xyzzy': not among the 20 classes"),
    ('Dog', "'Dog' (dog?)"), ('dog;cat', "'dog;cat'"), (' , ', '--labels names none of the 20 '
                                                               'classes'),
    ('', '--labels names none of')])
def test_unknown_names_are_refused_with_those_that_may_be_meant(work, capsys, names, told):
    assert show.main(words(photograph(work / 'yard.png'), names)) == 1
    line = the_error(capsys)
    assert told in line
    assert line.endswith('train, tvmonitor')


# what is missing, what is wrong

def test_without_irn_all_but_the_pseudo_mask_is_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tiny_weights(tmp_path, names=('cam', 'amn')))
    given = sheet_of(monkeypatch, words(photograph(tmp_path / 'yard.png'), 'dog'))
    assert given['headings'] == ['photograph', 'CAM', 'AMN']
    assert given['captions'][1][0] == "dog in AMN's mask"
    assert 'no pseudo-mask: there is no sess/res50_irn.pth' in given['title']
    assert capsys.readouterr().out.splitlines()[1].startswith('no pseudo-mask: sess/res50_irn.pth: '
                                                              'no such weights; run --tra')
    assert show.main(words(tmp_path / 'yard.png', 'dog', mask_out='mask.png')) == 1
    assert 'sess/res50_irn.pth: no such weights; --mask_out needs them' in the_error(capsys)


@pytest.mark.parametrize(('there', 'told'), [
    (('amn', 'irn'), 'sess/res50_cam.pth: no such weights; train them'),
    (('cam', 'irn'), 'sess/res50_amn.pth: no such weights; train them'),
    ((), 'sess/res50_cam.pth, sess/res50_amn.pth: no such weights; train them with run_sample.py, '
         'or name others: --work_dir, '
         '--cam_weights_name, --amn_weights_name')])
def test_missing_weights_are_named_with_the_remedy(tmp_path, monkeypatch, capsys, there, told):
    monkeypatch.chdir(tiny_weights(tmp_path, names=there))
    assert show.main(words(photograph(tmp_path / 'yard.png'), 'dog')) == 1
    assert told in the_error(capsys)
    assert not (tmp_path / 'yard_amn.png').exists()


def test_the_authors_double_ending(work):
    for name in ('cam', 'amn', 'irn'):
        shutil.move(work / 'sess' / f'res50_{name}.pth', work / 'sess' / f'res50_{name}.pth.pth')
    assert show.main(words(photograph(work / 'yard.png'), 'dog', mask_out='mask.png')) == 0


@pytest.mark.parametrize(('flags', 'told'), [
    ({'out': 'yard.png'}, 'one file cannot be two of them'),
    ({'mask_out': './yard_amn.png'}, 'one file cannot be two of them'),
    ({'precision': 'fp16', 'device': 'cpu'}, '--precision fp16 needs a GPU'),
    ({'device': 'abacus'}, 'not a device'),
    ({'cam_network': 'tests.nowhere'}, '--cam_network tests.nowhere: cannot be imported'),
    ({'eval_cam_thres': 'auto', 'amn_conf_fg_thres': 'auto'},
     '--eval_cam_thres, --amn_conf_fg_thres: auto takes the activations of many images'),
    ({'sem_seg_bg_thres': 'auto'},
     '--sem_seg_bg_thres: auto takes the activations of many images; give a number'),
    ({'conf_bg_thres': 0.4}, 'CAM seeds: the background threshold 0.4 is above'),
    ({'out': 'sess/res50_cam.pth/sheet.png'}, 'cannot write sess/res50_cam.pth/sheet.png'),
    ({'irn_weights_name': 'sess/res50_cam.pth'},
     'res50_cam.pth: not the weights of tests.tiny.irn')])
def test_what_is_wrong_is_told_in_one_line(work, capsys, flags, told):
    image = photograph(work / 'yard.png')
    before = image.read_bytes()
    assert show.main(words(image, 'dog', **flags)) == 1
    assert told in the_error(capsys)
    assert image.read_bytes() == before


@pytest.mark.parametrize(('content', 'told'), [(None, 'yard.jpg: no such image'),
                                               (b'JFIF', 'yard.jpg: cannot be decoded')])
def test_an_image_that_cannot_be_read(work, capsys, content, told):
    if content is not None:
        (work / 'yard.jpg').write_bytes(content)
    assert show.main(words('yard.jpg', 'dog')) == 1
    assert told in the_error(capsys)


def test_ctrl_c_is_told_in_one_line(work, monkeypatch, capsys):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Model, 'activations', stop)
    assert show.main(words(photograph(work / 'yard.png'), 'dog')) == 130
    assert capsys.readouterr().err == 'stopped by Ctrl-C\n'


@pytest.mark.parametrize('arguments', [
    [], ['yard.png'], ['--labels', 'dog'], ['yard.png', '--labels', 'dog', '--cam_batch_size', '4'],
    ['yard.png', '--labels', 'dog', '--eval_cam_thres', '2'],
    ['yard.png', '--labels', 'dog', 'cat']])
def test_wrong_flags(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        show.main(arguments)
    assert ended.value.code == 2
    assert the_error(capsys).endswith('(--help lists the flags)')


def test_every_flag_has_the_default_of_the_stages():
    args = vars(show.parse(['folder/yard.jpg', '--labels', 'dog']))
    theirs = vars(options.build_parser(STAGES).parse_args([]))
    assert {name: args[name] for name in theirs} == theirs
    assert set(FLAGS) <= theirs.keys()
    assert args['out'] == 'yard_amn.png'


def test_help_lists_the_flags(capsys):
    with pytest.raises(SystemExit) as ended:
        show.main(['--help'])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(f'--{name} ' in shown for name in (*FLAGS, 'labels', 'out', 'mask_out'))
    assert '--cam_batch_size' not in shown


def test_orientation_is_applied(work):
    picture = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(work / 'turned.jpg', exif=exif)
    assert show.main(words('turned.jpg', 'dog', mask_out='mask.png')) == 0
    assert label_maps.load('mask.png').shape == (30, 20)


@pytest.mark.parametrize(('text', 'expected'), [
    ('dog, small', ['dog, small']), ('"dog, small"', ['dog, small']),
    ('dog\\, small', ['dog, small']), ('cat,dog, small', ['cat', 'dog, small']),
    ('"dog, small", cat', ['cat', 'dog, small']), ('a,b', ['a,b']), ('cat', ['cat']),
    (' cat ,, cat', ['cat']),
    ('be\u0301be\u0301', ['b\u00e9b\u00e9']), ('cat,x, y, z', ['cat', 'x, y, z'])])
def test_names_with_a_comma(text, expected):
    classes = ('cat', 'dog, small', 'a,b', 'b\u00e9b\u00e9', 'x, y, z')
    assert [classes[key] for key
            in np.flatnonzero(show.present_classes(text, classes))] == sorted(expected,
                                                                              key=classes.index)


def test_a_comma_parts_names_where_all_are_classes():
    classes = ('dog', 'small', 'dog, small')
    assert show.present_classes('dog, small', classes).tolist() == [True, True, False]
    assert show.present_classes('"dog, small"', classes).tolist() == [False, False, True]
    with pytest.raises(UserError, match="'big'.*: not among the 3 classes"):
        show.present_classes('dog,big', classes)
