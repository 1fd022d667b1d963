'use strict';
// Plain script, no library. Names from outside become text nodes and attributes only, never HTML.
(() => {
  const data = JSON.parse(document.getElementById('report-data').textContent);
  const activations = data.methods.filter((method) => method.kind === 'activation');
  const byName = Object.fromEntries(data.methods.map((method) => [method.name, method]));
  const items = data.images;
  const parts = [{name: 'image', title: 'Image'}, {name: 'truth', title: 'Truth'}, ...data.methods];
  const $ = (id) => document.getElementById(id);

  // position: of the threshold 0.00, 0.01, ..., 1.00 (0..100); null while each method has its own
  const state = {position: null, activations: false, ascending: false, shown: items, open: null};
  const start = activations.length ? activations[activations.length - 1].position : 0;
  const positionOf = (method) => state.position ?? method.position;
  const inPercent = (tenths) => tenths === null || tenths === undefined ? '–' : (tenths / 10).toFixed(1);
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

  /** {truth, NAME: {strongest, passed}}, each a Uint8Array of H * W. */
  async function unpack(item, text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
    const all = new Uint8Array(await new Response(stream).arrayBuffer());
    const size = item.hw[0] * item.hw[1];
    let read = 0;
    const plane = () => all.subarray(read, read += size);
    const planes = {};
    if (item.truth) planes.truth = plane();
    for (const {name} of activations) if (item.made.includes(name)) planes[name] = {strongest: plane(), passed: plane()};
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

  /** Class colours with a white contour, or activations, on a clear canvas over the photograph. Every `step`-th pixel. */
  function paint(canvas, item, {strongest, passed}, position, step) {
    const [h, w] = item.hw;
    const rows = Math.ceil(h / step), columns = Math.ceil(w / step);
    if (canvas.width !== columns || canvas.height !== rows) Object.assign(canvas, {width: columns, height: rows});
    const context = canvas.getContext('2d');
    const image = context.createImageData(columns, rows);
    const out = new Uint32Array(image.data.buffer);
    const labels = new Uint8Array(rows * columns);
    for (let y = 0, place = 0; y < rows; y++) {
      for (let x = 0, index = y * step * w; x < columns; x++, place++, index += step) {
        if (state.activations) out[place] = plasma[passed[index]];
        else if (passed[index] > position) labels[place] = strongest[index];
      }
    }
    for (let y = 0, place = 0; y < rows && !state.activations; y++) {
      for (let x = 0; x < columns; x++, place++) {
        const own = labels[place];
        const edge = (x + 1 < columns && labels[place + 1] !== own) || (y + 1 < rows && labels[place + columns] !== own);
        out[place] = edge ? WHITE : colours[own];
      }
    }
    context.putImageData(image, 0, 0);
  }

  // ---- pictures of one image, in a card or large

  const legend = (item) => element('span', {class: 'legend'}, ...item.shown.map((label) => {
    const swatch = element('i', {class: 'swatch'});
    swatch.style.background = `rgb(${data.palette[label].join(', ')})`;
    return element('span', {}, swatch, data.classes[label]);
  }));

  function picture(item, part) {
    const there = part.name === 'image' || (part.name === 'truth' ? item.truth : item.made.includes(part.name));
    const caption = element('figcaption', {'data-caption': part.name}, part.title);
    if (!there) return element('figure', {}, element('div', {class: 'missing'}, part.name === 'truth' ? 'no mask' : 'not there'), caption);
    const names = item.shown.map((label) => data.classes[label]).join(', ') || 'no class';
    const lazy = {loading: 'lazy', decoding: 'async'}, place = `images/${item.number}_`;
    const frame = element('div', {class: 'picture'}, element('img', {src: `${place}image.jpg`, ...lazy,
      alt: part.name === 'image' ? `Photograph ${item.id}` : ''}));
    frame.style.aspectRatio = `${item.hw[1]} / ${item.hw[0]}`;
    if (part.kind === 'activation') frame.append(element('canvas', {role: 'img', 'data-method': part.name}));
    else if (part.name !== 'image') frame.append(element('img', {src: `${place}${part.name}.png`, ...lazy, alt: `${part.title} of ${item.id}: ${names}`}));
    return element('figure', {}, frame, caption);
  }

  const pictures = (item) => element('div', {class: 'pictures'}, ...parts.map((part) => picture(item, part)));

  const score = (item, name) => {
    const values = item.miou[name];
    return values === undefined ? undefined : values[byName[name].kind === 'activation' ? positionOf(byName[name]) : 0];
  };

  /** Whether `root`, a card or the viewer, still shows the item: the user may have gone on while its data were on their way. */
  const shows = (root, item) => root !== viewer || state.open === item;

  /** Captions with scores, and the canvases, at the threshold of now. */
  async function refresh(item, root, step) {
    root.classList.toggle('activations', state.activations);
    for (const {name, title} of data.methods) {
      const caption = root.querySelector(`[data-caption="${name}"]`);
      if (caption && item.miou[name]) caption.replaceChildren(title, ' ', element('b', {}, inPercent(score(item, name))));
    }
    if (!root.querySelector('canvas')) return;
    const planes = await load(item);
    if (!shows(root, item)) return;
    for (const canvas of root.querySelectorAll('canvas')) {
      const method = byName[canvas.dataset.method], position = positionOf(method);
      canvas.setAttribute('aria-label', state.activations ? `${method.title}'s activation of ${item.id}`
        : `${method.title}'s mask of ${item.id} at threshold ${threshold(position)}`);
      paint(canvas, item, planes[method.name], position, step);
    }
  }

  const report = (item, root) => (error) => {
    if (!shows(root, item)) return;
    for (const canvas of root.querySelectorAll('canvas')) canvas.parentElement.replaceChildren(element('div', {class: 'missing'}, error.message));
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

  const NONE = -1;
  const sorts = [
    {title: 'place in the list', of: (item) => -item.number},
    ...data.methods.filter(({name}) => items.some((item) => item.miou[name])).map(({name, title, kind}) => ({
      title: kind === 'activation' ? `${title} at this threshold` : title, of: (item) => score(item, name) ?? NONE})),
  ];
  if (byName.cam && byName.amn_cam && sorts.length > 2) sorts.push({title: 'gain of AMN over CAM', of: (item) => {
    const [cam, amn] = [score(item, 'cam'), score(item, 'amn_cam')];
    return cam == null || amn == null ? -Infinity : amn - cam;
  }});

  function fill(select, options) {
    select.replaceChildren(...options.map(([value, title]) => element('option', {value}, title)));
  }

  function arrange() {
    const text = $('search').value.trim().toLowerCase(), label = Number($('class').value), group = $('group').value;
    const {of} = sorts[Number($('sort').value)], sign = state.ascending ? 1 : -1;
    state.shown = items.filter((item) => item.id.toLowerCase().includes(text) && (!label || item.shown.includes(label))
      && (!group || item.group === group));
    const value = new Map(state.shown.map((item) => [item, of(item)]));
    state.shown.sort((a, b) => sign * (value.get(a) - value.get(b)) || a.number - b.number);
    $('cards').replaceChildren(...state.shown.map((item) => item.card));
    $('found').textContent = `${state.shown.length} of ${items.length}`;
    $('none').hidden = state.shown.length > 0;
    const byPlace = $('sort').value === '0';
    $('direction').textContent = state.ascending ? byPlace ? '↑ last first' : '↑ lowest first' : byPlace ? '↓ first first' : '↓ highest first';
  }

  // ---- threshold

  function drawCurves(svg) {
    const best = Math.max(1, ...activations.flatMap(({curve}) => curve ?? []));
    for (const {name, curve} of activations) {
      if (!curve) continue;
      const line = document.createElementNS(svg.namespaceURI, 'polyline');
      line.setAttribute('points', curve.map((value, position) => `${position},${100 - 100 * (value ?? 0) / best}`).join(' '));
      line.setAttribute('class', `key-${name}`);
      svg.append(line);
    }
    for (const {name} of activations) {
      const mark = document.createElementNS(svg.namespaceURI, 'line');
      mark.setAttribute('y1', 0);
      mark.setAttribute('y2', 100);
      mark.setAttribute('class', `key-${name}`);
      mark.dataset.method = name;
      svg.append(mark);
    }
  }

  const ofImages = ({name}) => data.scored[name] === data.total ? 'all images' : `${data.scored[name]} of ${data.total} images`;

  function showThreshold() {
    for (const slider of document.querySelectorAll('.slider')) {
      slider.value = state.position ?? start;
      slider.setAttribute('aria-valuetext', state.position === null
        ? 'each at its own: ' + activations.map((method) => `${method.title} ${threshold(method.position)}`).join(', ')
        : threshold(state.position));
    }
    for (const mark of document.querySelectorAll('.track line')) {
      const at = positionOf(byName[mark.dataset.method]);
      mark.setAttribute('x1', at);
      mark.setAttribute('x2', at);
    }
    for (const readout of document.querySelectorAll('.readout')) {
      const large = readout.closest('dialog') ? state.open : null;
      readout.replaceChildren(...activations.flatMap((method) => {
        const position = positionOf(method);
        const value = large ? score(large, method.name) : method.curve?.[position];
        return [element('b', {class: `key-${method.name}`}, method.title), element('span', {}, `at ${threshold(position)}`),
          element('span', {}, large ? 'mIoU ' : `${ofImages(method)} `, element('b', {'data-score': method.name}, inPercent(value)))];
      }));
    }
    $('own').disabled = state.position === null;
  }

  let asked = false;
  /** Redraw what is in sight, once a frame. */
  function changed() {
    showThreshold();
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
    refresh(item, viewer, 1).catch(report(item, viewer));
  }

  function step(by) {
    const next = state.shown[state.shown.indexOf(state.open) + by];
    if (next) show(next);
  }

  viewer.addEventListener('close', () => {
    const item = state.open;
    state.open = null;
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
    if (planes.truth) told.push(`truth: ${planes.truth[index] === 255 ? 'left out' : data.classes[planes.truth[index]]}`);
    for (const {name, title} of activations) {
      if (!planes[name]) continue;
      const passed = planes[name].passed[index];
      const range = passed === 0 ? '0' : passed > 100 ? 'above 1' : `${threshold(passed - 1)} to ${threshold(passed)}`;
      told.push(`${title}: ${passed ? data.classes[planes[name].strongest[index]] + ', ' : ''}${range}`);
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
  fill($('sort'), sorts.map(({title}, number) => [number, title]));
  $('sort').value = Math.max(0, sorts.findIndex(({title}) => title.startsWith('AMN ')));
  $('search').addEventListener('input', arrange);
  for (const id of ['class', 'group', 'sort']) $(id).addEventListener('change', arrange);
  $('direction').addEventListener('click', () => { state.ascending = !state.ascending; arrange(); });
  $('clear').addEventListener('click', () => { for (const id of ['search', 'class', 'group']) $(id).value = ''; arrange(); });
  for (const slider of document.querySelectorAll('.slider')) {
    slider.addEventListener('input', () => moveTo(Number(slider.value)));
    slider.addEventListener('change', () => { if (!state.open && sorts[Number($('sort').value)].title !== 'place in the list') arrange(); });
  }
  $('own').addEventListener('click', () => { moveTo(null); arrange(); });
  $('mode').addEventListener('click', () => {
    state.activations = !state.activations;
    $('mode').setAttribute('aria-pressed', state.activations);
    changed();
  });
  for (const svg of document.querySelectorAll('.track svg')) drawCurves(svg);
  if (!activations.length) for (const bar of document.querySelectorAll('.threshold')) bar.hidden = true;
  items.forEach(makeCard);
  arrange();
  showThreshold();
})();
