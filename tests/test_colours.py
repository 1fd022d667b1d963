"""The colours can be read and told apart, by colour-blind readers too."""
import itertools

import numpy as np
import pytest

from misc.draw import colours
from misc.draw.colours import Pair
from step.pipeline import STAGES

# what dichromats see of linear RGB (Machado, Oliveira and Fernandes 2009, severity 1)
SEEN = {
    'all': np.eye(3),
    'no red': np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                        [-0.003882, -0.048116, 1.051998]]),
    'no green': np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                          [-0.011820, 0.042940, 0.968881]]),
    'no blue': np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                         [0.004733, 0.691367, 0.303900]])}
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                [0.0193339, 0.1191920, 0.9503041]])
MODES = ('light', 'dark')


def linear(colour):
    values = np.array(colours.rgb(colour)) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one, two):
    """WCAG's."""
    low, high = sorted(float(XYZ[1] @ linear(colour)) + 0.05 for colour in (one, two))
    return high / low


def lab(colour, seen):
    x, y, z = XYZ @ np.clip(seen @ linear(colour), 0, 1) / (0.95047, 1, 1.08883)
    x, y, z = (np.cbrt(value) if value > 0.008856 else 7.787 * value + 16 / 116
               for value in (x, y, z))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_the_measures_are_right():
    assert contrast('#000000', '#ffffff') == pytest.approx(21)
    assert contrast('#777777', '#ffffff') == pytest.approx(4.48, abs=0.01)
    assert lab('#ffffff', SEEN['all']) == pytest.approx([100, 0, 0], abs=0.1)
    assert lab('#ff0000', SEEN['all']) == pytest.approx([53.2, 80.1, 67.2], abs=0.2)


@pytest.mark.parametrize('mode', MODES)
def test_every_colour_can_be_read_as_text(mode):
    for name, pair in [*colours.METHODS.items(), *enumerate(colours.FURTHER),
                       *((name, colours.THEME[name]) for name in ('ink', 'faint'))]:
        for paper in colours.PAPERS:
            assert contrast(getattr(pair, mode), getattr(colours.THEME[paper], mode)) >= 4.5, (
                name, paper)


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('reader', SEEN)
def test_no_two_methods_look_alike(mode, reader):
    for (one, first), (two, second) in itertools.combinations(colours.METHODS.items(), 2):
        apart = np.linalg.norm(lab(getattr(first, mode), SEEN[reader])
                               - lab(getattr(second, mode), SEEN[reader]))
        assert apart > 12, (one, two)


@pytest.mark.parametrize('reader', SEEN)
def test_no_two_errors_look_alike(reader):
    for one, two in itertools.combinations(colours.ERRORS.values(), 2):
        assert np.linalg.norm(lab(one, SEEN[reader]) - lab(two, SEEN[reader])) > 20


def test_what_every_stage_shows_has_a_colour():
    shown = [stage.writes[0].flag.removesuffix('_out_dir') for stage in STAGES if stage.shown]
    assert set(shown) == colours.METHODS.keys() | colours.SAME.keys()
    found = colours.of_methods([*shown, 'mine', 'yours'])
    assert found['ir_label'] == found['cam'] != found['amn_cam']
    assert found['mine'] != found['yours']
    assert not {found['mine'], found['yours']} & set(colours.METHODS.values())


def test_variables_of_a_page():
    assert colours.variables({'of-cam': Pair('#000000', '#ffffff')}) == (
        ':root { --of-cam: #000000; }\n:root[data-theme=dark] { --of-cam: #ffffff; }')
