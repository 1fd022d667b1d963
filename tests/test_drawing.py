"""Pictures: colours and places worked out by hand."""
import unicodedata

import numpy as np
import pytest
from PIL import Image, ImageFont

from misc.draw import drawing
from misc.pyutils import UserError

PALETTE = np.array([(0, 0, 0), (200, 0, 0), (0, 100, 0)], np.uint8)
GREYS = {drawing.HATCH_LIGHT, drawing.HATCH_DARK}


def flat(colour: tuple, height: int = 6, width: int = 8) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def cell_at(sheet: np.ndarray, colour: tuple) -> tuple[int, int, int, int]:
    """Top, left, height, width of the pixels of that colour."""
    y, x = np.nonzero((sheet == colour).all(axis=2))
    return y.min(), x.min(), y.max() - y.min() + 1, x.max() - x.min() + 1


def test_no_activation_shows_the_grey_image():
    picture = drawing.overlay_activation(flat((200, 100, 50)), np.zeros((6, 8)))
    assert picture.dtype == np.uint8
    assert (picture == 124).all()  # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2


def test_full_activation_has_the_colour_of_the_map_at_alpha():
    activation = np.zeros((6, 8), np.float32)
    activation[2, 3] = 1
    picture = drawing.overlay_activation(flat((100, 100, 100)), activation, alpha=0.5)
    # half of 100, half of plasma's (240, 249, 33)
    assert np.abs(picture[2, 3].astype(int) - (170, 174, 66)).max() <= 1
    assert (np.delete(picture.reshape(-1, 3), 2 * 8 + 3, axis=0) == 100).all()


def test_activation_is_cut_to_its_range_and_nan_is_none():
    image = flat((10, 200, 90), 1, 4)
    picture = drawing.overlay_activation(image, np.array([[-3, np.nan, 7, 1]]))
    assert (picture[0, 0] == picture[0, 1]).all() and len(set(picture[0, 0])) == 1
    assert (picture[0, 2] == picture[0, 3]).all() and len(set(picture[0, 2])) > 1


def test_labels_blend_their_palette_colour_and_leave_the_background():
    label_map = np.zeros((6, 8), np.uint8)
    label_map[:, 4:] = 2
    picture = drawing.overlay_labels(flat((100, 100, 100)), label_map, PALETTE, alpha=0.5)
    assert (picture[:, :3] == 100).all()
    assert (picture[:, 3] == 255).all()  # the contour
    assert (picture[:, 4:] == (50, 100, 50)).all()


def test_instances_have_colours_of_their_own():
    instance_map = np.zeros((20, 40), int)
    # 255 is an instance like any other
    instance_map[2:18, 2:12], instance_map[2:18, 12:30] = 2, 255
    image = flat((100, 100, 100), 20, 40)
    picture = drawing.overlay_instances(image, instance_map, alpha=0.5)
    assert picture.dtype == np.uint8
    assert (picture[:, 32:] == 100).all()
    assert (picture[5, 11] == 255).all()  # the contour, where two touch
    one, other = picture[5, 5], picture[5, 20]
    assert np.abs(one.astype(int) - other).max() > 50
    for colour in (one, other):
        assert (picture == colour).all(2).sum() > 100
    assert (image == 100).all()


def test_names_are_written_inside_their_instances():
    instance_map = np.zeros((60, 200), int)
    instance_map[5:55, 5:95], instance_map[10:50, 150:200] = 2, 1
    plain = drawing.overlay_instances(flat((0, 0, 0), 60, 200), instance_map)
    named = drawing.overlay_instances(flat((0, 0, 0), 60, 200), instance_map, ['cat', 'bottle'])
    y, x = np.nonzero((plain != named).any(2))
    assert y.min() > 10 and y.max() < 50
    first, second = x[x > 120], x[x < 120]
    assert second.min() > 5 and second.max() < 95
    assert first.min() > 150 and first.max() < 200  # 'bottle' is pushed away from the side
    assert len(np.unique(first)) < len(np.unique(second))


def test_instances_without_a_name_are_refused():
    with pytest.raises(ValueError, match='1 names for 2 instances'):
        drawing.overlay_instances(flat((0, 0, 0), 1, 2), np.array([[1, 2]]), ['a'])
    assert (drawing.overlay_instances(flat((7, 7, 7)), np.zeros((6, 8), int), []) == 7).all()


def test_ignored_pixels_are_hatched_along_diagonals():
    label_map = np.full((24, 24), 255, np.uint8)
    picture = drawing.colour_labels(label_map, PALETTE)
    assert set(np.unique(picture)) == GREYS
    assert (picture[1:, :-1] == picture[:-1, 1:]).all()
    assert (picture[0, 0] != picture[0, drawing.HATCH_PERIOD // 2]).all()
    assert (picture[:, drawing.HATCH_PERIOD:] == picture[:, :-drawing.HATCH_PERIOD]).all()


def test_ignored_pixels_are_hatched_over_the_image_too():
    label_map = np.full((16, 16), 255, np.uint8)
    picture = drawing.overlay_labels(flat((100, 100, 100), 16, 16), label_map, PALETTE, alpha=0.5)
    assert set(np.unique(picture)) == {95, 175}  # halfway from 100 to 90 and to 250


def test_colour_labels_alone():
    label_map = np.array([[0, 1], [2, 255]], np.uint8)
    picture = drawing.colour_labels(label_map, PALETTE)
    assert picture.dtype == np.uint8
    assert picture[0].tolist() == [[0, 0, 0], [200, 0, 0]]
    assert picture[1, 0].tolist() == [0, 100, 0]
    assert picture[1, 1, 0] in GREYS


def test_inputs_are_left_alone():
    image, label_map = flat((9, 8, 7)), np.full((6, 8), 255, np.uint8)
    activation = np.full((6, 8), 2.0)
    drawing.overlay_labels(image, label_map, PALETTE)
    drawing.overlay_activation(image, activation)
    assert (image == (9, 8, 7)).all() and (label_map == 255).all() and (activation == 2).all()


@pytest.mark.parametrize('label_map', [np.full((6, 8), 3, np.uint8), np.full((6, 8), -1)])
def test_labels_without_colour_are_refused(label_map):
    with pytest.raises(ValueError, match='palette of 3'):
        drawing.colour_labels(label_map, PALETTE)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r'\(6, 8, 3\) and \(8, 6\)'):
        drawing.overlay_activation(flat((0, 0, 0)), np.zeros((8, 6)))
    with pytest.raises(ValueError, match='are needed'):
        drawing.overlay_labels(np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint8), PALETTE)


def test_sheet_fits_images_into_cells_with_their_aspect():
    wide, tall = flat((255, 0, 0), 10, 40), flat((0, 0, 255), 90, 30)
    sheet = drawing.contact_sheet([[wide, tall]], ['', ''], cell=(60, 80), margin=5, gap=4)
    assert sheet.shape == (60 + 2 * 5, 2 * 80 + 4 + 2 * 5, 3) and sheet.dtype == np.uint8
    assert cell_at(sheet, (255, 0, 0)) == (5 + 20, 5, 20, 80)
    assert cell_at(sheet, (0, 0, 255)) == (5, 5 + 80 + 4 + 30, 60, 20)


def test_sheet_has_empty_cells_for_none_and_for_short_rows():
    image = flat((255, 0, 0))
    sheet = drawing.contact_sheet([[None, image], [image]], ['', ''], cell=(6, 8), margin=3, gap=2)
    empty = (sheet == drawing.EMPTY_CELL).all(axis=2)
    assert empty.sum() == 2 * 6 * 8
    assert empty[3:9, 3:11].all() and empty[11:17, 13:21].all()


def test_sheet_writes_headings_titles_and_captions_beside_the_images():
    rows = [[flat((255, 0, 0), 60, 80)], [flat((0, 0, 255), 60, 80)]]
    plain = drawing.contact_sheet(rows, [''], cell=(60, 80))
    sheet = drawing.contact_sheet(rows, ['head'], ['one', 'two'], cell=(60, 80),
                                  captions=[['max 1.00'], [None]], title='Seeds')
    red, blue = cell_at(sheet, (255, 0, 0)), cell_at(sheet, (0, 0, 255))
    assert red[2:] == blue[2:] == (60, 80)  # nothing is written on an image
    assert sheet.shape[0] > plain.shape[0] and sheet.shape[1] > plain.shape[1]
    dark = sheet.max(axis=2) < 150
    assert dark[:red[0], red[1]:red[1] + 80].any(), 'heading'
    assert dark[red[0]:red[0] + 60, :red[1]].any() and dark[blue[0]:blue[0] + 60,
                                                            :red[1]].any(), 'row titles'
    assert dark[red[0] + 60:blue[0], red[1]:red[1] + 80].any(), 'caption'
    assert not dark[blue[0] + 60:].any(), 'the caption that is None'


def test_long_texts_are_wrapped_within_their_width():
    font = ImageFont.load_default(15)
    lines = drawing._wrapped('a few words, and oneverylongwordthatfitsnowhere\nnext', 60, font)
    assert ''.join(lines).replace(' ', '') == 'afewwords,andoneverylongwordthatfitsnowherenext'
    assert len(lines) > 3 and max(map(font.getlength, lines)) <= 60
    assert lines[-1] == 'next'


@pytest.mark.parametrize(('rows', 'more', 'message'), [
    ([[None, None]], {}, 'a row of 2 under 1 headings'),
    ([[None]], {'captions': [['a', 'b']]}, 'a row of 2 under 1 headings'),
    ([[None]], {'captions': [['a'], ['b']]}, '2 captions for 1 rows'),
    ([[None]], {'row_titles': ['a', 'b']}, '2 row_titles for 1 rows')])
def test_sheets_that_do_not_add_up_are_refused(rows, more, message):
    with pytest.raises(ValueError, match=message):
        drawing.contact_sheet(rows, ['heading'], **more)


def test_save_writes_a_png_and_nothing_else(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    drawing.save(tmp_path / 'new' / 'picture.png', image)
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['picture.png']
    with Image.open(tmp_path / 'new' / 'picture.png') as picture:
        assert picture.format == 'PNG'
        assert (np.asarray(picture) == image).all()


def test_save_where_it_cannot_says_so(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot write .*picture.png'):
        drawing.save(tmp_path / 'file' / 'picture.png', flat((0, 0, 0)))


# names

@pytest.mark.parametrize('text', ['dog', 'V\u00f6gel', '\u043a\u043e\u0442', 'caf\u00e9 \u03b1',
                                  '\u0130stanbul \u0141\u00f3d\u017a'])
def test_names_are_drawn_as_they_are(text, caplog):
    for form in ('NFC', 'NFD'):
        drawn, font = drawing.drawable(unicodedata.normalize(form, text), 20)
        assert drawn == text
        box = bytes(font.getmask('\uffff'))
        assert all(bytes(font.getmask(character)) != box for character in text)
    assert not caplog.records


def test_what_no_font_has_is_told_once_and_told_apart(monkeypatch, caplog):
    monkeypatch.setattr(drawing.log, 'propagate', True)
    monkeypatch.setattr(drawing, '_told', set())
    drawing._font_for.cache_clear()
    for text, expected in (('cat \ue123', 'cat \\ue123'), ('\ue123\ue124', '\\ue123\\ue124'),
                           ('a\udcff.jpg', 'a\\udcff.jpg')):
        drawn, _ = drawing.drawable(text, 20)
        assert drawn == expected
    # whatever handlers other tests left
    told = list(dict.fromkeys(record.getMessage() for record in caplog.records))
    assert [message.count('written as') for message in told] == [1, 1, 1]
    assert drawing.contact_sheet([[np.zeros((9, 9, 3), np.uint8)]], ['\ue123'],
                                 title='\udcff').dtype == np.uint8
    assert len({record.getMessage() for record in caplog.records}) == 3


def test_a_font_of_this_machine_draws_what_the_others_lack(monkeypatch):
    """The one that lacks fewest; one that cannot be drawn with is passed over."""
    deja = drawing._font_files()[0]
    has = {'broken.ttf': {0x732b, 0x43a}, 'latin.ttf': {0x43a}, deja: {0x732b}}
    monkeypatch.setattr(drawing, '_font_files', lambda: list(has))
    monkeypatch.setattr(drawing, '_characters_of', lambda path: has[path])
    drawing._font_for.cache_clear()
    drawn, font = drawing.drawable('\u732b', 20)
    assert drawn == '\u732b'
    assert font.path == deja
    drawing._font_for.cache_clear()


def test_writing_that_needs_shaping_is_told_where_there_is_none(monkeypatch, caplog):
    monkeypatch.setattr(drawing.features, 'check', lambda name: False)
    monkeypatch.setattr(drawing, '_told', set())
    drawing._font_for.cache_clear()
    assert drawing.drawable('\u0642\u0637 cat', 20)[0] == '\\u0642\\u0637 cat'
    drawing._font_for.cache_clear()
