"""Activation files: ours, the authors', broken ones, hostile ones."""
import io
import os
import pickle

import numpy as np
import pytest
import torch

from misc.files import activations
from misc.files.activations import Activation
from misc.pyutils import UserError

RNG = np.random.default_rng(0)


def example(extra=0):
    return Activation(np.array([3, 14]), RNG.random((2 + extra, 3, 4), np.float32),
                      RNG.random((2 + extra, 9, 13), np.float32))


def assert_same(ours, theirs):
    for field in Activation._fields:
        assert np.array_equal(getattr(ours, field), getattr(theirs, field)), field
        assert getattr(ours, field).dtype == getattr(theirs, field).dtype


@pytest.mark.parametrize('extra', [0, 1])
def test_round_trip(tmp_path, extra):
    stored = example(extra)
    assert not activations.exists(tmp_path, 'a')
    activations.save(tmp_path, 'a', stored)
    assert activations.exists(tmp_path, 'a')
    assert_same(activations.load(tmp_path, 'a'), stored)
    assert [path.name for path in tmp_path.iterdir()] == ['a.npz']


@pytest.mark.parametrize('dtype', ['float32', 'uint8'])
def test_the_same_activation_gives_the_same_bytes(tmp_path, dtype):
    stored = example()
    for name in 'ab':
        activations.save(tmp_path, name, stored, dtype)
    assert (tmp_path / 'a.npz').read_bytes() == (tmp_path / 'b.npz').read_bytes()


def test_256_steps(tmp_path):
    """Each value becomes the nearest of 0, 1/255, ..., 1, the ends themselves; smooth planes take
    little space.
    """
    ramp = np.linspace(0, 1, 200 * 300, dtype=np.float32).reshape(1, 200, 300)
    stored = Activation(np.array([5]), ramp[:, ::4, ::4], ramp)
    for dtype in ('float32', 'uint8'):
        activations.save(tmp_path / dtype, 'a', stored, dtype)
    made = activations.load(tmp_path / 'uint8', 'a')
    assert made.high_res.dtype == made.strided.dtype == np.float32
    assert np.abs(made.high_res - ramp).max() <= 0.5 / 255 + 1e-7
    assert (made.high_res.min(), made.high_res.max(), len(np.unique(made.high_res))) == (0, 1, 256)
    assert np.array_equal(made.strided, stored.strided.astype(np.float16))
    assert (tmp_path / 'uint8' /
            'a.npz').stat().st_size < 0.1 * (tmp_path / 'float32' / 'a.npz').stat().st_size
    empty = Activation(np.zeros(0, np.int64), np.zeros((0, 1, 2), np.float32),
                       np.zeros((0, 3, 5), np.float32))
    activations.save(tmp_path, 'b', empty, 'uint8')
    assert_same(activations.load(tmp_path, 'b'), empty)


def test_without_background():
    cam, amn = example(), example(1)
    assert_same(cam.without_background(), cam)
    assert_same(amn.without_background(), Activation(amn.keys, amn.strided[1:], amn.high_res[1:]))
    no_class = Activation(np.zeros(0, np.int64), np.ones((1, 1, 1), np.float32),
                          np.ones((1, 2, 2), np.float32))
    assert no_class.without_background().high_res.shape == (0, 2, 2)


def authors_file(path, activation):
    np.save(path, {'keys': torch.from_numpy(activation.keys),
                   'cam': torch.from_numpy(activation.strided), 'high_res': activation.high_res})


@pytest.mark.parametrize('extra', [0, 1])
def test_the_authors_file_is_read(tmp_path, extra):
    stored = example(extra)
    authors_file(tmp_path / 'a.npy', stored)
    assert activations.exists(tmp_path, 'a')
    assert_same(activations.load(tmp_path, 'a'), stored)


def test_ours_is_read_before_the_authors(tmp_path):
    ours, theirs = example(), example()
    authors_file(tmp_path / 'a.npy', theirs)
    activations.save(tmp_path, 'a', ours)
    assert_same(activations.load(tmp_path, 'a'), ours)


class Runs:
    """Unpickled, it calls a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize('make', [
    lambda target: Runs(os.system, f'touch {target}'),
    lambda target: Runs(eval, f'open({str(target)!r}, "w")'),
    lambda target: Runs(exec, f'open({str(target)!r}, "w")'),
    lambda target: Runs(torch.load, str(target)),
    lambda target: Runs(torch.storage._load_from_bytes,
                        pickle.dumps(Runs(os.system, f'touch {target}'))),
    lambda target: Runs(torch.storage._load_from_bytes,
                        legacy(Runs(os.system, f'touch {target}')))],
    ids=['os.system', 'eval', 'exec', 'torch.load', 'nested pickle', 'nested torch file'])
def test_hostile_pickles_are_refused_and_not_run(tmp_path, make):
    target = tmp_path / 'it ran'
    hostile = make(str(target).replace(' ', '_'))
    np.save(tmp_path / 'a.npy',
            {'keys': hostile, 'cam': hostile, 'high_res': np.zeros((1, 2, 2), np.float32)})
    with pytest.raises(UserError, match='a.npy: not an activation file'):
        activations.load(tmp_path, 'a')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.npy']


def legacy(content):
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def test_the_hostile_pickles_would_run_elsewhere(tmp_path):
    """So that the test above cannot pass for want of a working payload."""
    target = tmp_path / 'it_ran'
    pickle.loads(pickle.dumps(Runs(torch.storage._load_from_bytes,
                                   legacy(Runs(os.system, f'touch {target}')))))
    assert target.exists()


def test_broken_files_are_named(tmp_path):
    with pytest.raises(UserError,
                       match='a.npz: no such activation; run --make_cam_pass True first'):
        activations.load(tmp_path, 'a', 'run --make_cam_pass True first')
    activations.save(tmp_path, 'a', example())
    whole = (tmp_path / 'a.npz').read_bytes()
    for broken in (b'', whole[:3], whole[:100], whole[:-40], b'text',
                   whole[:400] + b'\x00\x01\x02' + whole[403:]):
        (tmp_path / 'a.npz').write_bytes(broken)
        with pytest.raises(UserError, match='a.npz: not a whole activation file'):
            activations.load(tmp_path, 'a')
    with open(tmp_path / 'a.npz', 'wb') as stream:
        np.save(stream, np.zeros(3))  # an array, not an archive of arrays
    with pytest.raises(UserError, match='not a whole activation file'):
        activations.load(tmp_path, 'a')
    authors_file(tmp_path / 'b.npy', example())
    whole = (tmp_path / 'b.npy').read_bytes()
    for broken in (b'', whole[:5], whole[:200], whole[:-40], b'text'):
        (tmp_path / 'b.npy').write_bytes(broken)
        with pytest.raises(UserError, match='b.npy: not an activation file'):
            activations.load(tmp_path, 'b')


def test_planes_must_fit_the_classes(tmp_path):
    activations.save(tmp_path, 'a', example()._replace(keys=np.arange(5)))
    with pytest.raises(UserError, match='5 classes, but 2 planes'):
        activations.load(tmp_path, 'a')
    activations.save(tmp_path, 'a', example()._replace(strided=np.zeros((3, 2, 2), np.float32)))
    with pytest.raises(UserError, match='2 classes, but 2 planes'):
        activations.load(tmp_path, 'a')
