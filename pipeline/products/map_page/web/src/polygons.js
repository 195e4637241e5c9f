// The polygons of `landcover vectorize`: drawn from landcover.pmtiles, and described by landcover.parquet when clicked.
import {VectorTile} from '@mapbox/vector-tile';
import {asyncBufferFromUrl, parquetMetadataAsync, parquetReadObjects} from 'hyparquet';
import TileLayer from 'ol/layer/Tile.js';
import {transform} from 'ol/proj.js';
import ImageTile from 'ol/source/ImageTile.js';
import TileGrid from 'ol/tilegrid/TileGrid.js';
import {PbfReader} from 'pbf';
import {FetchSource, PMTiles} from 'pmtiles';
import {classColour} from './layers.js';
import {decoded} from './zstd.js';

const SIDE = 512;
const RESOLUTIONS = [3.2, 1.6, 0.8, 0.4, 0.2, 0.1, 0.05, 0.025];
/** Above this resolution the map itself is drawn. */
export const COARSEST = 2 * RESOLUTIONS[0];
/** The finest resolution that needs more than the next coarser zoom level of the archive. */
const FINEST_LEVEL = 0.8;
const MOST_CACHED = 48;
const MERCATOR = 'EPSG:3857';
const HALF = 20037508.342789244;
const COLUMNS = ['id', 'landcover', 'area_m2', 'area_ellipsoid_m2', 'confidence_mean', 'confidence_p10', 'domain', 'date', 'edition'];
const ID = /^(-?\d+)-(-?\d+)-(\d+)$/;

export class Polygons {
  /**
   * @param {object} edition
   * @param {object} projection of the map
   * @param {object} given `name` of the folder; `parts`, whether the table is a folder of files
   */
  constructor(edition, projection, {name, parts}) {
    Object.assign(this, {edition, projection, parts, coarsest: COARSEST, share: 1});
    this.folder = new URL(`${name}/`, edition.url);
    this.archive = new PMTiles(new FetchSource(new URL('landcover.pmtiles', this.folder).href));
    this.read = new Map();
    const source = new ImageTile({
      loader: async (z, x, y) => {
        try {
          return await this.draw(z, x, y);
        } catch (error) {
          edition.onError(error);
          throw error;
        }
      },
      projection, transition: 0, wrapX: false, tileSize: SIDE,
      tileGrid: new TileGrid({extent: edition.bbox, origin: [edition.bbox[0], edition.bbox[3]], resolutions: RESOLUTIONS, tileSize: SIDE}),
    });
    this.layer = new TileLayer({source, className: 'polygons', maxResolution: COARSEST});
    this.all = [this.layer];
  }

  update(state) {
    const drawn = JSON.stringify([[...state.off].sort(), state.palette]);
    this.colours = new Map(this.edition.page.classes.filter((c) => !state.off.has(c.value)).map((c) => [c.value, classColour(state, c)]));
    // Tiles of another key are drawn anew.
    if (drawn !== this.drawn) this.layer.getSource().setKey(drawn);
    this.drawn = drawn;
    this.layer.setOpacity(state.landcover / 100);
  }

  /** Polygons of all domains are drawn. */
  refresh() {}

  /** A tile of the map, as a canvas. */
  async draw(z, x, y) {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [SIDE, SIDE];
    const resolution = RESOLUTIONS[z];
    const [left, top] = [this.edition.bbox[0] + x * SIDE * resolution, this.edition.bbox[3] - y * SIDE * resolution];
    const {minZoom, maxZoom} = await this.archive.getHeader();
    const zoom = Math.max(minZoom, Math.min(maxZoom, maxZoom - Math.round(Math.log2(resolution / FINEST_LEVEL))));
    const edge = SIDE * resolution;
    const corners = [[0, 0], [edge, 0], [0, edge], [edge, edge]].map(([right, down]) => this.mercator([left + right, top - down]));
    const size = (2 * HALF) / 2 ** zoom;
    const [columns, rows] = [0, 1].map((axis) => corners.map((corner) => (axis ? HALF - corner[1] : corner[0] + HALF) / size));
    const context = canvas.getContext('2d');
    const drawing = [];
    for (let row = Math.floor(Math.min(...rows)); row <= Math.max(...rows); row++) {
      for (let column = Math.floor(Math.min(...columns)); column <= Math.max(...columns); column++) {
        drawing.push(this.tile(zoom, column, row).then((tile) => tile && this.paint(context, tile, {left, top, resolution})));
      }
    }
    await Promise.all(drawing);
    return canvas;
  }

  mercator(coordinate) {
    return transform(coordinate, this.projection, MERCATOR);
  }

  /** Draws the polygons of a tile of the archive, clipped to it: polygons go on a little beyond its edges. */
  paint(context, {fills, outline, extent, place: [origin, right, down]}, {left, top, resolution}) {
    // Over one tile of the archive, both projections differ by less than a pixel from a linear map.
    const scale = 1 / (resolution * extent);
    context.save();
    context.setTransform((right[0] - origin[0]) * scale, (origin[1] - right[1]) * scale, (down[0] - origin[0]) * scale, (origin[1] - down[1]) * scale, (origin[0] - left) / resolution, (top - origin[1]) / resolution);
    context.beginPath();
    context.rect(-1, -1, extent + 2, extent + 2);
    context.clip();
    for (const [value, path] of fills) {
      if (!this.colours.has(value)) continue;
      context.fillStyle = this.colours.get(value);
      context.fill(path, 'evenodd');
    }
    if (resolution <= FINEST_LEVEL) {
      [context.strokeStyle, context.lineWidth] = ['rgba(0, 0, 0, 0.55)', 1 / Math.hypot((right[0] - origin[0]) * scale, (origin[1] - right[1]) * scale)];
      context.stroke(outline);
    }
    context.restore();
  }

  /** A tile of the archive, decoded; null where there is none. */
  tile(zoom, column, row) {
    const key = `${zoom}/${column}/${row}`;
    const found = this.read.get(key) ?? this.decode(zoom, column, row);
    this.read.delete(key);
    this.read.set(key, found);
    found.catch(() => this.read.delete(key));
    if (this.read.size > MOST_CACHED) this.read.delete(this.read.keys().next().value);
    return found;
  }

  async decode(zoom, column, row) {
    const answer = await this.archive.getZxy(zoom, column, row);
    const layer = answer && new VectorTile(new PbfReader(answer.data)).layers.landcover;
    if (!layer) return null;
    const [shapes, fills, outline] = [[], new Map(), new Path2D()];
    for (let i = 0; i < layer.length; i++) {
      const feature = layer.feature(i);
      const path = new Path2D();
      for (const ring of feature.loadGeometry()) {
        ring.forEach((point, k) => (k ? path.lineTo(point.x, point.y) : path.moveTo(point.x, point.y)));
        path.closePath();
      }
      const {id, landcover} = feature.properties;
      shapes.push({id, path});
      if (!fills.has(landcover)) fills.set(landcover, new Path2D());
      fills.get(landcover).addPath(path);
      outline.addPath(path);
    }
    const size = (2 * HALF) / 2 ** zoom;
    const place = [[0, 0], [1, 0], [0, 1]].map(([right, down]) => transform([(column + right) * size - HALF, HALF - (row + down) * size], MERCATOR, this.projection));
    return {shapes, fills, outline, extent: layer.extent, place};
  }

  /** The row of the table of the polygon at a place, or null. */
  async at(coordinate) {
    const {maxZoom} = await this.archive.getHeader();
    const size = (2 * HALF) / 2 ** maxZoom;
    const [x, y] = this.mercator(coordinate);
    const [column, row] = [(x + HALF) / size, (HALF - y) / size];
    const tile = await this.tile(maxZoom, Math.floor(column), Math.floor(row));
    if (!tile) return null;
    const context = document.createElement('canvas').getContext('2d');
    const [u, v] = [column, row].map((at) => (at % 1) * tile.extent);
    const found = tile.shapes.find(({path}) => context.isPointInPath(path, u, v, 'evenodd'));
    return found ? this.describe(found.id, coordinate) : null;
  }

  /** Reads the row groups whose polygons can contain the place. */
  async describe(id, [x, y]) {
    const [, column, north] = ID.exec(id).map(Number);
    const name = this.parts ? `landcover.parquet/part-${String(partOf(-north, column)).padStart(7, '0')}.parquet` : 'landcover.parquet';
    const file = await asyncBufferFromUrl({url: new URL(name, this.folder).href});
    const metadata = await parquetMetadataAsync(file);
    const compressors = {ZSTD: await decoded()};
    let start = 0;
    for (const group of metadata.row_groups) {
      const end = start + Number(group.num_rows);
      if (mayContain(group, x, y)) {
        const rows = await parquetReadObjects({file, metadata, columns: COLUMNS, rowStart: start, rowEnd: end, compressors});
        const row = rows.find((one) => one.id === id);
        if (row) return row;
      }
      start = end;
    }
    throw new Error(`${name}: has no polygon ${id}; \`landcover vectorize\` writes tiles and table again`);
  }
}

function mayContain(group, x, y) {
  const side = (name) => group.columns.find(({meta_data: {path_in_schema: path}}) => path[0] === 'bbox' && path[1] === name).meta_data.statistics;
  return side('xmin').min_value <= x && x <= side('xmax').max_value && side('ymin').min_value <= y && y <= side('ymax').max_value;
}

/** The part of a large table in which a polygon's first pixel lies: see hilbert.py, of which these are the first bits. */
export function partOf(row, column) {
  let [x, y, part] = [column + 2 ** 26, row + 2 ** 26, 0];
  for (let bit = 26; bit >= 16; bit--) {
    const [right, down, mask] = [(x >> bit) & 1, (y >> bit) & 1, (1 << bit) - 1];
    part = part * 4 + ((3 * right) ^ down);
    [x, y] = [x & mask, y & mask];
    if (!down) [x, y] = right ? [mask - y, mask - x] : [y, x];
  }
  return part;
}
