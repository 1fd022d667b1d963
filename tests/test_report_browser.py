"""The report in a real browser, opened from disk. AMN_NO_BROWSER=1 leaves these tests out."""
import dataclasses
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from misc.contract.settings import Report
from misc.files import activations, label_maps
from misc.pyutils import unlock
from misc.score import scores
from step import report
from tests.test_report import HOSTILE, IDS, THRESHOLDS, Source, draw, report_on, the_job

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


def card(browser, image_id):
    """A card in sight, its canvases drawn."""
    found = next(card for card in browser.find_elements(By.CSS_SELECTOR, '.card')
                 if card.find_element(By.CSS_SELECTOR, '.id').text == image_id)
    browser.execute_script('arguments[0].scrollIntoView({block: "center"})', found)
    until(browser, lambda: len(found.find_elements(By.CSS_SELECTOR, 'canvas[aria-label]')) == 2)
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


def evaluators(folder, image_ids, name, threshold):
    """As it is printed."""
    def load(image_id):
        activation = activations.load(folder / name, image_id)
        return activation.keys, activation.high_res
    score = scores.score_activations(Source(folder), image_ids, load, threshold, 0)
    return f'{100 * score.at(threshold).miou:.1f}'


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
    find(opened, '#mode').click()
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
    opened.refresh()
    assert colour() != before  # kept
    find(opened, '#theme').click()
    assert colour() == before
    opened.execute_cdp_cmd('Emulation.setEmulatedMedia',
                           {'features': [{'name': 'prefers-color-scheme', 'value': 'dark'}]})
    opened.execute_script('localStorage.clear()')
    opened.refresh()
    assert colour() != before
    opened.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': []})


def test_a_narrow_screen_does_not_scroll_sideways(opened):
    metrics = {'width': 360, 'height': 780, 'deviceScaleFactor': 1, 'mobile': True}
    opened.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
    card(opened, IDS[0])
    assert opened.execute_script('return document.documentElement.scrollWidth') == 360
    card(opened, IDS[0]).find_element(By.CSS_SELECTOR, '.id').click()
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
            for canvas in viewer.find_elements(By.CSS_SELECTOR, 'canvas')]
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
    assert not find(browser, '#gallery .threshold').is_displayed()


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
