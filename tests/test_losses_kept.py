"""The losses of the epochs, beside the weights: one line each, wherever a run was cut off."""
import json

import pytest

from misc import training
from misc.files import losses
from misc.pyutils import UserError
from tests.tiny import QUICK

LONG = QUICK | {'cam_num_epoches': 3}  # of two steps


def test_a_line_an_epoch_and_the_same_after_a_stop(command, monkeypatch):
    assert command('train_cam', **LONG) == 0
    path = command.folder / 'cam.losses.jsonl'
    whole = path.read_bytes()
    lines = [json.loads(line) for line in whole.splitlines()]
    assert [(line['epoch'], line['step']) for line in lines] == [(1, 2), (2, 4), (3, 6)]
    assert all(line['loss'] > 0 and line.keys() == {'epoch', 'step', 'learning_rate', 'loss'}
               for line in lines)
    assert losses.read(command.folder / 'cam.pth') == lines

    save, saved = training._State.save, []

    def stop_within_the_second_epoch(state):
        save(state)
        saved.append(state.step)
        if state.step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(training._State, 'save', stop_within_the_second_epoch)
    assert command('train_cam', **LONG, overwrite=True, save_every=1e-9) == 130
    assert [json.loads(line) for line in path.read_text().splitlines()] == lines[:1]
    monkeypatch.undo()
    assert command('train_cam', **LONG) == 0
    assert saved == [1, 2, 3]
    assert path.read_bytes() == whole


def test_a_training_anew_forgets_them(command):
    assert command('train_cam', **LONG) == 0
    assert command('train_cam', **QUICK, overwrite=True) == 0
    assert [line['epoch'] for line in losses.read(command.folder / 'cam.pth')] == [1]


def test_broken_and_missing_files(tmp_path):
    assert losses.read(tmp_path / 'cam.pth') == []
    (tmp_path / 'cam.losses.jsonl').write_text('{"epoch"')
    with pytest.raises(UserError, match=r'cam\.losses\.jsonl: not the losses of a training'):
        losses.read(tmp_path / 'cam.pth')
