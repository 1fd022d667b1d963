"""The report in a real browser, opened from disk. AMN_NO_BROWSER=1 leaves these tests out."""
import collections
import dataclasses
import os
import re
import shutil
import urllib.parse

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from misc.contract.settings import Report
from misc.draw import colours
from misc.files import activations, label_maps
from misc.method import seeds
from misc.pyutils import unlock, write_json
from misc.score import scores
from step import report
from tests.test_plots import METHODS
from tests.test_report import (
    HOSTILE,
    IDS,
    THRESHOLDS,
    Source,
    damaged,
    draw,
    other_run,
    report_on,
    the_job,
)

pytestmark = pytest.mark.skipif(os.environ.get('AMN_NO_BROWSER', '') != '',
                                reason='AMN_NO_BROWSER: tests in a browser')
MANY = 2000


@pytest.fixture(scope='module')
def browser():
    """Chromium without a window."""
    programs = [shutil.which(name) for name in ('chromium', 'chromedriver')]
    assert all(
        programs), 'no chromium and chromedriver: bash script/need_browser.sh, or AMN_NO_BROWSER=1'
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage',
                 '--window-size=1400,900'):
        options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp('browser %23 #?')  # a path may need encoding, too
    draw(folder)
    report_on(folder)
    unlock()
    return folder


@pytest.fixture
def opened(browser, made):
    """The page, opened anew from disk; at the end, nothing was complained of and no name was run.
    """
    browser.get((made / 'report' / 'index.html').as_uri())
    browser.get_log('browser')
    yield browser
    assert [entry for entry in browser.get_log('browser') if entry['level'] == 'SEVERE'] == []
    assert browser.execute_script('return window.hacked') is None


def until(browser, condition):
    return WebDriverWait(browser, 20, poll_frequency=0.05).until(lambda _: condition())


def find(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def card(browser, image_id, canvases=2):
    """A card in sight, its canvases drawn."""
    found = next(card for card in browser.find_elements(By.CSS_SELECTOR, '.card')
                 if card.find_element(By.CSS_SELECTOR, '.id').text == image_id)
    browser.execute_script('arguments[0].scrollIntoView({block: "center"})', found)
    until(browser, lambda: len(found.find_elements(By.CSS_SELECTOR, 'canvas[aria-label]'))
          == canvases)
    return found


def ids(browser):
    return [element.text for element in browser.find_elements(By.CSS_SELECTOR, '.card .id')]


def pixels(browser, root, name):
    """RGBA (H, W, 4) of a method's canvas."""
    canvas = root.find_element(By.CSS_SELECTOR, f'canvas[data-method={name}]')
    width, height, values = browser.execute_script(
        'const c = arguments[0]; return [c.width, c.height, '
        '[...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]]', canvas)
    return np.array(values).reshape(height, width, 4)


def move(browser, slider, position):
    """By keys, as a person without a mouse does."""
    slider.send_keys(Keys.HOME, *[Keys.PAGE_UP] * (position // 10),
                     *[Keys.ARROW_RIGHT] * (position % 10))
    assert int(slider.get_property('value')) == position
    browser.execute_async_script('requestAnimationFrame(() => requestAnimationFrame(arguments[0]))')


def told(root, name):
    """The score in a caption."""
    return root.find_element(By.CSS_SELECTOR, f'[data-caption={name}] b').text


def evaluators(folder, image_ids, name, threshold, data=None):
    """As it is printed. data: where the images lie, if not in `folder`."""
    def load(image_id):
        activation = activations.load(folder / name, image_id)
        return activation.keys, activation.high_res
    result = scores.score_activations(Source(data or folder), image_ids, load, threshold, 0)
    return f'{100 * result.at(threshold).miou:.1f}'


def test_the_slider_moves_masks_and_scores(opened, made):
    first = card(opened, IDS[0])
    readout = find(opened, '#gallery .readout')
    assert 'at 0.15' in readout.text  # each at its own threshold
    assert told(first, 'cam') == evaluators(made, [IDS[0]], 'cam', THRESHOLDS['cam'])
    slider = find(opened, '#gallery .slider')
    before = pixels(opened, first, 'cam')
    for position in (30, 31, 7, 100):
        move(opened, slider, position)
        for name in THRESHOLDS:
            assert told(first, name) == evaluators(made, [IDS[0]], name, position / 100)
            of_all = readout.find_element(By.CSS_SELECTOR, f'[data-score={name}]').text
            assert of_all == evaluators(made, IDS, name, position / 100)
            drawn = pixels(opened, first, name)
            activation = activations.load(made / name, IDS[0])
            above = activation.high_res.max(0) > np.float32(position / 100)
            white = (drawn == 255).all(2)
            assert ((drawn[..., 3] > 0) == above)[~white].all()  # contours lie on both sides
            strongest = activation.keys[activation.high_res.argmax(0)] + 1
            colours = Source.palette[np.where(above, strongest, 0)]
            inside = above & ~white
            # a canvas stores colour times opacity
            assert np.abs(drawn[..., :3] - colours)[inside].max(initial=0) <= 2
    assert (pixels(opened, first, 'cam') != before).any()
    find(opened, '#own').click()
    assert told(first, 'cam') == evaluators(made, [IDS[0]], 'cam', THRESHOLDS['cam'])
    find(opened, '[data-view=activations]').click()
    until(opened, lambda: 'activation' in first.find_element(By.CSS_SELECTOR,
                                                             'canvas').get_attribute('aria-label'))


def test_filters_and_orders(opened, made):
    assert sorted(ids(opened)) == sorted(IDS)
    of_image = {image_id: evaluators(made, [image_id], 'amn_cam', 0.25) for image_id in IDS
                if image_id not in ('one_pixel', 'ignored')}
    shown = [image_id for image_id in ids(opened) if image_id in of_image]
    assert [of_image[image_id] for image_id in shown] == sorted(of_image.values(), key=float,
                                                                reverse=True)
    find(opened, '#direction').click()
    assert ids(opened)[-1] == shown[0]
    Select(find(opened, '#sort')).select_by_visible_text('place in the list')
    find(opened, '#direction').click()
    assert ids(opened) == IDS
    search = find(opened, '#search')
    search.send_keys('C#D?')
    assert ids(opened) == ['a b%20c#d?e.f']
    search.send_keys('nowhere')
    assert ids(opened) == []
    find(opened, '#clear').click()
    assert ids(opened) == IDS
    Select(find(opened, '#class')).select_by_index(2)
    label = int(find(opened, '#class').get_property('value'))
    with_class = [image_id for image_id in IDS
                  if label in set(np.unique(label_maps.load(Source(made).mask_path(image_id))))
                  | set(activations.load(made / 'cam', image_id).keys + 1)]
    assert ids(opened) == with_class
    assert find(opened, '#found').text == f'{len(with_class)} of {len(IDS)}'


def test_the_order_follows_the_slider(opened, made):
    Select(find(opened, '#sort')).select_by_visible_text('CAM at this threshold')
    slider = find(opened, '#gallery .slider')
    slider.send_keys(Keys.HOME)
    move(opened, slider, 45)
    of_image = {image_id: evaluators(made, [image_id], 'cam', 0.45) for image_id in IDS
                if image_id not in ('one_pixel', 'ignored')}
    shown = [of_image[image_id] for image_id in ids(opened) if image_id in of_image]
    assert shown == sorted(of_image.values(), key=float, reverse=True)


def test_one_image_large_by_keys(opened, made):
    Select(find(opened, '#sort')).select_by_visible_text('place in the list')
    button = card(opened, IDS[1]).find_element(By.CSS_SELECTOR, '.id')
    button.send_keys(Keys.ENTER)
    viewer, title = find(opened, '#viewer'), find(opened, '#viewer-title')
    assert title.text == HOSTILE
    until(opened, lambda: len(viewer.find_elements(By.CSS_SELECTOR, 'canvas[aria-label]')) == 2)
    hw = np.array(Image.open(Source(made).image_path(HOSTILE))).shape[:2]
    assert pixels(opened, viewer, 'amn_cam').shape[:2] == hw
    slider = viewer.find_element(By.CSS_SELECTOR, '.slider')
    move(opened, slider, 62)
    assert title.text == HOSTILE  # the slider's arrows are its own
    assert told(viewer, 'amn_cam') == evaluators(made, [HOSTILE], 'amn_cam', 0.62)
    find(opened, '#close').send_keys(Keys.ARROW_RIGHT)
    assert title.text == IDS[2]
    # no further than the first
    find(opened, '#close').send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert title.text == IDS[0]
    assert find(opened, '#place').text == f'1 of {len(IDS)}'
    until(opened, lambda: len(viewer.find_elements(By.CSS_SELECTOR, 'canvas[aria-label]')) == 2)
    frame = viewer.find_element(By.CSS_SELECTOR, '.picture')
    ActionChains(opened).move_to_element(frame).perform()
    until(opened, lambda: find(opened, '#pixel').text.startswith('x '))
    opened.switch_to.active_element.send_keys(Keys.ESCAPE)
    until(opened, lambda: not viewer.is_displayed())
    assert opened.switch_to.active_element.text == IDS[0]
    card(opened, IDS[2]).find_element(By.CSS_SELECTOR, '.picture').click()
    assert title.text == IDS[2]


def test_pictures_load_and_have_texts(opened):
    for image_id in IDS:
        shown = card(opened, image_id)
        images = shown.find_elements(By.CSS_SELECTOR, 'img')
        until(opened, lambda images=images: all(opened.execute_script(
            'return arguments[0].complete && arguments[0].naturalWidth > 0', image)
                                                for image in images))
        texts = [image.get_attribute('alt') for image in images]
        # the photograph and four maps; under a canvas it is decoration
        assert sum(image_id in text for text in texts) == 5
        assert set(texts) >= {'', f'Photograph {image_id}'}


def test_table_of_classes(opened):
    def column(number):
        return [row.find_elements(By.CSS_SELECTOR, 'th, td')[number].text
                for row in opened.find_elements(By.CSS_SELECTOR, '#classes tbody tr')
                if row.is_displayed()]

    names = column(0)
    assert names == ['background', *Source.classes]
    heads = opened.find_elements(By.CSS_SELECTOR, '#classes thead button')
    heads[2].click()
    assert column(2) == sorted(column(2), key=float, reverse=True)
    assert find(opened, '#classes th[aria-sort]').get_attribute('aria-sort') == 'descending'
    heads[2].click()
    assert column(2) == sorted(column(2), key=float)
    heads[0].click()
    assert column(0) == names
    find(opened, '#class-search').send_keys('DOG')
    assert column(0) == [Source.classes[2]]


def test_light_and_dark(opened):
    def colour():
        return opened.execute_script('return getComputedStyle(document.body).backgroundColor')

    before = colour()
    find(opened, '#theme').click()
    assert colour() != before

    def differs_when_opened_again():
        opened.refresh()
        return colour() != before

    # a browser stores it behind: what a refresh at once has lost is chosen again
    def kept():
        if colour() == before:
            find(opened, '#theme').click()
        return differs_when_opened_again()

    until(opened, kept)
    find(opened, '#theme').click()
    assert colour() == before
    opened.execute_cdp_cmd('Emulation.setEmulatedMedia',
                           {'features': [{'name': 'prefers-color-scheme', 'value': 'dark'}]})

    def follows_the_machine():
        opened.execute_script('localStorage.clear()')
        return differs_when_opened_again()

    until(opened, follows_the_machine)
    opened.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': []})


def test_a_narrow_screen_does_not_scroll_sideways(opened):
    metrics = {'width': 360, 'height': 780, 'deviceScaleFactor': 1, 'mobile': True}
    opened.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
    card(opened, IDS[0])
    assert opened.execute_script('return document.documentElement.scrollWidth') == 360
    card(opened, IDS[0]).find_element(By.CSS_SELECTOR, '.id').send_keys(Keys.ENTER)
    assert opened.execute_script('return arguments[0].scrollWidth', find(opened, '#viewer')) <= 360
    opened.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


def test_a_missing_data_file_is_told_of(browser, made, tmp_path):
    folder = shutil.copytree(made / 'report', tmp_path / 'report')
    (folder / 'data' / '0.js').unlink()
    browser.get((folder / 'index.html').as_uri())
    search = find(browser, '#search')
    search.send_keys(IDS[0])
    until(browser, lambda: 'data/0.js is missing' in find(browser, '.card').text)


@pytest.mark.parametrize('whole', [True, False])
def test_data_that_come_late_do_not_touch_the_next_image(browser, made, tmp_path, whole):
    folder = shutil.copytree(made / 'report', tmp_path / 'report')
    late = folder / 'data' / '0.js'
    late.write_text('window.late = () => { ' + (late.read_text() if whole
                                                else 'amnReport.arrived(0, "!");') + ' };')
    browser.get((folder / 'index.html').as_uri())
    Select(find(browser, '#sort')).select_by_visible_text('place in the list')
    assert ids(browser) == IDS
    until(browser, lambda: browser.execute_script('return window.late !== undefined'))
    find(browser, '.card .id').send_keys(Keys.ENTER)
    viewer = find(browser, '#viewer')
    find(browser, '#close').send_keys(Keys.ARROW_RIGHT)
    until(browser, lambda: len(viewer.find_elements(By.CSS_SELECTOR, 'canvas[aria-label]')) == 2)
    before = pixels(browser, viewer, 'cam')
    browser.execute_script('window.late()')
    until(browser, lambda: browser.execute_script(
        'return document.querySelector(".card").querySelectorAll(arguments[0]).length === 2',
        'canvas[aria-label]' if whole else '.picture .missing'))
    told = [canvas.get_attribute('aria-label')
            for canvas in viewer.find_elements(By.CSS_SELECTOR, 'canvas[aria-label]')]
    assert len(told) == 2
    assert all(HOSTILE in text for text in told)
    assert (pixels(browser, viewer, 'cam') == before).all()


def test_what_serves_nothing_is_hidden(browser, made, tmp_path):
    """All images: no group to choose by. Seeds alone: no threshold to move."""
    browser.get((made / 'report' / 'index.html').as_uri())
    assert find(browser, '#gallery .threshold').is_displayed()
    assert not find(browser, '#group-field').is_displayed()
    report_on(made, files={'cam_out_dir': str(tmp_path / 'none'),
                           'amn_cam_out_dir': str(tmp_path / 'none'),
                           'report_out_dir': str(tmp_path / 'report')})
    unlock()
    browser.get((tmp_path / 'report' / 'index.html').as_uri())
    assert not find(browser, '#gallery .slider').is_displayed()
    assert not find(browser, '[data-view=activations]').is_displayed()
    assert find(browser, '[data-view=errors]').is_displayed()  # of the pseudo-masks


def test_two_thousand_images(browser, made, tmp_path, monkeypatch):
    """The same few files behind many ids: only the cards near the window are built."""
    class Many(Source):
        def ids(self, list_or_split):
            return [f'{number:04d}' for number in range(MANY)]

        def image_path(self, image_id):
            return super().image_path(IDS[0])

        def mask_path(self, image_id):
            return super().mask_path(IDS[0])

    def write_few(folder, number, source, image_id, methods):
        if number % 500 == 0:
            write(folder, number, source, IDS[0], methods)

    write = report.gallery.write_image
    monkeypatch.setattr(report.gallery, 'write_image', write_few)
    once = report.gallery.measure(Source(made), IDS[0], report.all_methods(the_job(made), IDS))
    monkeypatch.setattr(report.gallery, 'measure', lambda *given: report.gallery.Measured(
        once.hw, True, once.shown, once.true, once.made, {}, once.miou))
    job = the_job(made, files={'report_out_dir': str(tmp_path / 'report')})
    report.run(dataclasses.replace(job, source=Many(made)), Report(0))
    unlock()
    browser.get((tmp_path / 'report' / 'index.html').as_uri())
    until(browser, lambda: browser.execute_script(
        'return document.querySelectorAll(".card").length') == MANY)
    built = 'return document.querySelectorAll(".card canvas").length / 2'
    drawn = ('return document.querySelectorAll(".card")[arguments[0]]'
             '.querySelectorAll("canvas[aria-label]").length')
    for position in (0, 1000, 1500):
        browser.execute_script('document.querySelectorAll(".card")[arguments[0]].scrollIntoView()',
                               position)
        until(browser, lambda position=position: browser.execute_script(drawn, position) == 2)
        until(browser, lambda: 0 < browser.execute_script(built) < 30)


def choose(browser, selector, text):
    Select(find(browser, selector)).select_by_visible_text(text)


def link(browser):
    """The state in the link, once it is written."""
    browser.execute_async_script('setTimeout(arguments[0], 250)')
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(browser.current_url).fragment))


def test_errors_by_kind(opened, made):
    """Right, missed and false pixels of activations at the slider's threshold, and of masks."""
    find(opened, '[data-view=errors]').click()
    assert find(opened, '#key').is_displayed()
    first = card(opened, IDS[0], 5)
    truth, seen = label_maps.load(Source(made).mask_path(IDS[0])), collections.Counter()
    keys, _, planes = activations.load(made / 'cam', IDS[0])
    for name, label_map in (
            ('cam', seeds.class_ids(keys)[seeds.arg_max(planes, 0.15)]),
            ('sem_seg', label_maps.load(made / 'sem_seg' / f'{IDS[0]}.png'))):
        drawn = pixels(opened, first, name)
        known = (truth != 255)
        kinds = {'right': known & (label_map == truth) & (truth > 0),
                 'missed': known & (label_map == 0) & (truth > 0),
                 'false': known & (label_map != truth) & (label_map > 0)}
        for kind, where in kinds.items():
            seen[kind] += where.sum()
            colour = np.array(colours.rgb(colours.ERRORS[kind]))
            assert np.abs(drawn[where][:, :3] - colour).max(initial=0) <= 3
        painted = drawn[..., 3] > 0
        assert (painted == np.logical_or.reduce(list(kinds.values()))).all()
    assert all(seen[kind] > 20 for kind in colours.ERRORS)
    find(opened, '[data-view=masks]').click()
    until(opened, lambda: 'mask of' in first.find_element(By.CSS_SELECTOR, 'canvas').get_attribute(
        'aria-label'))
    assert not find(opened, '#key').is_displayed()


def test_the_state_is_in_the_link(opened):
    choose(opened, '#sort', 'gain of AMN over CAM')
    find(opened, '#direction').click()
    find(opened, '[data-view=errors]').click()
    move(opened, find(opened, '#gallery .slider'), 42)
    choose(opened, '#confusion-method', 'AMN')
    find(opened, '#search').send_keys('o')
    shown = ids(opened)
    card(opened, HOSTILE, 5).find_element(By.CSS_SELECTOR, '.id').send_keys(Keys.ENTER)
    expected = {'t': '0.42', 'view': 'errors', 'sort': 'amn_cam-cam', 'order': 'ascending',
                'search': 'o', 'confusion': 'amn_cam', 'image': HOSTILE}
    assert link(opened) == expected
    opened.refresh()
    assert find(opened, '#viewer-title').text == HOSTILE
    find(opened, '#close').click()
    assert ids(opened) == shown
    assert find(opened, '#gallery .slider').get_property('value') == '42'
    assert find(opened, '[data-view=errors]').get_attribute('aria-pressed') == 'true'
    assert link(opened) == {key: value for key, value in expected.items() if key != 'image'}
    opened.execute_script('location.hash = "t=7&sort=nothing&class=nobody&image=none&view=x"')
    until(opened, lambda: find(opened, '#search').get_property('value') == '')
    assert find(opened, '#sort').get_property('value') == 'amn_cam'
    assert 'at 0.15' in find(opened, '#gallery .readout').text  # each at its own again


def test_the_order_by_what_one_stage_gains(opened, made):
    choose(opened, '#sort', 'gain of Pseudo-mask over CAM')
    gains = []
    for image_id in ids(opened):
        if image_id not in ('one_pixel', 'ignored'):
            shown = card(opened, image_id)
            gains.append(float(told(shown, 'sem_seg')) - float(told(shown, 'cam')))
    assert len(gains) == 5
    assert gains == sorted(gains, reverse=True)


def test_the_card_one_watches_stays_where_it_is(opened):
    """Sorted anew by the slider, the card under the pointer is still at the same height."""
    choose(opened, '#sort', 'CAM at this threshold')
    slider = find(opened, '#gallery .slider')
    moved = 0
    for position in (5, 60, 20, 90):
        watched = card(opened, IDS[0])
        ActionChains(opened).move_to_element(watched.find_element(By.CSS_SELECTOR, '.id')).perform()
        place = ids(opened).index(IDS[0])
        before = watched.rect['y'] - opened.execute_script('return scrollY')
        slider.send_keys(*[Keys.HOME, *[Keys.PAGE_UP] * (position // 10)])
        after = watched.rect['y'] - opened.execute_script('return scrollY')
        at_an_end = opened.execute_script('return scrollY === 0 || scrollY + innerHeight >= '
                                          'document.documentElement.scrollHeight - 1')
        assert abs(after - before) < 2 or at_an_end
        moved += ids(opened).index(IDS[0]) != place
    assert moved


def test_pixels_are_told_of_every_mask_where_one_sees_it(opened, made):
    opened.set_window_size(1400, 500)
    try:
        choose(opened, '#sort', 'place in the list')
        card(opened, IDS[0]).find_element(By.CSS_SELECTOR, '.id').send_keys(Keys.ENTER)
        viewer, told_at = find(opened, '#viewer'), find(opened, '#pixel')
        until(opened, lambda: len(viewer.find_elements(By.CSS_SELECTOR, 'canvas[aria-label]')) == 2)
        ActionChains(opened).move_to_element(
            viewer.find_element(By.CSS_SELECTOR, '.picture')).perform()
        until(opened, lambda: told_at.text.startswith('x '))
        x, y = map(int, re.match(r'x (\d+), y (\d+)', told_at.text).groups())
        names = ('background', *Source.classes)
        for title, name in (('Pseudo-mask', 'sem_seg'), ("CAM's refined seed", 'ir_label')):
            label = label_maps.load(made / name / f'{IDS[0]}.png')[y, x]
            expected = 'left out' if label == 255 else names[label]
            assert f'{title}: {expected}' in told_at.text
        box = opened.execute_script('const b = arguments[0].getBoundingClientRect(); '
                                    'return [b.top, b.bottom, innerHeight]', told_at)
        assert 0 < box[0] < box[1] <= box[2]  # in sight, though the pictures go on below
        assert viewer.get_property('scrollHeight') > viewer.get_property('clientHeight') + 100
    finally:
        opened.set_window_size(1400, 900)


def test_what_is_taken_for_what(opened, made):
    choose(opened, '#confusion-method', 'Pseudo-mask')
    counts = scores.ignored_as_background(scores.count_label_maps(
        Source(made), IDS,
        lambda image_id: label_maps.load(made / 'sem_seg' / f'{image_id}.png'), 0))
    shares = 100 * counts / counts.sum(1, keepdims=True)
    rows = opened.find_elements(By.CSS_SELECTOR, '#confusion tbody tr')
    shown = [[float(re.search(r': ([\d.]+) %$', cell.get_attribute('title'))[1])
              for cell in row.find_elements(By.CSS_SELECTOR, 'td')] for row in rows]
    assert np.abs(np.array(shown) - shares).max() < 0.051


def test_plots_are_enlarged_and_zoomed(browser, made, tmp_path):
    write_json(tmp_path / 'analysis' / 'analysis.json', {
        'split': '<i>split</i>', 'data': Source.name, 'methods': METHODS})
    report_on(made, files={'analysis_out_dir': str(tmp_path / 'analysis'),
                           'report_out_dir': str(tmp_path / 'report')})
    unlock()
    browser.get((tmp_path / 'report' / 'index.html').as_uri())
    background = ('return getComputedStyle(document.querySelector(".plot svg path")).fill + '
                  'getComputedStyle(document.querySelector(".plot svg text")).fill')
    light = browser.execute_script(background)
    find(browser, '#theme').click()
    assert browser.execute_script(background) != light  # no white panel on a dark page
    find(browser, '#theme').click()
    plot = find(browser, '.zoom')
    plot.send_keys(Keys.ENTER)
    assert find(browser, '#enlarged-title').text == 'mIoU against the global threshold'

    def box():
        return [float(value) for value in find(browser, '#enlarged svg').get_dom_attribute(
            'viewBox').split()]

    whole = box()
    find(browser, '#larger').click()
    assert box()[2] == pytest.approx(whole[2] / 1.5)
    ActionChains(browser).scroll_from_origin(
        ScrollOrigin.from_element(find(browser, '#enlarged svg')), 0, -200).perform()
    until(browser, lambda: box()[2] < whole[2] / 1.8)
    find(browser, '#shut').send_keys('0')
    assert box() == whole
    find(browser, '#shut').click()
    assert browser.switch_to.active_element == plot


def test_sections_are_reached_and_the_state_stays(opened):
    move(opened, find(opened, '#gallery .slider'), 33)
    find(opened, 'nav a[href="#per-class"]').click()
    top = opened.execute_script(
        'return document.querySelector("#classes-title").getBoundingClientRect().top')
    assert 0 < top < 300
    assert find(opened, 'nav').is_displayed()
    assert link(opened) == {'t': '0.33'}
    for anchor in opened.find_elements(By.CSS_SELECTOR, 'nav a'):
        find(opened, anchor.get_dom_attribute('href'))


def test_without_masks(browser, made, tmp_path):
    """No truth, no scores, no empty boxes."""
    folder = damaged(made, tmp_path)
    shutil.rmtree(folder / 'masks')
    report_on(folder)
    unlock()
    browser.get((folder / 'report' / 'index.html').as_uri())
    first = card(browser, IDS[0])
    captions = [caption.text for caption in first.find_elements(By.CSS_SELECTOR, 'figcaption')]
    assert captions == ['Image', 'CAM', 'AMN', 'Pseudo-mask', "CAM's refined seed",
                        "AMN's refined seed"]
    assert not find(browser, '[data-view=errors]').is_displayed()
    assert find(browser, '#gallery .readout').text.split() == ['CAM', 'at', '0.15', 'AMN', 'at',
                                                               '0.25']
    assert [option.text for option in Select(find(browser, '#sort')).options] == [
        'place in the list']
    assert not browser.find_elements(By.CSS_SELECTOR, '.missing')
    assert [empty for empty in browser.find_elements(By.CSS_SELECTOR, '.empty')
            if empty.is_displayed()] == []
    assert [entry for entry in browser.get_log('browser') if entry['level'] == 'SEVERE'] == []


def test_two_runs_side_by_side(browser, made, tmp_path):
    """The other run's picture below each, moved by the same slider."""
    other = other_run(made, tmp_path / 'other')
    job = the_job(made, files={'report_out_dir': str(tmp_path / 'report')})
    report.run(job, Report(0, str(other)))
    unlock()
    browser.get((tmp_path / 'report' / 'index.html').as_uri())
    choose(browser, '#sort', 'CAM: pixels changed')
    changed = ids(browser)[0]
    assert changed in IDS[2:4]
    first = card(browser, changed, 4)
    move(browser, find(browser, '#gallery .slider'), 30)
    here, there = told(first, 'cam'), told(first, 'against_cam')
    assert here == evaluators(made, [changed], 'cam', 0.3)
    assert there == evaluators(other / 'result', [changed], 'cam', 0.3, made)
    assert f'other run {there}, here' in first.text
    assert (pixels(browser, first, 'cam') != pixels(browser, first, 'against_cam')).any()
    assert 'other run' in find(browser, '#gallery .readout').text
    assert [entry for entry in browser.get_log('browser') if entry['level'] == 'SEVERE'] == []
