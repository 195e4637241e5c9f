// The panel: legend with class filter, sliders and choices. It is built anew when the language changes.
import {classColour, rampCss} from './layers.js';
import {pattern, STATES} from './tiles.js';
import {LANGUAGES, words} from './words.js';

/** An element with attributes, listeners (`onclick`) and children; text is never read as HTML. */
export function make(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== 'string') element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const number = (value, language) => new Intl.NumberFormat(language, {minimumFractionDigits: 1, maximumFractionDigits: 1}).format(value);

function slider(id, label, state, change, {unit = '%'} = {}) {
  const output = make('output', {for: id}, `${state[id]} ${unit}`);
  const input = make('input', {
    id, type: 'range', min: '0', max: '100', step: '1', value: String(state[id]),
    oninput: () => {
      output.textContent = `${input.value} ${unit}`;
      change({[id]: Number(input.value)});
    },
  });
  return make('div', {class: 'slider'}, make('label', {for: id}, label), output, input);
}

function choice(id, label, options, state, change) {
  const select = make('select', {id, onchange: () => change({[id]: select.value}, true)});
  for (const [value, text] of Object.entries(options)) {
    select.append(make('option', {value, selected: state[id] === value}, text));
  }
  return make('div', {class: 'choice'}, make('label', {for: id}, label), select);
}

function legend(state, edition, change, say) {
  const boxes = [];
  const rows = edition.page.classes.filter((entry) => entry.live).map((entry) => {
    const id = `class-${entry.value}`;
    const box = make('input', {id, type: 'checkbox', checked: !state.off.has(entry.value), onchange: () => toggled()});
    box.dataset.value = entry.value;
    boxes.push(box);
    const patch = make('span', {class: 'patch'});
    patch.style.backgroundColor = classColour(state, entry);
    return make('li', {}, box, make('label', {for: id}, patch, entry[state.language]));
  });
  const toggled = () => change({off: new Set(boxes.filter((b) => !b.checked).map((b) => Number(b.dataset.value)))});
  const all = (checked) => () => {
    for (const box of boxes) box.checked = checked;
    toggled();
  };
  return make('fieldset', {id: 'legend'},
    make('legend', {}, say.classes),
    make('div', {class: 'buttons'},
      make('button', {type: 'button', id: 'all', onclick: all(true)}, say.all),
      make('button', {type: 'button', id: 'none', onclick: all(false)}, say.none)),
    make('ul', {}, ...rows));
}

/** The switch of the layer of tiles, and its legend with the number of tiles in each state. */
function tileStates(state, tiles, change, say) {
  const counts = tiles.count();
  const rows = Object.keys(STATES).filter((name) => (name !== 'again' || tiles.knowsAgain) && (name !== 'novel' || tiles.novel.size)).map((name) => {
    const sign = make('canvas', {width: 26, height: 26, class: 'sign', 'aria-hidden': 'true'});
    pattern(sign.getContext('2d'), name, 1, 1, 24);
    return make('li', {}, sign, `${say.states[name]}${say.colon} ${counts[name] === null ? '…' : new Intl.NumberFormat(state.language).format(counts[name])}`);
  });
  const box = make('input', {id: 'tiles', type: 'checkbox', checked: state.tiles > 0, onchange: () => change({tiles: Number(box.checked)}, true)});
  return make('div', {class: 'switch'}, box, make('label', {for: 'tiles'}, say.tiles),
    make('ul', {hidden: !state.tiles, id: 'states'}, ...rows));
}

/** The switch between a swipe and the pixels that differ. */
function difference(state, change, say) {
  const box = make('input', {id: 'diff', type: 'checkbox', checked: state.diff > 0, onchange: () => change({diff: Number(box.checked)}, true)});
  return make('div', {class: 'switch'}, box, make('label', {for: 'diff'}, say.differ), ...(state.diff ? [make('p', {class: 'quiet'}, say.differHint)] : []));
}

/** The choice between the map and the layers that other commands added to the edition. */
function layerChoice(state, edition, overlay, change, say) {
  const layers = edition.page.layers ?? [];
  if (!layers.length) return [];
  const names = Object.fromEntries(layers.map(({name, kind}) => [name, layerName(name, kind, say)]));
  const kinds = (overlay?.kinds ?? []).slice(2).map(([kind, colour]) => {
    const patch = make('span', {class: 'patch'});
    patch.style.backgroundColor = colour;
    return make('li', {}, patch, say.changes[kind] ?? kind);
  });
  const hint = overlay && say.layerHints[layers.find(({name}) => name === state.layer)?.kind];
  return [
    choice('layer', say.layer, {'': say.landcover, ...names}, state, change),
    ...(kinds.length ? [make('div', {class: 'switch'}, make('ul', {id: 'kinds'}, ...kinds))] : []),
    ...(hint ? [make('p', {class: 'quiet'}, hint)] : []),
  ];
}

/** The name of an added layer, such as `change-000001-generalised`. */
function layerName(name, kind, say) {
  const [, rest, suffix] = /^[a-z]+(?:-(\w+))?(-generalised)?$/.exec(name);
  if (kind === 'change') return `${say.changeSince} ${Number(rest)}${suffix ? `, ${say.generalised}` : ''}`;
  return kind === 'polygons' ? `${say.polygons}${rest ? ` ${rest}` : ''}` : say.generalised;
}

/** How strongly the imagery is drawn under the map; or why there is none. */
function imagery(state, edition, change, say) {
  const {served} = edition.page;
  if (!served?.imagery) return [make('p', {class: 'quiet', id: 'no-imagery'}, served ? say.imageryAbsent : say.imageryElsewhere)];
  return [slider('imagery', say.imageryBelow, state, change), make('p', {class: 'quiet'}, say.imageryHint)];
}

/** The switch of the zones, and their table. */
function zoneTable(state, zones, edition, change, say) {
  const table = make('div', {id: 'zone-table', hidden: !state.zones});
  const box = make('input', {id: 'zones', type: 'checkbox', checked: state.zones > 0, onchange: () => change({zones: Number(box.checked)}, true)});
  if (state.zones) zones.fill(table, state, say);
  return make('div', {class: 'switch'}, box, make('label', {for: 'zones'}, `${say.zones}${say.colon} ${edition.page.zones}`), table);
}

/**
 * Fills the panel.
 * @param {HTMLElement} panel
 * @param {object} state of the page
 * @param {object} edition that is shown
 * @param {object} actions `change(part, rebuild)`, `whole()`, `copy()`; and `tiles`, `zones` and `overlay`
 */
export function fill(panel, state, edition, {change, whole, copy, tiles, zones, overlay}) {
  const say = words(state.language);
  const {number: edited, created} = edition.page;
  const day = created && new Intl.DateTimeFormat(state.language, {dateStyle: 'long', timeZone: 'UTC'}).format(new Date(created));
  const others = {
    '': say.nothing,
    ...(edition.page.served?.imagery ? {imagery: say.imagery} : {}),
    ...Object.fromEntries(edition.page.others.map((n) => [n, `${say.edition} ${Number(n)}`])),
    ...Object.fromEntries((edition.page.served?.vintages ?? []).map((name) => [name, `${say.map1} ${name}`])),
  };
  const domains = edition.page.domains.map((d) => d.name).sort();
  const ramp = make('div', {class: 'ramp', role: 'img', 'aria-label': say.confidence});
  ramp.style.background = `linear-gradient(to right, ${rampCss})`;
  panel.setAttribute('aria-label', say.panel);
  panel.replaceChildren(
    make('h1', {}, say.title),
    make('p', {class: 'quiet'}, `${say.edition} ${edited}${day ? `, ${say.published} ${day}` : ''}`),
    make('section', {id: 'here', 'aria-live': 'polite'}, make('h2', {}, say.here), make('p', {class: 'quiet'}, say.hint)),
    ...layerChoice(state, edition, overlay, change, say),
    slider('landcover', say.landcover, state, change),
    slider('confidence', say.confidence, state, change),
    make('div', {class: 'ends'}, make('span', {}, `0 % ${say.low}`), ramp, make('span', {}, `100 % ${say.high}`)),
    slider('least', say.least, state, change),
    ...imagery(state, edition, change, say),
    legend(state, edition, change, say),
    choice('palette', say.palette, {flair: say.flair, safe: say.safe}, state, change),
    ...(Object.keys(others).length > 1 ? [choice('with', say.compare, others, state, change)] : []),
    ...(state.with && state.with !== 'imagery' ? [difference(state, change, say)] : []),
    ...(domains.length > 1 ? [choice('domain', say.domain, {'': say.every, ...Object.fromEntries(domains.map((d) => [d, d]))}, state, change)] : []),
    tileStates(state, tiles, change, say),
    ...(edition.page.zones ? [zoneTable(state, zones, edition, change, say)] : []),
    choice('language', say.language, LANGUAGES, state, change),
    choice('theme', say.theme, {auto: say.auto, light: say.light, dark: say.dark}, state, change),
    make('div', {class: 'buttons'},
      make('button', {type: 'button', id: 'whole', onclick: whole}, say.whole),
      make('button', {type: 'button', id: 'copy', onclick: copy}, say.link)),
    make('p', {class: 'quiet'}, edition.page.attribution.join(' · '), ' ', make('a', {href: 'LICENSES.txt'}, say.licence)),
  );
}

/** Shows what is at a place. */
export function tell(panel, state, {edition, found, before, generalised, polygon, change, tile, lonLat}) {
  const say = words(state.language);
  const rows = [];
  const row = (term, ...value) => rows.push(make('dt', {}, term), make('dd', {}, ...value));
  const named = (value) => edition.page.classes.find((c) => c.value === value)?.[state.language] ?? say.nodata;
  const percent = (share) => `${number(100 * share, state.language)} %`;
  if (polygon) {
    row(say.polygon, named(polygon.landcover));
    row(say.area, `${number(polygon.area_m2, state.language)} m² (${say.ellipsoid} ${number(polygon.area_ellipsoid_m2, state.language)} m²)`);
    row(say.confidence, `${percent(polygon.confidence_mean)}, ${say.tenth} ${percent(polygon.confidence_p10)}`);
    row(say.domain, polygon.domain ?? say.nobody);
    if (polygon.date) row(say.dates, polygon.date.replace('/', ' – '));
    row(say.edition, String(polygon.edition));
    row('id', polygon.id);
  }
  if (change) {
    row(say.change, say.changes[change.kind] ?? change.kind);
    if (change.to) row(say.fromTo, `${named(change.from)} → ${named(change.to)}, ${percent(change.confidence / 255)}`);
  }
  if (generalised) row(say.generalised, named(generalised.value));
  if (found) {
    const entry = edition.page.classes.find((c) => c.value === found.value);
    row(polygon ? say.pixel : say.class, entry ? entry[state.language] : say.nodata);
    if (entry) row(say.confidence, `${number((found.confidence / 255) * 100, state.language)} %`);
    const other = before && edition.page.classes.find((c) => c.value === before.value);
    if (other) row(say.otherMap, `${other[state.language]}, ${number((before.confidence / 255) * 100, state.language)} %`);
    row(say.domain, found.domain?.name ?? say.nobody);
    if (found.domain) row(say.dates, found.domain.acquired.join(' – ') || String(found.domain.year));
    row(say.tile, found.tile);
    if (tile) row(say.state, say.states[tile] + (tile === 'again' ? `${say.colon} ${say.why}` : ''));
    if ((edition.page.others.length || state.with) && !edition.name) row(say.edition, String(edition.page.number));
    if (found.domain && edition.page.products) {
      const file = (end) => edition.fileOf(found.domain.name, `${found.domain.name}-${found.tile}${end}`);
      row(say.files,
        make('a', {href: file('-landcover.tif')}, 'COG'), ' · ',
        make('a', {href: file('.json')}, say.item));
    }
  }
  const [lon, lat] = lonLat;
  row(say.place, `${lat.toFixed(6)}, ${lon.toFixed(6)}`);
  const here = panel.querySelector('#here');
  here.replaceChildren(make('h2', {}, say.here), ...(found ? [] : [make('p', {}, say.outside)]), make('dl', {}, ...rows));
  here.dataset.polygon = polygon?.id ?? '';
  here.dataset.generalised = generalised?.value ?? '';
  here.dataset.change = change?.kind ?? '';
  here.dataset.value = found?.value ?? '';
  here.dataset.confidence = found?.confidence ?? '';
  here.dataset.domain = found?.domain?.code ?? '';
}
