// The map page of an edition. Everything is read from the edition's own folder: no request goes to another host.
import 'ol/ol.css';
import './style.css';
import Feature from 'ol/Feature.js';
import Map from 'ol/Map.js';
import View from 'ol/View.js';
import {defaults as controls} from 'ol/control/defaults.js';
import ScaleLine from 'ol/control/ScaleLine.js';
import Point from 'ol/geom/Point.js';
import VectorLayer from 'ol/layer/Vector.js';
import {toLonLat} from 'ol/proj.js';
import {fromProjectionDefinition, register} from 'ol/proj/proj4.js';
import VectorSource from 'ol/source/Vector.js';
import {Circle, Fill, Stroke, Style} from 'ol/style.js';
import proj4 from 'proj4';
import {Edition} from './edition.js';
import {Difference} from './difference.js';
import {ImageryLayer, Vintage} from './lattice.js';
import {clip, EditionLayers} from './layers.js';
import {openOverlay} from './overlays.js';
import {fill, tell} from './panel.js';
import {query, read, write} from './state.js';
import {Tiles} from './tiles.js';
import {words} from './words.js';
import {outlined, Zones} from './zones.js';

const [panel, status, toggle, swipe, border, target] = ['panel', 'status', 'toggle', 'swipe', 'border', 'map'].map((id) => document.getElementById(id));

class Page {
  constructor(edition) {
    this.edition = edition;
    this.state = read(location);
    this.asked = null;
    edition.onError = (error) => this.fail(error);
    register(proj4);
    this.projection = fromProjectionDefinition(edition.attributes['proj:projjson']);
    this.layers = new EditionLayers(edition, this.projection, this.state);
    this.imagery = edition.page.served?.imagery ? new ImageryLayer(edition, this.projection) : null;
    this.tiles = new Tiles(edition, this.projection);
    this.zones = new Zones(edition, (extent) => this.map.getView().fit(extent, {padding: [40, 40, 40, 40]}));
    this.marker = new Feature();
    this.showPanel(window.innerWidth > 640);
    this.map = this.makeMap();
    this.leftOf = () => (this.other && !this.other.whole ? this.state.swipe / 1000 : 1);
    clip([...this.layers.all, ...(this.imagery?.all ?? [])], this.map, 'left', this.leftOf);
    this.map.on('click', (event) => this.ask(event.coordinate));
    this.map.on('moveend', () => this.moved());
    this.listen();
    this.translate();
    this.compare();
    this.choose();
    this.one();
  }

  makeMap() {
    const finest = this.edition.levels.at(-1).resolution;
    const ring = (color, width) => new Style({image: new Circle({radius: 9, fill: new Fill({color: '#0000'}), stroke: new Stroke({color, width})})});
    const marks = new VectorLayer({source: new VectorSource({features: [this.marker]}), style: [ring('#000', 5), ring('#fff', 2.5)], zIndex: 9});
    const view = new View({projection: this.projection, center: [0, 0], resolution: 1, minResolution: finest / 16, extent: this.edition.bbox, showFullExtent: true, constrainOnlyCenter: true, enableRotation: false});
    const map = new Map({
      target,
      layers: [...(this.imagery?.all ?? []), ...this.layers.all, this.tiles.layer, this.zones.layer, outlined(this.edition.page.outline ?? []), marks],
      controls: controls({attribution: false, rotate: false}).extend([new ScaleLine()]),
      view,
    });
    this.look(map);
    return map;
  }

  look(map = this.map) {
    const view = map.getView();
    if (this.state.view) {
      const [x, y, resolution] = this.state.view;
      view.setCenter([x, y]);
      view.setResolution(resolution);
    } else {
      view.fit(this.edition.masks?.boundsOf(this.state.domain) ?? this.edition.mapped, {size: map.getSize(), padding: [24, 24, 24, 24]});
    }
  }

  listen() {
    window.addEventListener('hashchange', () => {
      if (location.hash === write(this.state)) return;
      this.state = read(location);
      this.look();
      this.translate();
      this.update();
      this.compare();
      this.choose();
    });
    target.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && event.target === target) this.ask(this.map.getView().getCenter());
    });
    toggle.addEventListener('click', () => this.showPanel(panel.hidden));
    swipe.addEventListener('input', () => this.change({swipe: Number(swipe.value)}));
  }

  showPanel(visible) {
    panel.hidden = !visible;
    toggle.setAttribute('aria-expanded', String(visible));
    document.body.classList.toggle('with-panel', visible);
    this.map?.updateSize();
  }

  change(part, rebuild = false) {
    Object.assign(this.state, part);
    if (rebuild) this.translate();
    if ('with' in part || 'diff' in part) this.compare();
    if ('layer' in part) this.choose();
    if ('domain' in part) this.one(true);
    this.update();
  }

  update() {
    this.layers.update(this.state, this.other?.whole ? 0.25 : (this.overlay?.share ?? 1));
    this.layers.landcover.setMinResolution(this.overlay?.coarsest ?? 0);
    this.overlay?.update(this.state);
    for (const layer of this.overlay && this.other?.whole ? this.overlay.all : []) layer.setVisible(false);
    this.imagery?.update(this.state, true);
    this.other?.layers.update(this.state);
    this.tiles.layer.setVisible(this.state.tiles > 0);
    this.zones.layer.setVisible(this.state.zones > 0);
    const news = [...(this.state.tiles ? [this.tiles.ask()] : []), ...(this.state.zones ? [this.zones.read()] : [])];
    for (const one of news) one.then((read) => read && this.translate()).catch((error) => this.fail(error));
    swipe.value = String(this.state.swipe);
    border.hidden = swipe.hidden;
    document.body.classList.toggle('with-swipe', !swipe.hidden);
    document.body.style.setProperty('--swipe', String(this.state.swipe / 1000));
    this.map.render();
    this.save();
  }

  translate() {
    const say = words(this.state.language);
    document.documentElement.lang = this.state.language;
    document.documentElement.dataset.theme = this.state.theme;
    document.title = say.title;
    target.setAttribute('aria-label', say.map);
    toggle.setAttribute('aria-label', say.panel);
    swipe.setAttribute('aria-label', say.swipe);
    for (const [name, title] of [['.ol-zoom-in', say.zoomIn], ['.ol-zoom-out', say.zoomOut]]) {
      for (const button of target.querySelectorAll(name)) button.title = title;
    }
    const focused = document.activeElement?.id;
    fill(panel, this.state, this.edition, {overlay: this.overlay, tiles: this.tiles, zones: this.zones, change: (part, rebuild) => this.change(part, rebuild), whole: () => this.whole(), copy: () => this.copy()});
    if (focused) document.getElementById(focused)?.focus();
    if (this.asked) tell(panel, this.state, this.asked);
  }

  /** What is drawn right of the swipe: its layers, and the edition that a click asks; null for nothing. */
  async beside(name) {
    if (name === 'imagery' && this.imagery) return {edition: this.edition, layers: new ImageryLayer(this.edition, this.projection)};
    const edition = await this.mapOf(name);
    if (!edition) return null;
    const drawn = this.state.diff ? new Difference(this.edition, edition) : edition;
    return {edition, layers: new EditionLayers(drawn, this.projection, this.state), whole: this.state.diff > 0};
  }

  /** An earlier edition, or the map of one domain; nothing for another name. */
  async mapOf(name) {
    if (this.edition.page.served?.vintages.includes(name)) return new Vintage(this.edition, name);
    if (!this.edition.page.others.includes(name)) return null;
    const edition = await Edition.open(new URL(`../${name}/`, this.edition.url));
    edition.onError = this.edition.onError;
    await edition.show(this.edition.only);
    return edition;
  }

  async compare() {
    const {with: name, diff} = this.state;
    for (const layer of this.other?.layers.all ?? []) this.map.removeLayer(layer);
    this.other = null;
    const other = await this.beside(name).catch((error) => this.fail(error));
    if (this.state.with !== name || this.state.diff !== diff) return;
    swipe.hidden = !other || other.whole;
    if (other) {
      clip(other.layers.all, this.map, 'right', () => (other.whole ? 0 : this.state.swipe / 1000));
      for (const layer of other.layers.all) this.map.addLayer(layer);
      this.other = other;
    }
    this.update();
  }

  /** Shows an added layer of the edition over its map, or none. */
  async choose() {
    const given = (this.edition.page.layers ?? []).find(({name}) => name === this.state.layer);
    for (const layer of this.overlay?.all ?? []) this.map.removeLayer(layer);
    this.overlay = null;
    const overlay = given && (await openOverlay(given, this.edition, this.projection, this.state).catch((error) => this.fail(error)));
    if (overlay && this.state.layer === given.name) {
      await overlay.edition.show(this.edition.only);
      clip(overlay.all, this.map, 'left', this.leftOf);
      // Confidence is drawn above polygons; a generalised map has its own.
      const below = given.kind === 'polygons' ? this.layers.landcover : this.layers.confidence;
      const drawn = this.map.getLayers();
      const at = drawn.getArray().indexOf(below) + 1;
      overlay.all.forEach((layer, i) => drawn.insertAt(at + i, layer));
      this.overlay = overlay;
    }
    this.translate();
    this.update();
  }

  /** Shows one domain, or all. */
  async one(move = false) {
    const name = this.edition.page.domains.some((d) => d.name === this.state.domain) ? this.state.domain : '';
    const over = this.overlay && this.overlay.edition !== this.edition ? [{edition: this.overlay.edition, layers: this.overlay}] : [];
    const sides = [{edition: this.edition, layers: this.layers}, ...over, ...(this.other ? [this.other] : [])];
    try {
      const shown = await Promise.all(sides.map(({edition}) => edition.show(name)));
      if (shown.some(Boolean)) for (const layers of [this.imagery, ...sides.map((side) => side.layers)]) layers?.refresh();
    } catch (error) {
      this.fail(error);
      return;
    }
    if (name && (move || !this.state.view)) this.whole();
  }

  async ask(coordinate) {
    try {
      const edition = this.shownAt(coordinate);
      const found = await edition.at(coordinate);
      const overlay = edition === this.edition && !this.other?.whole ? this.overlay : null;
      const before = this.other?.whole ? await this.other.edition.at(coordinate) : null;
      const generalised = overlay && overlay.edition !== edition ? await overlay.edition.at(coordinate) : null;
      const over = await overlay?.at(coordinate);
      this.asked = {edition, found, before, generalised, polygon: over?.id ? over : null, change: over?.kind ? over : null, tile: this.tiles.at(...this.edition.tileAt(coordinate)), lonLat: toLonLat(coordinate, this.projection)};
    } catch (error) {
      this.fail(error);
      return;
    }
    this.marker.setGeometry(new Point(coordinate));
    this.showPanel(true);
    tell(panel, this.state, this.asked);
  }

  /** The edition that is drawn at a place: the other one right of the swipe. */
  shownAt(coordinate) {
    const at = this.map.getPixelFromCoordinate(coordinate)[0] / this.map.getSize()[0];
    return this.other && !this.other.whole && at > this.state.swipe / 1000 ? this.other.edition : this.edition;
  }

  moved() {
    const view = this.map.getView();
    this.state.view = [...view.getCenter(), view.getResolution()];
    this.save();
  }

  save() {
    history.replaceState(null, '', `${location.pathname}${query(this.state)}${write(this.state)}`);
  }

  whole() {
    this.state.view = null;
    this.look();
  }

  async copy() {
    this.save();
    await navigator.clipboard?.writeText(location.href).catch(() => undefined);
    status.textContent = words(this.state.language).copied;
  }

  fail(error) {
    status.textContent = `${words(this.state.language).wrong}${words(this.state.language).colon} ${(error.cause ?? error).message}`;
  }
}

try {
  window.landcover = new Page(await Edition.open(new URL('../', location.href).href.replace(/#.*/, '')));
  document.body.dataset.ready = 'true';
} catch (error) {
  status.textContent = `${words(read(location).language).wrong}: ${error.message}`;
  console.error(error.cause ?? error);
}
