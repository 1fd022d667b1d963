"""Figures: all there, the same bytes each time, every method told apart, what is not defined left
out.
"""
import itertools
import re

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from misc.draw import colours, plots


def method(title, number, **other):
    """A method as in analysis.json."""
    curve = np.interp(np.linspace(0, 1, 101), [0, 0.1 * number + 0.1, 1], [0.3, 0.5, 0]).tolist()
    return {'title': title, 'threshold_used': 0.15, 'miou_used': curve[15],
            'best_threshold': 0.1 * number + 0.1,
            'best_miou': 0.5, 'within_1_point': [0.2, 0.2], 'within_5_points': [0.1, 0.4],
            'curve': curve,
            'precision': np.linspace(0.3, 0.9, 101).tolist(),
            'recall': np.linspace(0.9, 0, 101).tolist(),
            'own_thresholds': {'mean': 0.3, 'std': 0.1, 'images': 40, 'twentieths': [2] * 20},
            'cv': 0.5, 'gap': 0.2, 'auc': 0.8, 'foreground_mean': 0.4, 'background_mean': 0.2,
            'histograms': {'foreground': list(range(50)), 'background': [5] * 50}, **other}


METHODS = {'cam': method('CAM', 0), 'amn_cam': method('AMN', 1)}
UNDEFINED = {'cam': method('CAM', 0, precision=[0.4] * 90 + [None] * 11, background_mean=None,
                           gap=None, auc=None, cv=None,
                           histograms={'foreground': [1] * 50, 'background': [0] * 50})}


def test_every_figure_is_written_twice_and_always_the_same(tmp_path):
    before = dict(matplotlib.rcParams)
    for folder in ('one', 'two'):
        plots.save_all(METHODS, tmp_path / folder)
    assert dict(matplotlib.rcParams) == before
    names = {path.name for path in (tmp_path / 'one').iterdir()}
    assert names == {f'{name}.{ending}' for name in plots.FIGURES for ending in ('png', 'svg')}
    for name in names:
        content = (tmp_path / 'one' / name).read_bytes()
        assert content == (tmp_path / 'two' / name).read_bytes(), name
        assert b'<dc:date>' not in content
    with Image.open(tmp_path / 'one' / 'curves.png') as picture:
        assert picture.width > 1000
        assert 'Software' not in picture.info
        assert len(set(map(tuple, np.asarray(picture.convert('RGB')).reshape(-1, 3)[::7]))) > 20


@pytest.mark.parametrize('draw', plots.FIGURES.values())
@pytest.mark.parametrize('methods', [METHODS, UNDEFINED, {str(number): method(str(number), number)
                                                          for number in range(7)}])
def test_figures_of_any_number_of_methods_can_be_drawn(draw, methods, recwarn):
    figure = draw(methods)
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    assert not [str(warning.message) for warning in recwarn]
    texts = [text.get_text() for axes in figure.axes
             for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    assert any(text.endswith('(%)') for text in texts)
    assert all(text and 'None' not in text and 'nan' not in text for text in texts if text)


def test_every_method_has_a_colour_and_a_line_of_its_own():
    names = [*colours.METHODS, 'mine', 'yours']
    styles = [plots._style(name, number) for number, name in enumerate(names)]
    for one, two in itertools.combinations(styles, 2):
        assert one['color'] != two['color']
    for one, two in itertools.combinations(styles[:5], 2):
        assert one['linestyle'] != two['linestyle']
    assert plots._style('cam', 0)['color'] == plots._style('cam', 3)['color']  # wherever it stands


TRAININGS = [('CAM', colours.METHODS['cam'], [
    {'epoch': 1, 'step': 4, 'learning_rate': 0.1, 'loss': 0.7},
    {'epoch': 2, 'step': 8, 'learning_rate': 0.05, 'loss': 0.5}]),
    ('IRN', None, [{'epoch': 1, 'step': 2, 'learning_rate': 0.1, 'loss': 2.0, 'positive': 1.5}])]


def test_losses_of_every_training():
    figure = plots.losses(TRAININGS)
    assert [axes.get_title() for axes in figure.axes] == ['CAM', 'IRN']
    assert [list(line.get_ydata()) for line in figure.axes[0].get_lines()] == [[0.7, 0.5]]
    assert [line.get_label() for line in figure.axes[1].get_lines()] == ['loss', 'positive']
    assert len(plots.losses(TRAININGS * 3).axes) == 8  # two rows of four, the last two empty


@pytest.mark.parametrize('draw', [*plots.FIGURES.values(), lambda methods: plots.losses(TRAININGS)])
def test_a_figure_in_a_page_has_the_colours_of_the_page(draw):
    """No colour of its own is left, no id that another figure has, nothing from a network."""
    hues = {f'of-{name}': pair for name, pair in colours.of_methods(METHODS).items()}
    svg = plots.for_page('one', lambda: draw(METHODS), hues)
    assert svg.startswith('<svg')
    assert set(re.findall(r'#[0-9a-fA-F]{3,6}\b', re.sub(r'#one-', '', svg))) <= set()
    assert 'var(--of-cam)' in svg and 'var(--ink)' in svg and 'var(--card)' in svg
    assert all(found.startswith('one-') for found in re.findall(r'\bid="([^"]*)"', svg))
    used = re.findall(r'(?:url\(|href=")#([^")]*)', svg)
    assert used and all(f'id="{name}"' in svg for name in used)
    assert '<style' not in svg and 'font-family' not in svg
    assert set(re.findall(r'https?://[^"]*', svg)) == {'http://www.w3.org/1999/xlink',
                                                       'http://www.w3.org/2000/svg'}
    assert '>1.0</text>' in svg or '>2</text>' in svg or '>1</text>' in svg  # its texts are text


def test_the_lines_are_the_numbers():
    figure = plots.curves(METHODS)
    lines = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 101]
    assert [line.get_ydata().tolist() for line in lines] == [
        pytest.approx([100 * value for value in found['curve']]) for found in METHODS.values()]
    marks = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 1]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in marks] == [
        (found[where], pytest.approx(100 * found[what])) for found in METHODS.values()
        for where, what in (('best_threshold', 'best_miou'), ('threshold_used', 'miou_used'))]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert (legend[1] == f'AMN: {100 * METHODS["amn_cam"]["miou_used"]:.1f} at 0.15, best 50.0 at '
                         f'0.20')
    bars = plots.best_thresholds(METHODS).axes[0].patches
    assert [bar.get_height() for bar in bars] == [5] * 20
