"""Pictures: activations and label maps over their image, and sheets of many of them.

uint8 arrays (H, W, 3), RGB.
"""
import functools
import os
import unicodedata
from collections.abc import Sequence

import cv2
import matplotlib
import numpy as np
from matplotlib import ft2font
from PIL import Image, ImageDraw, ImageFont, features

from misc import imutils
from misc.files.label_maps import IGNORE
from misc.pyutils import atomic_path, log

# pixels along a row from one light line to the next; half of it is light, half dark
HATCH_PERIOD = 8
HATCH_LIGHT, HATCH_DARK = 250, 90  # greys: no class has them
WHITE = 255
# matplotlib's fonts of boxes, and of mathematics
NO_TEXT = ('Last Resort', 'cm', 'STIXNonUnicode', 'STIXSize')
PAPER, INK, FAINT_INK, EMPTY_CELL = (250, 250, 248), (28, 28, 30), (105, 105, 110), (238, 238, 235)


def overlay_activation(image: np.ndarray, activation: np.ndarray,
                       alpha: float = 0.75) -> np.ndarray:
    """Return the activation in colour over the grey image.

    The colours are matplotlib's plasma, blue to yellow in even steps.

    `image`: uint8 (H, W, 3). `activation`: (H, W); values are cut to 0..1, NaN counts as 0.
    `alpha`: opacity where it is 1; opacity falls with the activation, and where that is 0 the grey
    image itself shows.
    Raises ValueError for other shapes.
    """
    _check_shapes(image, activation)
    strength = np.clip(np.nan_to_num(np.asarray(activation, dtype=np.float32), nan=0.0), 0, 1)
    colours = matplotlib.colormaps['plasma'](strength)[..., :3] * 255
    opacity = alpha * strength[..., None]
    return _to_uint8((1 - opacity) * _grey(image) + opacity * colours)


def overlay_labels(image: np.ndarray, label_map: np.ndarray, palette: np.ndarray,
                   alpha: float = 0.6) -> np.ndarray:
    """Return the label map over its image, in `palette`'s colours with a white contour.

    Ignored pixels are hatched.

    `image`: uint8 (H, W, 3). `label_map`: whole numbers (H, W), 0 background (shows the image), 255
    ignored.
    `palette`: uint8 (n, 3), a row for every label that occurs. `alpha`: opacity of classes and
    hatching.
    Raises ValueError for other shapes, or a label that the palette lacks.
    """
    _check_shapes(image, label_map)
    opacity = np.where(label_map == 0, 0.0, alpha)[..., None]
    blended = (1 - opacity) * image + opacity * _flat_colours(label_map, palette)
    blended[_contour(label_map)] = WHITE
    return _to_uint8(blended)


def overlay_instances(image: np.ndarray, instance_map: np.ndarray,
                      names: Sequence[str] | None = None, alpha: float = 0.6,
                      text_size: int = 14) -> np.ndarray:
    """Instances over their image, each in a colour of its own with a white contour.

    `image`: uint8 (H, W, 3). `instance_map`: whole numbers (H, W), 0 for none (shows the image),
    else the number of an instance, from 1. `names`: a text for each number, written where its
    instance is thickest. `alpha`: opacity.
    Raises ValueError for other shapes, and for fewer names than instances.
    """
    _check_shapes(image, instance_map)
    number = int(instance_map.max(initial=0))
    if names is not None and len(names) < number:
        raise ValueError(f'{len(names)} names for {number} instances')
    opacity = np.where(instance_map == 0, 0.0, alpha)[..., None]
    blended = (1 - opacity) * image + opacity * _instance_colours(number)[instance_map]
    blended[_contour(instance_map)] = WHITE
    if names is None:
        return _to_uint8(blended)
    picture = Image.fromarray(_to_uint8(blended))
    draw = ImageDraw.Draw(picture)
    for one in np.setdiff1d(instance_map, [0]):
        name, font = drawable(names[one - 1], text_size)
        inside = cv2.distanceTransform(np.pad(instance_map == one, 1).astype(np.uint8), cv2.DIST_L2,
                                       3)[1:-1, 1:-1]
        y, x = np.unravel_index(inside.argmax(), inside.shape)
        half = font.getlength(name) / 2 + 2
        x = max(min(x, image.shape[1] - half), half)  # not beyond the sides, where that can be
        draw.text((x, int(y)), name, fill=PAPER, font=font, anchor='mm', stroke_width=2,
                  stroke_fill=INK)
    return np.asarray(picture)


def label_layer(label_map: np.ndarray, palette: np.ndarray, alpha: float = 0.6) -> np.ndarray:
    """Return what `overlay_labels` lays over the image, on its own.

    uint8 (H, W, 4), RGB and opacity, clear where it shows the image.

    Raises ValueError for a label that the palette lacks.
    """
    opacity = np.where(label_map == 0, 0, 255 * alpha)[..., None]
    layer = np.concatenate([_flat_colours(label_map, palette) * (opacity > 0), opacity], axis=2)
    layer[_contour(label_map)] = WHITE
    return _to_uint8(layer)


def instance_layer(instance_map: np.ndarray, alpha: float = 0.6) -> np.ndarray:
    """What `overlay_instances` lays over the image, without names, as `label_layer` is of labels.
    """
    opacity = np.where(instance_map == 0, 0, 255 * alpha)[..., None]
    colours = _instance_colours(int(instance_map.max(initial=0)))[instance_map]
    layer = np.concatenate([colours * (opacity > 0), opacity], axis=2)
    layer[_contour(instance_map)] = WHITE
    return _to_uint8(layer)


def colour_labels(label_map: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Return the label map (H, W) alone, in `palette`'s colours.

    palette: uint8 (n, 3). Ignored pixels (255) are hatched.

    Raises ValueError for a label that the palette lacks.
    """
    return _to_uint8(_flat_colours(label_map, palette))


def contact_sheet(rows: Sequence[Sequence[np.ndarray | None]], headings: Sequence[str],
                  row_titles: Sequence[str] | None = None, cell: tuple[int, int] = (190, 250),
                  captions: Sequence[Sequence[str | None]] | None = None, title: str = '',
                  text_size: int = 15, margin: int = 24, gap: int = 10,
                  heading_inks: Sequence[tuple[int, int, int] | None] = ()) -> np.ndarray:
    """Return rows of images on one light sheet.

    A heading stands over each column, a title left of each row, captions below cells.

    `rows`: images, uint8 (H, W, 3) of any size, each fitted into `cell` (height, width; pixels)
    with its aspect kept; None, and what a row lacks at its end, is an empty cell. `row_titles`: a
    text a row; `captions`: a list of texts a row. Texts are wrapped to their place. `margin` around
    the sheet and `gap` between cells are in pixels. `heading_inks`: the colour of each heading,
    where it has one of its own. Raises ValueError for a row longer than `headings`, or another
    number of titles or captions than of rows.
    """
    _check_sheet(rows, headings, row_titles, captions)
    cell_h, cell_w = cell
    side = _longest_line(row_titles or [], text_size, cell_w)
    captions = captions or [[]] * len(rows)
    row_titles = row_titles or [''] * len(rows)

    inks = _filled(heading_inks, len(headings), None)
    lines = [[_blank(1, side)] + [_text(heading, cell_w, text_size, ink or INK)
                                  for heading, ink in zip(headings, inks, strict=True)]]
    for row, row_title, row_captions in zip(rows, row_titles, captions, strict=True):
        row_title = _middle(_text(row_title, side, text_size, INK, centred=False), cell_h)
        cells = [_fitted(image, cell) for image in _filled(row, len(headings), None)]
        texts = [_text(text or '', cell_w, text_size - 2, FAINT_INK)
                 for text in _filled(row_captions, len(headings), '')]
        lines.append([row_title] + [_below([image, text], gap // 2)
                                    for image, text in zip(cells, texts, strict=True)])
    sheet = _below([_beside(line if side else line[1:], gap) for line in lines], gap)
    heading = _text(title, sheet.shape[1], text_size + 6, INK, centred=False)
    return _framed(_below([heading, sheet], gap), margin)


def save(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write `image`, uint8 (H, W, 3 or 4), atomically.

    As a PNG, or as a JPEG where `path` ends in .jpg. Raises UserError when the disk refuses.
    """
    kind = ({'format': 'JPEG', 'quality': 88} if os.fspath(path).endswith('.jpg')
            else {'format': 'PNG'})
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, **kind)


def drawable(text: str, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """Return a text and a font that can draw it.

    Pillow's own, else matplotlib's DejaVu Sans, else the first one of this machine that lacks
    fewest of its characters. What no font has, and writing that needs shaping where Pillow cannot
    shape, is written as Python would, \\u732b, which the log tells of once.
    """
    text = unicodedata.normalize('NFC', text)
    others = ''.join(sorted({character for character in text if not character.isascii()}))
    font, lacking = _font_for(others, size)
    return ''.join(_escaped(character) if character in lacking else character
                   for character in text), font


@functools.lru_cache(maxsize=1024)
def _font_for(characters: str, size: int) -> tuple[ImageFont.FreeTypeFont, str]:
    """The font that draws these characters, and those that it lacks."""
    unshaped = ''.join(filter(_needs_shaping, characters)) if not features.check('raqm') else ''
    drawn = [character for character in characters if character not in unshaped]
    best, least = ImageFont.load_default(size), [character for character in drawn
                                                 if not _default_has(character)]
    for path in _font_files() if least else ():
        has = _characters_of(path)
        lacking = [character for character in drawn if ord(character) not in has]
        if len(lacking) < len(least):
            try:
                best, least = ImageFont.truetype(path, size), lacking
            except OSError:  # pictures of one size, as in fonts of emoji
                continue
        if not least:
            break
    _tell_of(frozenset(unshaped + ''.join(least)) - _told)
    return best, unshaped + ''.join(least)


_told: set[str] = set()  # characters that no font has, and that the log has told of


def _tell_of(lacking: frozenset[str]) -> None:
    if lacking:
        _told.update(lacking)
        log.warning('no font here draws %s; install one with these characters (Debian: '
                    'fonts-noto-cjk, fonts-noto-core)',
                    ', '.join(f'{character if character.isprintable() else "a character"} (written '
                              f'as {_escaped(character)})'
                              for character in sorted(lacking)))


def _escaped(character: str) -> str:
    return character.encode('unicode_escape').decode('ascii')


def _needs_shaping(character: str) -> bool:
    """Of scripts from right to left, and from Devanagari to Khmer, whose letters join or move."""
    return unicodedata.bidirectional(character) in ('R', 'AL',
                                                    'AN') or '\u0900' <= character <= '\u109f' \
        or '\u1780' <= character <= '\u17ff'


@functools.cache
def _default_has(character: str) -> bool:
    if '\ud800' <= character <= '\udfff':  # of a file name that is not UTF-8
        return False
    font = ImageFont.load_default(16)
    # the box of a missing letter
    return bytes(font.getmask(character)) != bytes(font.getmask('\uffff'))


@functools.cache
def _font_files() -> list[str]:
    """matplotlib's DejaVu Sans, then the upright fonts of normal weight of this machine, sorted by
    name.
    """
    # here, because it looks for fonts for seconds, once on a machine
    from matplotlib import font_manager

    first = font_manager.findfont('DejaVu Sans')
    fonts = {(font.name, font.fname) for font in font_manager.fontManager.ttflist
             if font.style == 'normal' and font.weight in (400, 'normal', 'regular', 'book')
             and not font.name.startswith(NO_TEXT)}
    return [first, *(path for _, path in sorted(fonts) if path != first)]


@functools.cache
def _characters_of(path: str) -> frozenset[int]:
    try:
        return frozenset(ft2font.FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


def _check_shapes(image: np.ndarray, plane: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.shape[:2] != plane.shape:
        raise ValueError(f'an image (H, W, 3) and a plane (H, W) are needed, not {image.shape} and '
                         f'{plane.shape}')


def _check_sheet(rows: Sequence, headings: Sequence[str], row_titles: Sequence[str] | None,
                 captions: Sequence[Sequence] | None) -> None:
    for name, given in (('row_titles', row_titles), ('captions', captions)):
        if given and len(given) != len(rows):
            raise ValueError(f'{len(given)} {name} for {len(rows)} rows')
    longest = max((len(row) for row in [*rows, *(captions or [])]), default=0)
    if longest > len(headings):
        raise ValueError(f'a row of {longest} under {len(headings)} headings')


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _grey(image: np.ndarray) -> np.ndarray:
    """Luminance (H, W, 1) of `image` (H, W, 3), as for television."""
    return (image @ np.array([0.299, 0.587, 0.114], dtype=np.float32))[..., None]


def _flat_colours(label_map: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """float32 (H, W, 3): each pixel's palette colour; diagonal lines where it is ignored."""
    ignored = label_map == IGNORE
    labels = np.where(ignored, 0, label_map)
    if labels.size and (labels.max() >= len(palette) or labels.min() < 0):
        raise ValueError(f'labels {labels.min()}..{labels.max()} do not fit a palette of '
                         f'{len(palette)} colours')
    y, x = np.indices(label_map.shape)
    hatch = np.where((x + y) % HATCH_PERIOD < HATCH_PERIOD // 2, HATCH_LIGHT, HATCH_DARK)[..., None]
    return np.where(ignored[..., None], hatch, palette[labels]).astype(np.float32)


def _instance_colours(number: int) -> np.ndarray:
    """float (number + 1, 3), row 0 unused: hues by the golden ratio, so that neighbours in number
    are far apart.
    """
    hues = np.arange(number + 1) * 0.618034 % 1
    return matplotlib.colors.hsv_to_rgb(np.stack([hues, np.full_like(hues, 0.8),
                                                  np.full_like(hues, 0.95)], 1)) * 255


def _contour(label_map: np.ndarray) -> np.ndarray:
    """bool (H, W): pixels whose right or lower neighbour has another label."""
    contour = np.zeros(label_map.shape, dtype=bool)
    contour[:, :-1] |= label_map[:, :-1] != label_map[:, 1:]
    contour[:-1] |= label_map[:-1] != label_map[1:]
    return contour


def _fitted(image: np.ndarray | None, cell: tuple[int, int]) -> np.ndarray:
    """The image in the middle of a cell (height, width), as large as fits; a faint field for None.
    """
    if image is None:
        return _blank(*cell, colour=EMPTY_CELL)
    fitted = imutils.rescale(image, min(cell[0] / image.shape[0], cell[1] / image.shape[1]))
    height, width = fitted.shape[:2]
    top, left = (cell[0] - height) // 2, (cell[1] - width) // 2
    canvas = _blank(*cell)
    canvas[top:top + height, left:left + width] = fitted
    return canvas


def _text(text: str, width: int, size: int, ink: tuple[int, int, int],
          centred: bool = True) -> np.ndarray:
    """The text wrapped to `width` pixels, on paper: (lines * line height, width, 3), without height
    if it is empty.
    """
    size = max(size, 8)
    text, font = drawable(text, size)
    line_height = round(size * 1.3)
    lines = _wrapped(text, width, font)
    if not lines or not width:
        return _blank(0, width)
    block = Image.new('RGB', (width, line_height * len(lines)), PAPER)
    draw = ImageDraw.Draw(block)
    for index, line in enumerate(lines):
        x, anchor = (width / 2, 'ma') if centred else (0, 'la')
        draw.text((x, index * line_height), line, fill=ink, font=font, anchor=anchor)
    return np.array(block)


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """Lines not wider than `width`, broken between words, and inside a word that is too long for a
    line.
    """
    lines = []
    for paragraph in text.splitlines():
        line = ''
        for word in paragraph.split():
            if line and font.getlength(f'{line} {word}') <= width:
                line = f'{line} {word}'
                continue
            lines += [line] if line else []
            while font.getlength(word) > width and len(word) > 1:
                fits = max((n for n in range(1, len(word)) if font.getlength(word[:n]) <= width),
                           default=1)
                lines.append(word[:fits])
                word = word[fits:]
            line = word
        lines += [line] if line else []
    return lines


def _longest_line(texts: Sequence[str], size: int, limit: int) -> int:
    """Pixels that the longest line of `texts` takes, at most `limit`."""
    lines = [drawable(line, max(size, 8)) for text in texts for line in text.splitlines()]
    return min(max((int(np.ceil(font.getlength(line))) for line, font in lines), default=0), limit)


def _filled(items: Sequence, length: int, filling: object) -> list:
    return [*items, *[filling] * (length - len(items))]


def _blank(height: int, width: int, colour: tuple[int, int, int] = PAPER) -> np.ndarray:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def _middle(block: np.ndarray, height: int) -> np.ndarray:
    """The block pushed down to the middle of `height`, where it is not taller."""
    return np.concatenate([_blank(max(height - len(block), 0) // 2, block.shape[1]), block])


def _below(blocks: Sequence[np.ndarray], gap: int) -> np.ndarray:
    """Blocks one below the other, flush left; those without height take no gap."""
    blocks = [block for block in blocks if len(block)]
    width = max((block.shape[1] for block in blocks), default=0)
    sheet = _blank(sum(map(len, blocks)) + gap * max(len(blocks) - 1, 0), width)
    y = 0
    for block in blocks:
        sheet[y:y + len(block), :block.shape[1]] = block
        y += len(block) + gap
    return sheet


def _beside(blocks: Sequence[np.ndarray], gap: int) -> np.ndarray:
    """Blocks side by side, flush at the top."""
    turned = [block.transpose(1, 0, 2) for block in blocks]
    return _below(turned, gap).transpose(1, 0, 2)


def _framed(block: np.ndarray, margin: int) -> np.ndarray:
    framed = _blank(block.shape[0] + 2 * margin, block.shape[1] + 2 * margin)
    framed[margin:margin + block.shape[0], margin:margin + block.shape[1]] = block
    return framed
