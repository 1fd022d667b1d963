"""Figures: the threshold analysis, and the losses of the trainings.

The analysis from the `methods` of its analysis.json, as a PNG and an SVG each; any figure for a
page, in the page's own colours.

Every method has its colour (misc/draw/colours.py) and its own line style, for readers without any
colour. The same numbers give the same bytes. No state of pyplot is touched.
"""
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from misc.draw import colours
from misc.draw.colours import Pair
from misc.pyutils import atomic_path
from misc.score.scores import GRID

INK, FAINT, CARD, RULE = (colours.THEME[name].light for name in ('ink', 'faint', 'card', 'line'))
LINES = ('-', '--', '-.', ':', (0, (6, 1, 1, 1, 1, 1)))
MARKERS = 'os^Dv'
SETTINGS = {'font.size': 10, 'axes.spines.top': False, 'axes.spines.right': False,
            'axes.grid': True, 'grid.color': RULE, 'figure.facecolor': CARD, 'axes.facecolor': CARD,
            'savefig.facecolor': CARD,
            **dict.fromkeys(('text.color', 'axes.labelcolor', 'axes.edgecolor', 'xtick.color',
                             'ytick.color'), INK),
            'axes.axisbelow': True, 'lines.linewidth': 1.8, 'legend.frameon': False,
            'svg.hashsalt': 'amn', 'hatch.linewidth': 0.5, 'hatch.color': INK}
NO_LOSS = ('epoch', 'step', 'learning_rate')  # of the lines of misc/files/losses.py
Methods = dict[str, dict[str, Any]]


def curves(methods: Methods) -> Figure:
    """Draw mIoU against the global threshold, the threshold in use marked.

    Below, the thresholds near the best.
    """
    figure = _figure(7.5, 5.0 + 0.55 * len(methods))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 0.35 * len(methods) + 0.3))
    for number, (name, method) in enumerate(methods.items()):
        style = _style(name, number)
        above.plot(GRID, _percent(method['curve']), **style)
        above.plot(method['best_threshold'], 100 * method['best_miou'], marker='*', markersize=13,
                   markeredgecolor=CARD, color=style['color'])
        above.plot(method['threshold_used'], 100 * method['miou_used'], **_mark(number),
                   color=style['color'])
        above.plot([], [], label=f'{method["title"]}: {100 * method["miou_used"]:.1f} at '
                                 f'{method["threshold_used"]:.2f}, best '
                   f'{100 * method["best_miou"]:.1f} at {method["best_threshold"]:.2f}',
                   **_mark(number), **style)
        for key, opacity in (('within_5_points', 0.35), ('within_1_point', 1)):
            low, high = method[key]
            # a single one shows, too
            below.barh(number, max(high - low, 0.004), 0.62, low, color=style['color'],
                       alpha=opacity, linewidth=0)
        below.plot([method['threshold_used']] * 2, (number - 0.42, number + 0.42), color=INK,
                   linewidth=1.5)
    above.set(ylabel='mIoU (%)', ylim=(0, None), title='mIoU against one threshold for all images')
    figure.legend(title='mIoU (%) at the threshold in use (hollow mark) and at the best one (star)',
                  loc='outside lower center')
    below.set(xlabel='global threshold', xlim=(0, 1), yticks=range(len(methods)),
              ylim=(len(methods) - 0.4, -0.6))
    below.set_yticklabels([method['title'] for method in methods.values()])
    below.set_title('within 1 point (dark) and within 5 points (light) of the best; '
                    'line: threshold in use', fontsize=10)
    below.grid(False, axis='y')
    return figure


def best_thresholds(methods: Methods) -> Figure:
    """How the images' own best thresholds are distributed, a panel for each method."""
    figure, panels = _panels(methods, 2.0, 'images (%)')
    for axes, number, name, method in panels:
        found, style = method['own_thresholds'], _style(name, number)
        shares = 100 * np.array(found['twentieths']) / max(found['images'], 1)
        axes.bar(np.arange(20) / 20, shares, 0.05, align='edge', color=style['color'],
                 edgecolor=CARD, linewidth=0.8)
        _line(axes, method['best_threshold'], '-', f'best for all: {method["best_threshold"]:.2f}')
        _line(axes, method['threshold_used'], ':', f'in use: {method["threshold_used"]:.2f}')
        axes.set_title(f'{method["title"]}: mean {found["mean"]:.2f}, standard deviation '
                       f'{found["std"]:.2f}')
        axes.legend(loc='upper right')
    axes.set_xlabel("threshold that is best for the image's own mIoU")
    return figure


def histograms(methods: Methods) -> Figure:
    """How foreground's and background's activation are distributed, a panel for each method."""
    figure, panels = _panels(methods, 2.3, 'pixels (%)')
    for axes, number, name, method in panels:
        for part, colour, line, hatch in (
                ('background', FAINT, '--', '////'),
                ('foreground', _style(name, number)['color'], '-', None)):
            counts = np.array(method['histograms'][part])
            shares, edges = 100 * counts / max(counts.sum(), 1), np.linspace(0, 1, len(counts) + 1)
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.3, hatch=hatch, linewidth=0)
            axes.stairs(shares, edges, color=colour, linestyle=line, linewidth=1.8,
                        label=f'{part}: mean {_number(method[f"{part}_mean"])}')
        _line(axes, method['threshold_used'], ':',
              f'threshold in use: {method["threshold_used"]:.2f}')
        axes.set_yscale('log')
        axes.yaxis.set_major_formatter('{x:g}')
        axes.set_title(f'{method["title"]}: gap {_number(method["gap"])}, area under ROC '
                       f'{_number(method["auc"])}, '
                       f'CV within objects {_number(method["cv"])}', fontsize=11)
        axes.legend(loc='upper right')
    panels[0][0].set_ylim(0.01, 300)  # of all; with room for the legend
    axes.set_xlabel('activation')
    return figure


def precision_recall(methods: Methods) -> Figure:
    """Draw precision and recall of the foreground's pixels.

    Against the threshold, and against each other.
    """
    figure = _figure(10.5, 4.0)
    panels = figure.subplots(1, 3)
    for number, (name, method) in enumerate(methods.items()):
        precision, recall = _percent(method['precision']), _percent(method['recall'])
        used = {'markevery': _at(method['threshold_used']), **_mark(number),
                **_style(name, number)}
        for axes, x, y in zip(panels, (GRID, GRID, recall), (precision, recall, precision),
                              strict=True):
            axes.plot(x, y, label=method['title'], **used)
    threshold, precision, recall = ('global threshold', 'precision of foreground (%)',
                                    'recall of foreground (%)')
    for axes, x, y in zip(panels, (threshold, threshold, recall), (precision, recall, precision),
                          strict=True):
        axes.set(xlabel=x, ylabel=y, ylim=(0, 102), xlim=(0, 1 if x == threshold else 102))
    panels[0].legend(title='mark: threshold in use', loc='lower right')
    return figure


FIGURES: dict[str, Callable[[Methods], Figure]] = {
    'curves': curves, 'best_thresholds': best_thresholds, 'histograms': histograms,
    'precision_recall': precision_recall}


def save_all(methods: Methods, folder: str | os.PathLike) -> None:
    """Write every figure of FIGURES as NAME.png and NAME.svg, atomically.

    methods: at least one, as in analysis.json.

    Raises UserError when the disk refuses.
    """
    with matplotlib.rc_context(SETTINGS):
        for name, draw in FIGURES.items():
            figure = draw(methods)
            for ending, metadata in (('png', {'Software': None}), ('svg', {'Date': None})):
                with atomic_path(Path(folder) / f'{name}.{ending}') as temporary:
                    figure.savefig(temporary, format=ending, dpi=150, metadata=metadata)


def losses(trainings: list[tuple[str, Pair | None, list[dict[str, float]]]]) -> Figure:
    """A panel for each training: the loss, and its parts, after each epoch.

    trainings: title, colour (None: ink) and, for each epoch, what misc/files/losses.py keeps of it.
    """
    columns = min(len(trainings), 4)
    rows = -(-len(trainings) // columns)
    figure = _figure(3.4 * columns, 2.7 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (title, colour, lines) in zip(panels, trainings, strict=False):
        epochs = [line['epoch'] for line in lines]
        parts = dict.fromkeys(name for line in lines for name in line if name not in NO_LOSS)
        for number, name in enumerate(parts):
            axes.plot(epochs, [line.get(name, np.nan) for line in lines], label=name,
                      color=INK if colour is None else colour.light,
                      linestyle=LINES[number % len(LINES)], marker=MARKERS[number % len(MARKERS)],
                      markersize=4 if len(lines) < 20 else 0)
        axes.set(title=title, xlabel='epoch', ylabel='loss, mean of the epoch')
        axes.xaxis.get_major_locator().set_params(integer=True)
        if len(parts) > 1:
            axes.legend(fontsize=8)
    for axes in list(panels)[len(trainings):]:
        axes.set_visible(False)
    return figure


def for_page(name: str, draw: Callable[[], Figure], hues: dict[str, Pair]) -> str:
    """Return the SVG of a figure to stand in a page.

    Its texts are text, its colours the variables of the page (misc/draw/colours.py: the theme's,
    and `hues` by variable), its ids begin with `name`.
    """
    stream = io.StringIO()
    with matplotlib.rc_context(SETTINGS | {'svg.fonttype': 'none'}):
        draw().savefig(stream, format='svg', metadata=dict.fromkeys(
            ('Date', 'Creator', 'Format', 'Type')))
    svg = stream.getvalue()
    svg = re.sub(r'<defs>\s*<style.*?</style>\s*</defs>', '', svg[svg.index('<svg'):], flags=re.S)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf'\g<1>{name}-', svg)
    variables = {pair.light: f'var(--{variable})'
                 for variable, pair in [*hues.items(), *colours.THEME.items()]}
    svg = re.sub(r'#[0-9a-f]{6}(?=[;"])', lambda found: variables.get(found[0], found[0]), svg)
    return re.sub(r'\s+', ' ', re.sub(r'font-family: [^;"]*;', '', svg))


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout='constrained')


def _panels(methods: Methods, height: float,
            label: str) -> tuple[Figure, list[tuple[Axes, int, str, dict[str, Any]]]]:
    """A panel for each method (its number, name and numbers), one below the other, with the same
    axis of 0..1.
    """
    figure = _figure(7.5, 0.7 + height * len(methods))
    panels = figure.subplots(len(methods), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes in panels:
        axes.set(xlim=(0, 1), ylabel=label)
    return figure, list(zip(panels, range(len(methods)), methods, methods.values(), strict=True))


def _style(name: str, number: int) -> dict[str, Any]:
    """Colour by the method's name; its line by its place among those of the figure."""
    further = [f'further {each}' for each in range(number)]  # methods of one's own differ, too
    return {'color': colours.of_methods([*further, name])[name].light,
            'linestyle': LINES[number % len(LINES)]}


def _mark(number: int) -> dict[str, Any]:
    return {'marker': MARKERS[number % len(MARKERS)], 'markersize': 8, 'markerfacecolor': CARD,
            'markeredgewidth': 1.8}


def _line(axes: Axes, x: float, style: str, label: str) -> None:
    axes.axvline(x, color=INK, linestyle=style, linewidth=1.5, label=label)


def _at(threshold: float) -> list[int]:
    """The place of the threshold of GRID that is nearest."""
    return [int(np.abs(np.array(GRID) - threshold).argmin())]


def _percent(values: list[float | None]) -> np.ndarray:
    """JSON's null is a gap in the line."""
    return 100 * np.array(values, float)


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.2f}'
