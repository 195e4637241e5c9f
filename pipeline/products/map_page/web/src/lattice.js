// What the campaign's machine cuts into tiles when asked: imagery, and the maps of single domains. See lattice_tiles.py.
import WebGLTileLayer from 'ol/layer/WebGLTile.js';
import DataTile from 'ol/source/DataTile.js';
import TileGrid from 'ol/tilegrid/TileGrid.js';

const SIDE = 512;
const RESOLUTIONS = [12.8, 6.4, 3.2, 1.6, 0.8, 0.4, 0.2];
/** Above this resolution nothing is asked for: a screen would have hundreds of files. */
const COARSEST = 2 * RESOLUTIONS[0];

function latticeGrid(bbox) {
  return new TileGrid({extent: bbox, origin: [bbox[0], bbox[3]], resolutions: RESOLUTIONS, tileSize: SIDE});
}

/** Asks the campaign's machine, whose words are in the error. */
async function askCampaign(edition, path, options) {
  const answer = await fetch(new URL(path, new URL('map/', edition.url)), options);
  if (!answer.ok) throw new Error((await answer.text()) || `${path}: ${answer.status}`);
  return answer;
}

/** The imagery of one domain, or of those that own the ground. */
export class ImageryLayer {
  constructor(edition, projection) {
    const source = new DataTile({
      loader: async (z, x, y, {signal}) => {
        const path = `${edition.page.served.imagery}${edition.only || 'all'}/${z}/${x}/${y}`;
        try {
          return await createImageBitmap(await (await askCampaign(edition, path, {signal})).blob());
        } catch (error) {
          if (!signal.aborted) edition.onError(error);
          throw error;
        }
      },
      bandCount: 4, interpolate: true, transition: 0, wrapX: false, projection, tileGrid: latticeGrid(edition.bbox), tileSize: SIDE,
    });
    this.layer = new WebGLTileLayer({source, className: 'imagery', maxResolution: COARSEST});
    this.all = [this.layer];
  }

  /** Beside the map it is always drawn, below it as strongly as the state says. */
  update(state, below = false) {
    this.layer.setOpacity(below ? state.imagery / 100 : 1);
    this.layer.setVisible(!below || state.imagery > 0);
  }

  refresh() {
    this.layer.getSource().refresh();
  }
}

/** The map of one domain from its own files, which is drawn as an edition is. */
export class Vintage {
  constructor(edition, name) {
    Object.assign(this, {edition, name, bbox: edition.bbox, page: edition.page, coarsest: COARSEST});
    this.levels = RESOLUTIONS.map((resolution) => ({resolution, side: SIDE}));
  }

  fileOf(...names) {
    return this.edition.fileOf(...names);
  }

  /** No other domain is on it. */
  async show() {
    return false;
  }

  /** Class and confidence of a tile of the map: bytes (y, x, 4), of which the last two are 0 and 255. */
  async tile(z, x, y, signal) {
    return interleaved(await this.read(z, x, y, signal), SIDE);
  }

  async read(z, x, y, signal) {
    try {
      const answer = await askCampaign(this.edition, `${this.page.served.maps}${this.name}/${z}/${x}/${y}`, {signal});
      return new Uint8Array(await answer.arrayBuffer());
    } catch (error) {
      if (!signal?.aborted) this.edition.onError(error);
      throw error;
    }
  }

  /** What level 0 has at a place, or null outside of the domain's tiles. */
  async at([x, y]) {
    const resolution = RESOLUTIONS.at(-1);
    const [row, col] = [Math.floor((this.bbox[3] - y) / resolution), Math.floor((x - this.bbox[0]) / resolution)];
    if (row < 0 || col < 0 || y < this.bbox[1] || x >= this.bbox[2]) return null;
    const stack = await this.read(RESOLUTIONS.length - 1, Math.floor(col / SIDE), Math.floor(row / SIDE));
    const [value, confidence] = [0, 1].map((layer) => stack[(layer * SIDE + (row % SIDE)) * SIDE + (col % SIDE)]);
    if (!value) return null;
    return {row, col, value, confidence, domain: this.page.domains.find((d) => d.name === this.name), tile: this.edition.tileName(row, col)};
  }
}

/** Bytes (layer, y, x) of two layers as (y, x, 4). */
function interleaved(stack, side) {
  const pixels = new Uint8Array(side * side * 4);
  for (let i = 0, to = 0; i < side * side; i++, to += 4) {
    pixels[to] = stack[i];
    pixels[to + 1] = stack[side * side + i];
    pixels[to + 3] = 255;
  }
  return pixels;
}
