// Layers that other commands added to an edition: the generalised map, polygons, and changes since other editions.
import WebGLTileLayer from 'ol/layer/WebGLTile.js';
import DataTile from 'ol/source/DataTile.js';
import TileGrid from 'ol/tilegrid/TileGrid.js';
import {get, slice} from 'zarrita';
import {Edition} from './edition.js';
import {EditionLayers} from './layers.js';
import {Polygons} from './polygons.js';

/** Above this resolution in metres a change is not drawn: it has no coarser levels. */
const COARSEST_CHANGE = 1;
const SIDE = 500;

/** The generalised map of an edition: its classes, with confidence and domains of the map itself. */
class Generalised extends Edition {
  constructor(edition) {
    super(edition.url, {attributes: edition.attributes, consolidated_metadata: {metadata: edition.nodes}}, edition.page);
    Object.assign(this, {coverage: edition.coverage, masks: edition.masks, onError: edition.onError});
  }

  pathOf(path, layer) {
    return layer === 'landcover' ? `generalised/${path.replace('product.zarr', 'landcover.zarr')}/${layer}` : super.pathOf(path, layer);
  }
}

/** Drawn as an edition, with opacities, classes and threshold of the state. */
class GeneralisedLayer {
  constructor(edition, projection, state) {
    this.edition = new Generalised(edition);
    this.share = 0;
    this.layers = new EditionLayers(this.edition, projection, state);
    this.all = this.layers.all;
  }

  update(state) {
    this.layers.update(state);
  }

  refresh() {
    this.layers.refresh();
  }

  async at() {
    return null;
  }
}

/** The raster of a change between two editions, above the map, which is pale. */
class ChangeLayer {
  constructor(edition, projection, {name}) {
    Object.assign(this, {edition, path: `${name}/change.zarr`, share: 0.25});
    const {attributes} = edition.nodes[`${this.path}/change`];
    const [names, colours] = [attributes.flag_meanings, attributes.flag_colors].map((text) => text.split(' '));
    /** Kinds of pixels with data: name and colour. */
    this.kinds = names.map((kind, i) => [kind, colours[i]]);
    const resolution = edition.levels.at(-1).resolution;
    const source = new DataTile({
      loader: (z, x, y) => this.read(x, y), bandCount: 4, interpolate: false, transition: 0, wrapX: false, projection,
      tileGrid: new TileGrid({extent: edition.bbox, origin: [edition.bbox[0], edition.bbox[3]], resolutions: [resolution], tileSize: SIDE}), tileSize: SIDE,
    });
    const value = ['round', ['*', ['band', 1], 255]];
    const color = ['palette', value, ['rgba(0,0,0,0)', 'rgba(0,0,0,0)', ...colours.slice(2)]];
    this.layer = new WebGLTileLayer({source, style: {color}, className: 'change', maxResolution: COARSEST_CHANGE});
    this.all = [this.layer];
  }

  async read(x, y) {
    const level = this.edition.levels.at(-1);
    const [rows, cols] = level.shape;
    const [top, left] = [y * SIDE, x * SIDE];
    const [bottom, right] = [Math.min(top + SIDE, rows), Math.min(left + SIDE, cols)];
    const pixels = new Uint8Array(SIDE * SIDE * 4);
    if (!this.edition.covered(level, top, left, bottom, right)) return pixels;
    try {
      const {data} = await get(await this.edition.array(`${this.path}/change`), [slice(top, bottom), slice(left, right)]);
      for (let row = 0, i = 0; row < bottom - top; row++) {
        for (let to = row * SIDE * 4, col = 0; col < right - left; col++, to += 4) [pixels[to], pixels[to + 3]] = [data[i++], 255];
      }
    } catch (error) {
      this.edition.onError(error);
      throw error;
    }
    return pixels;
  }

  update() {}

  refresh() {}

  /** Kind of the change, both classes and the lower confidence at a place, or null. */
  async at([x, y]) {
    const level = this.edition.levels.at(-1);
    const [left, , , top] = this.edition.bbox;
    const [row, col] = [Math.floor((top - y) / level.resolution), Math.floor((x - left) / level.resolution)];
    const inside = row >= 0 && col >= 0 && row < level.shape[0] && col < level.shape[1];
    if (!inside || !this.edition.covered(level, row, col, row + 1, col + 1)) return null;
    const place = [slice(row, row + 1), slice(col, col + 1)];
    const read = async (layer) => (await get(await this.edition.array(`${this.path}/${layer}`), place)).data[0];
    const kind = await read('change');
    if (!kind) return null;
    // Files of the other layers are there only where something changed.
    const changed = this.kinds[kind][0].endsWith('_change');
    const [from, to, confidence] = changed ? await Promise.all(['from', 'to', 'confidence'].map(read)) : [0, 0, 0];
    return {kind: this.kinds[kind][0], from, to, confidence};
  }
}

/** Opens one of the edition's added layers. */
export async function openOverlay(given, edition, projection, state) {
  if (given.kind === 'polygons') return new Polygons(edition, projection, given);
  if (given.kind === 'generalised') {
    await edition.add('generalised');
    return new GeneralisedLayer(edition, projection, state);
  }
  await edition.add(`${given.name}/change.zarr`);
  return new ChangeLayer(edition, projection, given);
}
