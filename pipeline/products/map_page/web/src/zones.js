// The campaign's zones, such as communes: their outlines, and a table of class shares that sorts and can be saved.
import Feature from 'ol/Feature.js';
import Polygon from 'ol/geom/Polygon.js';
import VectorLayer from 'ol/layer/Vector.js';
import VectorSource from 'ol/source/Vector.js';
import {Stroke, Style} from 'ol/style.js';
import {classColour} from './layers.js';
import {make} from './panel.js';

const MOST_ROWS = 200;
const line = (color, width) => new Style({stroke: new Stroke({color, width})});
const OUTLINE = [line('#fff', 3), line('#111', 1.2)];
const CHOSEN = [line('#000', 7), line('#ffd400', 4)];

export class Zones {
  /**
   * @param {object} edition
   * @param {(extent: number[]) => void} look shows a part of the map
   */
  constructor(edition, look) {
    Object.assign(this, {edition, look, sort: 'name', up: true, wanted: '', zones: null});
    this.layer = new VectorLayer({source: new VectorSource(), style: OUTLINE, visible: false, zIndex: 6});
  }

  /** Reads the zones once; true when they have just been read. */
  async read() {
    if (this.reading || !this.edition.page.zones) return false;
    this.reading = true;
    const answer = await fetch(new URL('map/zones.json', this.edition.url));
    if (!answer.ok) throw new Error(`map/zones.json: ${answer.status}`);
    const {zones, pixel_m2: area} = await answer.json();
    this.zones = zones.map(({name, pixels, rings}) => {
      const mapped = pixels.reduce((sum, n) => sum + n, 0) - pixels[0];
      const feature = featureOf(rings);
      return {name, feature, mapped_ha: (mapped * area) / 1e4, shares: pixels.map((n) => (mapped ? (100 * n) / mapped : 0))};
    });
    this.layer.getSource().addFeatures(this.zones.map((zone) => zone.feature));
    return true;
  }

  /** The classes that occur, from the most frequent to the rarest. */
  get classes() {
    const total = (value) => this.zones.reduce((sum, zone) => sum + zone.shares[value] * zone.mapped_ha, 0);
    return this.edition.page.classes.filter(({value}) => total(value) > 0).sort((a, b) => total(b.value) - total(a.value));
  }

  /** Fills an element with the table. */
  fill(element, state, say) {
    if (!this.zones) return;
    const {language} = state;
    const number = new Intl.NumberFormat(language, {minimumFractionDigits: 1, maximumFractionDigits: 1});
    const classes = this.classes;
    this.value ??= classes[0]?.value;
    const redraw = () => this.fill(element, state, say);
    const chosen = make('select', {id: 'zone-class', onchange: () => {
      [this.value, this.sort, this.up] = [Number(chosen.value), 'share', false];
      redraw();
      document.getElementById('zone-class').focus();
    }}, ...classes.map((c) => make('option', {value: String(c.value), selected: c.value === this.value}, c[language])));
    const search = make('input', {id: 'zone-search', type: 'search', value: this.wanted, oninput: () => {
      this.wanted = search.value;
      this.rows(body, more, state, say, number, classes);
    }});
    const body = make('tbody');
    const more = make('p', {class: 'quiet', role: 'status'});
    element.replaceChildren(
      make('div', {class: 'choice'}, make('label', {for: 'zone-class'}, say.class), chosen),
      make('div', {class: 'choice'}, make('label', {for: 'zone-search'}, say.search), search),
      make('table', {}, make('caption', {}, `${this.edition.page.zones}${say.colon} ${say.shares}`),
        make('thead', {}, make('tr', {}, ...['name', 'mapped_ha', 'share'].map((key) => this.heading(key, say, redraw)))), body),
      more,
      make('div', {class: 'buttons'}, make('button', {type: 'button', id: 'zone-csv', onclick: () => this.save(language, say)}, say.csv)));
    this.rows(body, more, state, say, number, classes);
  }

  heading(key, say, redraw) {
    const sorted = this.sort === key;
    const button = make('button', {type: 'button', id: `sort-${key}`, onclick: () => {
      [this.up, this.sort] = [sorted ? !this.up : key === 'name', key];
      redraw();
      document.getElementById(`sort-${key}`).focus();
    }}, say[key], make('span', {'aria-hidden': 'true'}, sorted ? (this.up ? ' ▲' : ' ▼') : ''));
    return make('th', {scope: 'col', 'aria-sort': sorted ? (this.up ? 'ascending' : 'descending') : 'none'}, button);
  }

  /** Zones in the chosen order. */
  sorted(language) {
    const key = (zone) => (this.sort === 'share' ? zone.shares[this.value] : zone[this.sort]);
    const {compare} = new Intl.Collator(language, {numeric: true});
    const order = this.sort === 'name' ? (a, b) => compare(a.name, b.name) : (a, b) => key(a) - key(b);
    return [...this.zones].sort((a, b) => (this.up ? order(a, b) : order(b, a)));
  }

  rows(body, more, state, say, number, classes) {
    const {language} = state;
    const plain = (text) => text.normalize('NFD').replace(/\p{M}/gu, '').toLowerCase();
    const found = this.sorted(language).filter((zone) => plain(zone.name).includes(plain(this.wanted)));
    const row = (zone) => {
      const named = classes.filter((c) => zone.shares[c.value] >= 0.05);
      const text = named.map((c) => `${c[language]} ${number.format(zone.shares[c.value])} %`).join(', ');
      const bar = make('div', {class: 'bar', role: 'img', 'aria-label': text || say.nodata, title: text});
      for (const c of named) {
        const part = make('span');
        part.style.width = `${zone.shares[c.value]}%`;
        part.style.backgroundColor = classColour(state, c);
        bar.append(part);
      }
      const name = make('button', {type: 'button', class: 'plain', onclick: () => this.choose(zone)}, zone.name);
      return [
        make('tr', {}, make('th', {scope: 'row'}, name), make('td', {}, number.format(zone.mapped_ha)), make('td', {}, `${number.format(zone.shares[this.value])} %`)),
        make('tr', {class: 'bars'}, make('td', {colspan: '3'}, bar)),
      ];
    };
    body.replaceChildren(...found.slice(0, MOST_ROWS).flatMap(row));
    const count = new Intl.NumberFormat(language);
    more.textContent = `${count.format(Math.min(found.length, MOST_ROWS))} / ${count.format(this.zones.length)}`;
  }

  choose(zone) {
    for (const {feature} of this.zones) feature.setStyle(feature === zone.feature ? CHOSEN : undefined);
    this.look(zone.feature.getGeometry().getExtent());
  }

  /** Saves hectares and shares of all classes in all zones. */
  save(language, say) {
    const quoted = (text) => (/[",\n\r;]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const {classes} = this;
    const lines = [
      [say.name, `${say.mapped_ha}`, ...classes.map((c) => `${c[language]} (%)`)],
      ...this.sorted(language).map((zone) => [guarded(zone.name), zone.mapped_ha.toFixed(4), ...classes.map((c) => zone.shares[c.value].toFixed(3))]),
    ].map((cells) => cells.map(quoted).join(','));
    const address = URL.createObjectURL(new Blob([`\uFEFF${lines.join('\r\n')}\r\n`], {type: 'text/csv'}));
    make('a', {href: address, download: `${this.edition.page.zones}.csv`}).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  }
}

function featureOf(rings) {
  return new Feature(new Polygon(rings.map((flat) => Array.from({length: flat.length / 2}, (_, i) => flat.slice(2 * i, 2 * i + 2)))));
}

/** A layer with the outline that a notebook gave. */
export function outlined(rings) {
  return new VectorLayer({source: new VectorSource({features: rings.length ? [featureOf(rings)] : []}), style: CHOSEN, zIndex: 7});
}

/** A name that no spreadsheet takes for a formula. */
function guarded(name) {
  return /^[=+\-@\t]/.test(name) ? `'${name}` : name;
}
