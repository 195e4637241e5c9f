// An edition's Zarr tree: its levels, pixels for tiles of the map, and single pixels.
import './zstd.js';
import {FetchStore, get, open, root, slice, withRangeCoalescing} from 'zarrita';
import {boundsOf, Masks} from './masks.js';

const LAYERS = ['landcover', 'confidence'];
const LARGEST_TILE = 1024;
const MOST_CACHED = 192;

/** Serves metadata from the edition's one `zarr.json`, and chunks by requests. */
class Tree {
  constructor(url, nodes, promised) {
    this.promised = promised;
    this.files = withRangeCoalescing(new FetchStore(url, {useSuffixRequest: true}));
    this.nodes = nodes;
  }

  async get(key, options) {
    if (!key.endsWith('/zarr.json')) return this.there(key, await this.files.get(key, options));
    const node = this.nodes[key.slice(1, -'/zarr.json'.length)];
    return node && new TextEncoder().encode(JSON.stringify(node));
  }

  async getRange(key, range, options) {
    return this.there(key, await this.files.getRange(key, range, options));
  }

  /** Zarr itself takes a lost file for no data. */
  there(key, bytes) {
    if (!bytes && this.promised(key)) throw new Error(`${key.slice(1)}: is lost; \`landcover verify\` says how to repair it`);
    return bytes;
  }
}

/** Cells a side of a tile of the map: whole chunks, so that no chunk is decoded for several tiles. */
function tileSide(node) {
  const sharding = node.codecs.find((codec) => codec.name === 'sharding_indexed');
  const chunk = (sharding ?? node.chunk_grid).configuration.chunk_shape[0];
  if (chunk > LARGEST_TILE) return 512;
  return chunk * Math.max(1, Math.floor(512 / chunk));
}

export class Edition {
  /** Opens the edition in the folder `url`, which ends with a slash. */
  static async open(url) {
    const [metadata, page] = await Promise.all(
      ['zarr.json', 'map/page.json'].map(async (name) => {
        const answer = await fetch(new URL(name, url));
        if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
        return answer.json();
      }),
    );
    const edition = new Edition(url, metadata, page);
    const coverage = await get(await edition.array('product.zarr/coverage'));
    edition.coverage = {data: coverage.data, shape: coverage.shape};
    return edition;
  }

  constructor(url, metadata, page) {
    this.url = url;
    this.page = page;
    this.nodes = metadata.consolidated_metadata.metadata;
    this.attributes = metadata.attributes;
    this.root = root(new Tree(url, this.nodes, (key) => this.promises(key)));
    this.onError = () => undefined;
    this.only = '';
    this.opened = new Map();
    this.cache = new Map();
    this.bbox = this.attributes['spatial:bbox'];
    /** From coarse to fine, as OpenLayers counts zoom levels. */
    this.levels = this.attributes.multiscales.layout
      .map((level) => {
        const node = this.nodes[`${level.asset}/landcover`];
        return {path: level.asset, shape: node.shape, side: tileSide(node), resolution: level['spatial:transform'][0]};
      })
      .sort((a, b) => b.resolution - a.resolution);
  }

  /** Where a layer of a level lies, from the edition's folder. */
  pathOf(path, layer) {
    return `${path}/${layer}`;
  }

  /** Reads the metadata of another Zarr in the edition's folder, once. */
  async add(path) {
    if (this.nodes[path]) return;
    const answer = await fetch(new URL(`${path}/zarr.json`, this.url));
    if (!answer.ok) throw new Error(`${path}/zarr.json: ${answer.status}`);
    const {consolidated_metadata: below, ...own} = await answer.json();
    for (const [name, node] of Object.entries(below.metadata)) this.nodes[`${path}/${name}`] = node;
    this.nodes[path] = own;
  }

  array(path) {
    if (!this.opened.has(path)) this.opened.set(path, open.v3(this.root.resolve(path), {kind: 'array'}));
    return this.opened.get(path);
  }

  /** Whether any tile of the nation that has files lies in these cells of a level. */
  covered({resolution}, top, left, bottom, right) {
    const [rows, cols] = this.coverage.shape;
    const cells = (this.bbox[3] - this.bbox[1]) / rows / resolution;
    for (let row = Math.floor(top / cells); row < Math.min(rows, Math.ceil(bottom / cells)); row++) {
      for (let col = Math.floor(left / cells); col < Math.min(cols, Math.ceil(right / cells)); col++) {
        if (this.coverage.data[row * cols + col]) return true;
      }
    }
    return false;
  }

  /** Whether a file must be there: the store has one for all cells of each tile that has any. */
  promises(key) {
    const [, array, row, col] = /^\/(.*)\/c\/(\d+)\/(\d+)$/.exec(key) ?? [];
    const level = this.levels.find((l) => [...LAYERS, 'domain'].some((layer) => this.pathOf(l.path, layer) === array));
    if (!level) return false;
    const side = this.nodes[array].chunk_grid.configuration.chunk_shape[0];
    return this.covered(level, row * side, col * side, (Number(row) + 1) * side, (Number(col) + 1) * side);
  }

  /** The bounds of all tiles that have files: [left, bottom, right, top]. */
  get mapped() {
    return boundsOf(this.coverage.data, this.coverage.shape, this.bbox) ?? this.bbox;
  }

  /** Shows one domain only, or all for an empty name. */
  async show(domain) {
    if (domain && !this.masks) {
      const answer = await fetch(new URL('map/domains.json', this.url));
      if (!answer.ok) throw new Error(`map/domains.json: ${answer.status}`);
      this.masks = new Masks(await answer.json(), this.coverage.shape, this.bbox);
    }
    if (domain === this.only) return false;
    this.only = domain;
    this.cache.clear();
    return true;
  }

  /** Class and confidence of a tile of the map: bytes (y, x, 4), of which the last two are 0 and 255. */
  tile(z, x, y) {
    const key = `${z}/${x}/${y}`;
    let found = this.cache.get(key);
    this.cache.delete(key);
    if (!found) {
      found = this.read(this.levels[z], x, y);
      found.catch((error) => {
        this.cache.delete(key);
        this.onError(error);
      });
    }
    this.cache.set(key, found);
    if (this.cache.size > MOST_CACHED) this.cache.delete(this.cache.keys().next().value);
    return found;
  }

  async read(level, x, y) {
    const {side, shape, path} = level;
    const [top, left] = [y * side, x * side];
    const [bottom, right] = [Math.min(top + side, shape[0]), Math.min(left + side, shape[1])];
    const pixels = new Uint8Array(side * side * 4);
    for (let i = 3; i < pixels.length; i += 4) pixels[i] = 255;
    if (bottom <= top || right <= left || !this.covered(level, top, left, bottom, right)) return pixels;
    const place = [slice(top, bottom), slice(left, right)];
    const parts = await Promise.all(LAYERS.map(async (layer) => get(await this.array(this.pathOf(path, layer)), place)));
    parts.forEach(({data}, band) => {
      for (let row = 0, i = 0; row < bottom - top; row++) {
        for (let to = row * side * 4 + band, col = 0; col < right - left; col++, to += 4) pixels[to] = data[i++];
      }
    });
    if (this.only) await this.keepOnly(pixels, level, {top, left, bottom, right});
    return pixels;
  }

  /** Sets pixels of other domains to no data: level 0 has their owners, for others see masks.js. */
  async keepOnly(pixels, {side, path, resolution}, {top, left, bottom, right}) {
    const only = this.only;
    if (path !== this.levels.at(-1).path) {
      this.masks.keep(pixels, {top, left, side, resolution}, only);
      return;
    }
    const code = this.page.domains.find((d) => d.name === only)?.code;
    const {data} = await get(await this.array(`${path}/domain`), [slice(top, bottom), slice(left, right)]);
    for (let row = 0, i = 0; row < bottom - top; row++) {
      for (let to = row * side * 4, col = 0; col < right - left; col++, to += 4) {
        if (data[i++] !== code) pixels[to] = pixels[to + 1] = 0;
      }
    }
  }

  /** What level 0 has at a place, or null outside of all tiles. */
  async at([x, y]) {
    const level = this.levels.at(-1);
    const [left, , , top] = this.bbox;
    const [row, col] = [Math.floor((top - y) / level.resolution), Math.floor((x - left) / level.resolution)];
    const inside = row >= 0 && col >= 0 && row < level.shape[0] && col < level.shape[1];
    if (!inside || !this.covered(level, row, col, row + 1, col + 1)) return null;
    const place = [slice(row, row + 1), slice(col, col + 1)];
    const [value, confidence, code] = await Promise.all(
      [...LAYERS, 'domain'].map(async (layer) => (await get(await this.array(this.pathOf(level.path, layer)), place)).data[0]),
    );
    return {row, col, value, confidence, domain: this.page.domains.find((d) => d.code === code), tile: this.tileName(row, col)};
  }

  /** [row, column] of the tile around a place. */
  tileAt([x, y]) {
    const size = (this.bbox[3] - this.bbox[1]) / this.coverage.shape[0];
    return [Math.floor((this.bbox[3] - y) / size), Math.floor((x - this.bbox[0]) / size)];
  }

  /** The name of the tile around a pixel: its north-west corner in the unit of the campaign's names. */
  tileName(row, col) {
    const {size, unit, digits, extent} = this.page.tiles;
    const [north, west] = [extent[0] + Math.floor(row / size) * size, extent[1] + Math.floor(col / size) * size];
    return [west / unit, -north / unit].map((corner) => String(corner).padStart(digits, '0')).join('-');
  }

  /** Address of a file beside the tiles of a domain. */
  fileOf(domain, name) {
    return new URL(`${this.page.products}/${encodeURIComponent(domain)}/${encodeURIComponent(name)}`, new URL('map/', this.url)).href;
  }
}
