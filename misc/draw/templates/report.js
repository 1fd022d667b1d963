'use strict';
// Plain script, no library. Names from outside become text nodes and attributes only, never HTML.
(() => {
  const data = JSON.parse(document.getElementById('report-data').textContent);
  const activations = data.methods.filter((method) => method.kind === 'activation');
  const byName = Object.fromEntries(data.methods.map((method) => [method.name, method]));
  const items = data.images;
  const counterparts = new Map(data.methods.filter(({of}) => of).map((method) => [method.of, method]));
  const own = data.methods.filter(({of}) => !of);
  const scored = own.filter(({name}) => items.some((item) => item.miou[name]));
  const hasTruth = items.some((item) => item.truth);
  const parts = [{name: 'image', title: 'Image'}, ...hasTruth ? [{name: 'truth', title: 'Truth'}] : [], ...own];
  const $ = (id) => document.getElementById(id);

  // position: of the threshold 0.00, 0.01, ..., 1.00 (0..100); null while each method has its own
  const state = {position: null, view: 'masks', ascending: false, shown: items, open: null};
  const start = activations.length ? activations.findLast(({of}) => !of)?.position ?? 0 : 0;
  const positionOf = (method) => state.position ?? method.position;
  const inPercent = (tenths) => tenths === null || tenths === undefined ? '–' : (tenths / 10).toFixed(1);
  const signed = (tenths) => `${tenths < 0 ? '−' : '+'}${inPercent(Math.abs(tenths))}`;
  const threshold = (position) => (position / 100).toFixed(2);

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  // ---- data of an image: a script file, because a page from disk may not fetch

  const waiting = new Map();
  window.amnReport = {arrived: (number, text) => waiting.get(number)?.(text)};

  function load(item) {
    item.planes ??= new Promise((resolve, reject) => {
      waiting.set(item.number, resolve);
      const script = element('script', {src: `data/${item.number}.js`});
      script.onload = () => script.remove();
      script.onerror = () => { script.remove(); item.planes = null; reject(new Error(`data/${item.number}.js is missing`)); };
      document.head.append(script);
    }).then((text) => unpack(item, text)).finally(() => waiting.delete(item.number));
    return item.planes;
  }

  /** {truth, NAME: {strongest, passed} of activations, {map} of seeds and masks}, each a Uint8Array of H * W. */
  async function unpack(item, text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
    const all = new Uint8Array(await new Response(stream).arrayBuffer());
    const size = item.hw[0] * item.hw[1];
    let read = 0;
    const plane = () => all.subarray(read, read += size);
    const planes = {};
    if (item.truth) planes.truth = plane();
    for (const {name, kind} of data.methods) {
      if (!item.made.includes(name) || kind === 'instances') continue;
      planes[name] = kind === 'activation' ? {strongest: plane(), passed: plane()} : {map: plane()};
    }
    return planes;
  }

  // ---- drawing

  const packed = (red, green, blue, alpha) => (alpha << 24 | blue << 16 | green << 8 | red) >>> 0;  // little-endian RGBA
  const colours = Uint32Array.from(data.palette, ([red, green, blue], label) => label ? packed(red, green, blue, 153) : 0);
  const plasma = Uint32Array.from({length: 102}, (_, passed) => {
    const strength = Math.min(passed, 100);
    return packed(...data.plasma[strength], Math.round(255 * 0.75 * strength / 100));
  });
  const WHITE = 0xffffffff;
  const LEFT_OUT = 255;
  const errors = {
    right: packed(...data.errors.right, 110), missed: packed(...data.errors.missed, 220), false: packed(...data.errors.false, 220)};

  /** The label of a pixel; 255 where a seed leaves it out. */
  const labelAt = ({map, strongest, passed}, index, position) =>
    map ? map[index] : passed[index] > position ? strongest[index] : 0;

  const COLOUR_OF = {
    activations: ({passed}, index) => plasma[passed[index]],
    errors: (planes, index, position, truth) => {
      const label = labelAt(planes, index, position), wanted = truth[index];
      if (label === LEFT_OUT || wanted === LEFT_OUT || (!label && !wanted)) return 0;
      return label === wanted ? errors.right : label ? errors.false : errors.missed;
    },
  };

  /** Class colours with a white contour, activations or errors, on a clear canvas over the photograph. Every `step`-th pixel. */
  function paint(canvas, item, planes, truth, position, step) {
    const [h, w] = item.hw;
    const rows = Math.ceil(h / step), columns = Math.ceil(w / step);
    if (canvas.width !== columns || canvas.height !== rows) Object.assign(canvas, {width: columns, height: rows});
    const context = canvas.getContext('2d');
    const image = context.createImageData(columns, rows);
    const out = new Uint32Array(image.data.buffer);
    const labels = new Uint8Array(rows * columns);
    const colourOf = COLOUR_OF[state.view];
    for (let y = 0, place = 0; y < rows; y++) {
      for (let x = 0, index = y * step * w; x < columns; x++, place++, index += step) {
        if (colourOf) out[place] = colourOf(planes, index, position, truth);
        else labels[place] = labelAt(planes, index, position);
      }
    }
    for (let y = 0, place = 0; y < rows && !colourOf; y++) {
      for (let x = 0; x < columns; x++, place++) {
        const own = labels[place];
        const edge = (x + 1 < columns && labels[place + 1] !== own) || (y + 1 < rows && labels[place + columns] !== own);
        out[place] = edge ? WHITE : colours[own];
      }
    }
    context.putImageData(image, 0, 0);
  }

  // ---- pictures of one image, in a card or large

  function swatch(kind, hue) {
    const made = element('i', {class: `swatch ${kind}`});
    made.style.setProperty('--hue', hue);
    return made;
  }

  const hueOf = ({hue}) => `var(--${hue})`;
  const titled = (method) => [swatch(method.kind, hueOf(method)), method.title];

  const legend = (item) => element('span', {class: 'legend'}, ...item.shown.map((label) =>
    element('span', {}, swatch('class', `rgb(${data.palette[label].join(', ')})`), data.classes[label])));

  function picture(item, part) {
    const there = part.name === 'image' || (part.name === 'truth' ? item.truth : item.made.includes(part.name));
    const caption = element('figcaption', {'data-caption': part.name}, ...part.of ? [swatch(part.kind, hueOf(part)), 'other run'] : part.hue ? titled(part) : [part.title]);
    if (!there) return element('figure', {}, element('div', {class: 'missing'}, part.name === 'truth' ? 'no mask' : 'not there'), caption);
    const names = item.shown.map((label) => data.classes[label]).join(', ') || 'no class';
    const lazy = {loading: 'lazy', decoding: 'async'}, place = `images/${item.number}_`;
    const frame = element('div', {class: 'picture'}, element('img', {src: `${place}image.jpg`, ...lazy,
      alt: part.name === 'image' ? `Photograph ${item.id}` : ''}));
    frame.style.aspectRatio = `${item.hw[1]} / ${item.hw[0]}`;
    if (part.kind === 'activation') frame.append(element('canvas', {role: 'img', 'data-method': part.name, 'data-planes': 'two'}));
    else if (part.name !== 'image') {
      frame.append(element('img', {src: `${place}${part.name}.png`, class: 'layer', ...lazy, alt: `${part.title} of ${item.id}: ${names}`}));
      if (item.truth && ['mask', 'seed'].includes(part.kind)) frame.append(element('canvas', {class: 'errors', role: 'img', 'data-method': part.name}));
    }
    return element('figure', {}, frame, caption);
  }

  /** Each part of its list; below it, where two runs are compared, the other run's. */
  const pictures = (item) => element('div', {class: 'pictures'}, ...parts
    .filter((part) => !part.list || part.list === item.list || item.made.includes(part.name))
    .map((part) => counterparts.has(part.name)
      ? element('div', {class: 'pair'}, picture(item, part), picture(item, counterparts.get(part.name))) : picture(item, part)));

  const score = (item, name) => {
    const values = item.miou[name];
    return values === undefined ? undefined : values[byName[name].kind === 'activation' ? positionOf(byName[name]) : 0];
  };

  /** Points that a method's score is above another's. */
  function gainOf(item, name, before) {
    const [one, other] = [score(item, name), before && score(item, before)];
    return one == null || other == null ? undefined : one - other;
  }

  /** Whether `root`, a card or the viewer, still shows the item: the user may have gone on while its data were on their way. */
  const shows = (root, item) => root !== viewer || state.open === item;

  /** Captions with scores, and the canvases, at the threshold of now. */
  async function refresh(item, root, step) {
    root.classList.toggle('activations', state.view === 'activations');
    root.classList.toggle('error-view', state.view === 'errors' && item.truth);
    for (const method of data.methods) {
      const caption = root.querySelector(`[data-caption="${method.name}"]`);
      if (!caption) continue;
      const said = method.of ? [swatch(method.kind, hueOf(method)), 'other run'] : titled(method);
      if (item.miou[method.name]) said.push(' ', element('b', {}, inPercent(score(item, method.name))));
      const gain = method.of && gainOf(item, method.of, method.name);
      if (gain) said.push(`, here ${signed(gain)}`);
      caption.replaceChildren(...said);
    }
    if (!root.querySelector('canvas')) return;
    const planes = await load(item);
    if (!shows(root, item)) return;
    for (const canvas of root.querySelectorAll('canvas')) {
      const method = byName[canvas.dataset.method], position = positionOf(method), run = method.of ? ' (other run)' : '';
      if (state.view === 'errors' && item.truth) canvas.setAttribute('aria-label', `${method.title}'s errors in ${item.id}${run}`);
      else if (method.kind !== 'activation') { canvas.removeAttribute('aria-label'); continue; }
      else if (state.view === 'activations') canvas.setAttribute('aria-label', `${method.title}'s activation of ${item.id}${run}`);
      else canvas.setAttribute('aria-label', `${method.title}'s mask of ${item.id} at threshold ${threshold(position)}${run}`);
      if (state.view === 'errors' && !item.truth) canvas.width = canvas.height = 0;
      else paint(canvas, item, planes[method.name], planes.truth, position, step);
    }
  }

  const report = (item, root) => (error) => {
    if (!shows(root, item)) return;
    const lacking = state.view === 'errors' ? 'canvas' : 'canvas:not(.errors)';  // other masks are pictures
    for (const canvas of root.querySelectorAll(lacking)) canvas.parentElement.replaceChildren(element('div', {class: 'missing'}, error.message));
  };

  // ---- cards: the heads are always there, the pictures only near the window

  const SIDE = 320;  // longest side of what is drawn in a card
  const cardStep = (item) => Math.max(1, Math.ceil(Math.max(...item.hw) / SIDE));
  const built = new Set();

  const observer = new IntersectionObserver((entries) => {
    for (const {target, isIntersecting} of entries) (isIntersecting ? build : release)(target.item);
  }, {rootMargin: '800px 0px'});

  function makeCard(item) {
    const open = element('button', {type: 'button', class: 'id', title: 'Larger view'}, item.id);
    const head = element('header', {}, open, legend(item));
    if (item.group) head.append(element('span', {class: 'group'}, item.group));
    item.card = element('li', {class: 'card'}, head, element('div', {class: 'pictures'}));
    item.card.item = item;
    item.card.addEventListener('click', (event) => {
      if (event.target.closest('.id, .picture')) show(item);
    });
    for (const event of ['pointerover', 'focusin']) item.card.addEventListener(event, () => { watched = item; });
    observer.observe(item.card);
  }

  function build(item) {
    if (built.has(item)) return;
    built.add(item);
    item.card.lastElementChild.replaceWith(pictures(item));
    refresh(item, item.card, cardStep(item)).catch(report(item, item.card));
  }

  function release(item) {
    if (!built.delete(item)) return;
    const empty = element('div', {class: 'pictures'});
    empty.style.height = `${item.card.lastElementChild.offsetHeight}px`;  // nothing moves while one scrolls
    for (const canvas of item.card.querySelectorAll('canvas')) canvas.width = canvas.height = 0;
    item.card.lastElementChild.replaceWith(empty);
    if (state.open !== item) item.planes = null;
  }

  // ---- which images, in which order

  const either = (first, second) => items.some((item) => gainOf(item, first, second) !== undefined);
  const sorts = [
    {key: 'place', title: 'place in the list', of: (item) => -item.number},
    ...scored.map(({name, title, kind}) => ({key: name, title: kind === 'activation' ? `${title} at this threshold` : title,
      of: (item) => score(item, name) ?? -1})),
    ...scored.flatMap((method, number) => scored.slice(0, number).filter((before) => either(method.name, before.name)).map((before) => ({
      key: `${method.name}-${before.name}`, title: `gain of ${method.title} over ${before.title}`,
      of: (item) => gainOf(item, method.name, before.name) ?? -Infinity}))),
    ...scored.filter(({name}) => counterparts.has(name) && either(name, counterparts.get(name).name)).map(({name, title}) => ({
      key: `${name}-other`, title: `gain of ${title} over the other run`,
      of: (item) => gainOf(item, name, counterparts.get(name).name) ?? -Infinity})),
    ...own.filter(({name}) => items.some((item) => item.changed[name] !== undefined)).map(({name, title}) => ({
      key: `${name}-changed`, title: `${title}: pixels changed`, of: (item) => item.changed[name] ?? -1})),
  ];
  const sortOf = () => sorts.find(({key}) => key === $('sort').value);
  const usualSort = (sorts.find(({key}) => key === 'amn_cam-changed') ?? sorts.find(({key}) => key.endsWith('-changed'))
    ?? sorts.find(({key}) => key === 'amn_cam') ?? sorts[0]).key;

  function fill(select, options) {
    select.replaceChildren(...options.map(([value, title]) => element('option', {value}, title)));
  }

  let watched = null;  // the card that the pointer or the focus was on last

  /** The card that is looked at: the one watched, where it is in sight, else the first in sight. */
  function lookedAt() {
    const top = document.querySelector('#gallery .threshold').getBoundingClientRect().bottom;
    const inSight = ({card}) => { const box = card.getBoundingClientRect(); return box.bottom > top && box.top < innerHeight; };
    return watched && watched.card.isConnected && inSight(watched) ? watched : state.shown.find(inSight);
  }

  let held = null;

  /** Keep a card where it is in the window while those around it get their pictures. */
  function hold(card, top, end = performance.now() + 500) {
    held = card;
    $('cards').classList.add('held');  // else the browser holds another one
    scrollBy({top: card.getBoundingClientRect().top - top, behavior: 'instant'});
    requestAnimationFrame(() => {
      if (held === card && performance.now() < end) hold(card, top, end);
      else letGo(card);
    });
  }

  function letGo(card = held) {
    if (held !== card) return;
    held = null;
    $('cards').classList.remove('held');
  }

  for (const event of ['wheel', 'touchmove', 'pointerdown']) addEventListener(event, () => letGo(), {passive: true});

  /** Filter and sort. stay: the card that is looked at does not move in the window. */
  function arrange(stay = false) {
    const looked = stay ? lookedAt() : null, before = looked?.card.getBoundingClientRect().top;
    const text = $('search').value.trim().toLowerCase(), label = Number($('class').value), group = $('group').value;
    const {key, of} = sortOf(), sign = state.ascending ? 1 : -1;
    state.shown = items.filter((item) => item.id.toLowerCase().includes(text) && (!label || item.shown.includes(label))
      && (!group || item.group === group));
    const value = new Map(state.shown.map((item) => [item, of(item)]));
    state.shown.sort((a, b) => sign * (value.get(a) - value.get(b)) || a.number - b.number);
    $('cards').replaceChildren(...state.shown.map((item) => item.card));
    if (looked?.card.isConnected) hold(looked.card, before);
    $('found').textContent = `${state.shown.length} of ${items.length}`;
    $('none').hidden = state.shown.length > 0;
    const byPlace = key === 'place';
    $('direction').textContent = state.ascending ? byPlace ? '↑ last first' : '↑ lowest first' : byPlace ? '↓ first first' : '↓ highest first';
    remember();
  }

  // ---- threshold

  function drawCurves(svg) {
    const best = Math.max(1, ...activations.flatMap(({curve}) => curve ?? []));
    for (const {name, curve} of activations) {
      if (!curve) continue;
      const line = document.createElementNS(svg.namespaceURI, 'polyline');
      line.setAttribute('points', curve.map((value, position) => `${position},${100 - 100 * (value ?? 0) / best}`).join(' '));
      line.style.setProperty('--hue', hueOf(byName[name]));
      line.classList.toggle('against', byName[name].of !== '');
      svg.append(line);
    }
    for (const {name} of activations.filter(({of}) => !of)) {
      const mark = document.createElementNS(svg.namespaceURI, 'line');
      mark.setAttribute('y1', 0);
      mark.setAttribute('y2', 100);
      mark.style.setProperty('--hue', hueOf(byName[name]));
      mark.dataset.method = name;
      svg.append(mark);
    }
  }

  const ofImages = (method) => method.scored === method.of_images ? 'all images' : `${method.scored} of ${method.of_images} images`;

  /** Of all images, or of the open one. */
  function scoreNow(method, large) {
    if (large) return score(large, method.name);
    return method.kind === 'activation' ? method.curve?.[positionOf(method)] : method.miou;
  }

  function showThreshold() {
    for (const slider of document.querySelectorAll('.slider')) {
      slider.value = state.position ?? start;
      slider.setAttribute('aria-valuetext', state.position === null
        ? 'each at its own: ' + activations.filter(({of}) => !of).map((method) => `${method.title} ${threshold(method.position)}`).join(', ')
        : threshold(state.position));
    }
    for (const button of document.querySelectorAll('[data-view]')) button.setAttribute('aria-pressed', button.dataset.view === state.view);
    $('key').hidden = state.view !== 'errors';
    for (const mark of document.querySelectorAll('.track line')) {
      const at = positionOf(byName[mark.dataset.method]);
      mark.setAttribute('x1', at);
      mark.setAttribute('x2', at);
    }
    for (const readout of document.querySelectorAll('.readout')) {
      const large = readout.closest('dialog') ? state.open : null;
      readout.replaceChildren(...own.filter(({kind}) => kind === 'activation' || kind === 'mask').flatMap((method) => {
        if (large && !large.made.includes(method.name)) return [];
        const name = element('b', {class: 'name'}, method.title);
        name.style.setProperty('--hue', hueOf(method));
        const at = element('span', {}, method.kind === 'activation' ? `at ${threshold(positionOf(method))}` : '');
        const said = element('span', {}), other = counterparts.get(method.name), value = scoreNow(method, large);
        if (value != null) said.append(large ? 'mIoU ' : `${ofImages(method)} `, element('b', {'data-score': method.name}, inPercent(value)));
        const theirs = other && scoreNow(other, large);
        if (value != null && theirs != null) said.append(` other run ${inPercent(theirs)}`);
        return method.kind === 'mask' && value == null ? [] : [name, at, said];
      }));
    }
    $('own').disabled = state.position === null;
  }

  let asked = false;
  /** Redraw what is in sight, once a frame. */
  function changed() {
    showThreshold();
    remember();
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      for (const item of built) refresh(item, item.card, cardStep(item)).catch(report(item, item.card));
      if (state.open) refresh(state.open, $('viewer'), 1).catch(report(state.open, $('viewer')));
    });
  }

  function moveTo(position) {
    state.position = position;
    changed();
  }

  // ---- one image, large

  const viewer = $('viewer');

  function show(item) {
    const before = state.open;
    state.open = item;
    if (before && before !== item && !built.has(before)) before.planes = null;
    $('viewer-title').textContent = item.id;
    $('place').textContent = `${state.shown.indexOf(item) + 1} of ${state.shown.length}`;
    $('pixel').textContent = '';
    viewer.querySelector('.body').replaceChildren(legend(item), pictures(item));
    showThreshold();
    if (!viewer.open) {
      viewer.showModal();
      $('viewer-title').focus();
    }
    viewer.scrollTop = 0;
    remember();
    refresh(item, viewer, 1).catch(report(item, viewer));
  }

  function step(by) {
    const next = state.shown[state.shown.indexOf(state.open) + by];
    if (next) show(next);
  }

  viewer.addEventListener('close', () => {
    const item = state.open;
    state.open = null;
    remember();
    viewer.querySelector('.body').replaceChildren();
    if (!built.has(item)) item.planes = null;
    item.card.querySelector('.id').focus();
  });
  viewer.addEventListener('click', (event) => {
    if (event.target === viewer) viewer.close();  // beside it
  });
  viewer.addEventListener('keydown', (event) => {
    if (event.target.matches('.slider')) return;  // the arrows are its own
    if (event.key === 'ArrowRight') step(1);
    else if (event.key === 'ArrowLeft') step(-1);
    else return;
    event.preventDefault();
  });
  viewer.addEventListener('mousemove', async (event) => {
    const frame = event.target.closest('.picture'), item = state.open;
    if (!frame || !item) return;
    const box = frame.getBoundingClientRect(), [h, w] = item.hw;
    const x = Math.min(w - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * w)));
    const y = Math.min(h - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * h)));
    const planes = await load(item), index = y * w + x, told = [`x ${x}, y ${y}`];
    if (item !== state.open) return;
    const nameOf = (label) => label === LEFT_OUT ? 'left out' : data.classes[label];
    if (planes.truth) told.push(`truth: ${nameOf(planes.truth[index])}`);
    for (const method of data.methods) {
      const made = planes[method.name], run = method.of ? ' (other run)' : '';
      if (!made) continue;
      let range = '';
      if (method.kind === 'activation') {
        const passed = made.passed[index];
        range = passed === 0 ? ' (0)' : passed > 100 ? ` (${data.classes[made.strongest[index]]} above 1)`
          : ` (${data.classes[made.strongest[index]]} ${threshold(passed - 1)} to ${threshold(passed)})`;
      }
      told.push(`${method.title}${run}: ${nameOf(labelAt(made, index, positionOf(method)))}${range}`);
    }
    $('pixel').textContent = told.join(' · ');
  });
  $('close').addEventListener('click', () => viewer.close());
  $('before').addEventListener('click', () => step(-1));
  $('after').addEventListener('click', () => step(1));

  // ---- table of classes

  const table = $('classes');
  if (table) {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector('button').addEventListener('click', () => {
      const first = column === 0 ? 'ascending' : 'descending';
      const order = head.getAttribute('aria-sort') !== first ? first : first === 'ascending' ? 'descending' : 'ascending';
      heads.forEach((other) => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', order);
      const value = (row) => row.cells[column].dataset.value;
      const sign = order === 'ascending' ? 1 : -1;
      body.append(...[...body.rows].sort((a, b) => (value(a) === '') - (value(b) === '') || sign * (value(a) - value(b))));
    }));
    $('class-search').addEventListener('input', (event) => {
      const text = event.target.value.trim().toLowerCase();
      for (const row of body.rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(text);
    });
  }

  // ---- what is taken for what

  function showConfusion() {
    const method = byName[$('confusion-method').value], {labels, shares} = data.confusions[method.name];
    const swatchOf = (label) => swatch('class', `rgb(${data.palette[label].join(', ')})`);
    $('confusion').style.setProperty('--hue', hueOf(method));
    const heads = labels.map((label) => element('th', {scope: 'col'}, element('span', {}, data.classes[label])));
    const rows = labels.map((label, row) => element('tr', {}, element('th', {scope: 'row'}, swatchOf(label), data.classes[label]),
      ...shares[row].map((share, column) => {
        const cell = element('td', {title: `${data.classes[label]} taken for ${data.classes[labels[column]]}: ${inPercent(share)} %`},
          share >= 5 ? String(Math.round(share / 10)) : '');
        cell.style.setProperty('--share', (share ?? 0) / 10);
        return cell;
      })));
    $('confusion').replaceChildren(element('thead', {}, element('tr', {}, element('td', {}), ...heads)), element('tbody', {}, ...rows));
    const mistakes = shares.flatMap((row, one) => row.map((share, other) => ({share, one, other}))
      .filter(({share, other}) => other !== one && labels[one] && labels[other] && share >= 5));
    mistakes.sort((a, b) => b.share - a.share);
    $('confused').replaceChildren(...mistakes.slice(0, 5).map(({share, one, other}) => element('li', {},
      `${data.classes[labels[one]]} taken for ${data.classes[labels[other]]}: ${inPercent(share)} %`)));
    $('confused-note').hidden = !mistakes.length;
    remember();
  }

  // ---- a plot, large

  const enlarged = $('enlarged');
  const plot = {svg: null, whole: null};

  function enlarge(button) {
    plot.svg = button.querySelector('svg').cloneNode(true);
    plot.whole = plot.svg.getAttribute('viewBox').split(' ').map(Number);
    $('enlarged-title').textContent = button.getAttribute('aria-label').replace('Enlarge: ', '');
    enlarged.querySelector('.body').replaceChildren(plot.svg);
    enlarged.showModal();
  }

  /** Zoom by `factor` about a point of the window (the middle, where none is told). */
  function zoom(factor, clientX, clientY) {
    const box = plot.svg.getBoundingClientRect(), [x, y, w, h] = plot.svg.getAttribute('viewBox').split(' ').map(Number);
    const [left, top, width, height] = plot.whole;
    const across = clientX === undefined ? 0.5 : (clientX - box.left) / box.width, down = clientY === undefined ? 0.5 : (clientY - box.top) / box.height;
    const wide = Math.min(width, Math.max(width / 30, w / factor)), high = wide * height / width;
    look(Math.min(left + width - wide, Math.max(left, x + across * (w - wide))), Math.min(top + height - high, Math.max(top, y + down * (h - high))), wide, high);
  }

  const look = (...box) => plot.svg.setAttribute('viewBox', box.join(' '));

  for (const button of document.querySelectorAll('.zoom')) button.addEventListener('click', () => enlarge(button));
  enlarged.querySelector('.body').addEventListener('wheel', (event) => {
    event.preventDefault();
    zoom(1.0015 ** -event.deltaY, event.clientX, event.clientY);
  }, {passive: false});
  enlarged.querySelector('.body').addEventListener('pointermove', (event) => {
    if (!event.buttons) return;
    const box = plot.svg.getBoundingClientRect(), [x, y, w, h] = plot.svg.getAttribute('viewBox').split(' ').map(Number);
    const [left, top, width, height] = plot.whole;
    look(Math.min(left + width - w, Math.max(left, x - event.movementX * w / box.width)),
      Math.min(top + height - h, Math.max(top, y - event.movementY * h / box.height)), w, h);
  });
  enlarged.addEventListener('keydown', (event) => {
    if (event.key === '+') zoom(1.5);
    else if (event.key === '-') zoom(1 / 1.5);
    else if (event.key === '0') look(...plot.whole);
  });
  enlarged.addEventListener('click', (event) => { if (event.target === enlarged) enlarged.close(); });
  $('larger').addEventListener('click', () => zoom(1.5));
  $('smaller').addEventListener('click', () => zoom(1 / 1.5));
  $('whole').addEventListener('click', () => look(...plot.whole));
  $('shut').addEventListener('click', () => enlarged.close());

  // ---- the command

  $('copy').addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText($('command').textContent);
      $('copy').textContent = 'Copied';
    } catch (error) {  // not allowed everywhere: then it is marked, to be copied by hand
      getSelection().selectAllChildren($('command'));
    }
  });

  // ---- the state in the link

  let written = '', due = 0;

  /** The link says what is seen: #t=0.25&view=errors&sort=... */
  function remember() {
    clearTimeout(due);
    due = setTimeout(() => {
      const told = new URLSearchParams();
      const tell = (key, value, usual) => { if (value !== usual) told.set(key, value); };
      tell('t', state.position === null ? '' : threshold(state.position), '');
      tell('view', state.view, 'masks');
      tell('sort', $('sort').value, usualSort);
      tell('order', state.ascending ? 'ascending' : '', '');
      tell('search', $('search').value.trim(), '');
      tell('class', $('class').value && data.classes[$('class').value], '');
      tell('chosen', $('group').value, '');
      if ($('confusion-method')) tell('confusion', $('confusion-method').value, scored[0].name);
      if (state.open) told.set('image', state.open.id);
      if (written === told.toString()) return;
      written = told.toString();
      history.replaceState(null, '', `#${written}`);
    }, 150);
  }

  /** Follow a link. */
  function recall() {
    const text = location.hash.slice(1);
    if (!text.includes('=') || text === written) return;
    const told = new URLSearchParams(text), has = (select, value) => [...select.options].some((option) => option.value === value);
    const position = Math.round(100 * told.get('t'));
    state.position = told.has('t') && position >= 0 && position <= 100 ? position : null;
    state.view = [...document.querySelectorAll('[data-view]:not([hidden])')].map(({dataset}) => dataset.view).find((view) => view === told.get('view')) ?? 'masks';
    $('sort').value = has($('sort'), told.get('sort')) ? told.get('sort') : usualSort;
    state.ascending = told.get('order') === 'ascending';
    $('search').value = told.get('search') ?? '';
    const label = data.classes.indexOf(told.get('class'));
    $('class').value = has($('class'), String(label)) ? label : '';
    $('group').value = has($('group'), told.get('chosen')) ? told.get('chosen') : '';
    if ($('confusion-method') && has($('confusion-method'), told.get('confusion'))) {
      $('confusion-method').value = told.get('confusion');
      showConfusion();
    }
    arrange();
    changed();
    const open = items.find(({id}) => id === told.get('image'));
    if (open) show(open);
    else if (viewer.open) viewer.close();
  }

  for (const link of document.querySelectorAll('a[href^="#"]')) {
    link.addEventListener('click', (event) => {  // the link's own state stays
      event.preventDefault();
      const section = document.querySelector(link.getAttribute('href'));
      section.scrollIntoView();
      if (section.tabIndex === -1) section.focus({preventScroll: true});
    });
  }

  // ---- theme

  function setTheme(dark, keep) {
    document.documentElement.dataset.theme = dark ? 'dark' : 'light';
    $('theme').setAttribute('aria-pressed', dark);
    if (keep) try { localStorage.setItem('amn-theme', dark ? 'dark' : 'light'); } catch (error) { /* as in the head */ }
  }
  setTheme(document.documentElement.dataset.theme === 'dark', false);
  $('theme').addEventListener('click', () => setTheme(document.documentElement.dataset.theme !== 'dark', true));

  // ---- start

  const occurring = data.classes.map((name, label) => [label, items.filter((item) => item.shown.includes(label)).length]);
  fill($('class'), [['', 'all'], ...occurring.filter(([label, number]) => label && number)
    .map(([label, number]) => [label, `${data.classes[label]} (${number})`])]);
  const groups = [...new Set(items.map((item) => item.group).filter(Boolean))].sort();
  fill($('group'), [['', 'any'], ...groups.map((group) => [group, group])]);
  $('group-field').hidden = groups.length < 2;
  fill($('sort'), sorts.map(({key, title}) => [key, title]));
  $('sort').value = usualSort;
  $('search').addEventListener('input', () => arrange());
  for (const id of ['class', 'group', 'sort']) $(id).addEventListener('change', () => arrange());
  $('direction').addEventListener('click', () => { state.ascending = !state.ascending; arrange(); });
  $('clear').addEventListener('click', () => { for (const id of ['search', 'class', 'group']) $(id).value = ''; arrange(); });
  for (const slider of document.querySelectorAll('.slider')) {
    slider.addEventListener('input', () => moveTo(Number(slider.value)));
    slider.addEventListener('change', () => { if (!state.open && sortOf().key !== 'place') arrange(true); });
  }
  $('own').addEventListener('click', () => { moveTo(null); arrange(true); });
  for (const button of document.querySelectorAll('[data-view]')) {
    button.hidden = button.dataset.view === 'errors' ? !hasTruth : button.dataset.view === 'activations' ? !activations.length : false;
    button.addEventListener('click', () => { state.view = button.dataset.view; changed(); });
  }
  for (const svg of document.querySelectorAll('.track svg')) drawCurves(svg);
  for (const bar of document.querySelectorAll('.threshold')) {
    bar.classList.toggle('still', !activations.length);
    bar.hidden = !activations.length && !hasTruth;
  }
  if ($('confusion-method')) {
    fill($('confusion-method'), scored.map(({name, title}) => [name, title]));
    $('confusion-method').addEventListener('change', showConfusion);
    showConfusion();
  }
  items.forEach(makeCard);
  arrange();
  showThreshold();
  recall();
  addEventListener('hashchange', recall);
})();
