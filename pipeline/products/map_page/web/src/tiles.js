// The states of the tiles, as a layer of lines and patterns that are told apart without colours.
import ImageLayer from 'ol/layer/Image.js';
import ImageCanvas from 'ol/source/ImageCanvas.js';

/** State of a tile → colour, and the pattern of lines over the tile: none, one diagonal, both, or level lines. */
export const STATES = {mapped: ['#2e7d32', 0], novel: ['#6a1b9a', 3], failed: ['#c62828', 2], missing: ['#5f6368', 1], again: ['#b26a00', 1]};
const OF_COVERAGE = [null, 'mapped', 'failed', 'missing'];

/** The states of an edition's tiles, with those that a run would map again where `landcover view` knows them. */
export class Tiles {
  constructor(edition, projection) {
    this.edition = edition;
    this.again = new Set();
    this.novel = new Set((edition.page.novel ?? []).map(([row, col]) => `${row}/${col}`));
    const source = new ImageCanvas({
      projection,
      ratio: 1,
      canvasFunction: (extent, resolution, ratio, [width, height]) => this.draw(extent, width, height),
    });
    this.layer = new ImageLayer({source, visible: false, zIndex: 5, className: 'tiles'});
  }

  /** Asks the campaign's machine once which tiles would be mapped again; true when it said so. */
  async ask() {
    const address = this.edition.page.served?.states;
    if (this.asked || !address) return false;
    this.asked = true;
    const answer = await fetch(new URL(address, new URL('map/', this.edition.url)));
    if (!answer.ok) throw new Error(await answer.text());
    for (const [row, col] of await answer.json()) {
      if (this.edition.coverage.data[row * this.edition.coverage.shape[1] + col] === 1) this.again.add(`${row}/${col}`);
    }
    this.known = true;
    this.layer.getSource().changed();
    return true;
  }

  /** Whether it is known which tiles would be mapped again. */
  get knowsAgain() {
    return Boolean(this.edition.page.served?.states);
  }

  /** State of a tile; nothing outside of all tiles. */
  at(row, col) {
    const {data, shape} = this.edition.coverage;
    if (this.again.has(`${row}/${col}`)) return 'again';
    const state = OF_COVERAGE[data[row * shape[1] + col]];
    return state === 'mapped' && this.novel.has(`${row}/${col}`) ? 'novel' : state;
  }

  /** State → number of tiles. */
  count() {
    const {shape} = this.edition.coverage;
    const counts = Object.fromEntries(Object.keys(STATES).map((state) => [state, 0]));
    for (let i = 0; i < shape[0] * shape[1]; i++) {
      const found = this.at(Math.floor(i / shape[1]), i % shape[1]);
      if (found) counts[found]++;
    }
    return this.known ? counts : {...counts, again: null};
  }

  draw([west, south, east, north], width, height) {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [Math.round(width), Math.round(height)];
    const context = canvas.getContext('2d');
    const {bbox, coverage: {shape: [rows, cols]}} = this.edition;
    const [scale, size] = [width / (east - west), (bbox[3] - bbox[1]) / rows];
    const [side, x0, y0] = [size * scale, (bbox[0] - west) * scale, (north - bbox[3]) * scale];
    const range = (from, length, most) => [Math.max(0, Math.floor(-from / side)), Math.min(most, Math.ceil((length - from) / side))];
    const [[top, bottom], [left, right]] = [range(y0, height, rows), range(x0, width, cols)];
    for (let row = top; row < bottom; row++) {
      for (let col = left; col < right; col++) {
        const found = this.at(row, col);
        if (found) pattern(context, found, x0 + col * side, y0 + row * side, side);
      }
    }
    return canvas;
  }
}

/** Draws the frame and the lines of a state. */
export function pattern(context, state, x, y, side) {
  const [colour, lines] = STATES[state];
  context.save();
  context.beginPath();
  context.rect(x, y, side, side);
  context.clip();
  const width = side < 8 ? 1 : 2;
  const [step, span] = [Math.max(6, Math.min(24, side / 2)), 2 * side];
  context.beginPath();
  context.rect(x, y, side, side);
  for (let at = lines ? step / 2 : span; at < span; at += step) {
    if (lines === 3) {
      context.moveTo(x, y + at);
      context.lineTo(x + side, y + at);
      continue;
    }
    context.moveTo(x + at, y);
    context.lineTo(x + at - side, y + side);
    if (lines < 2) continue;
    context.moveTo(x + side - at, y);
    context.lineTo(x + 2 * side - at, y + side);
  }
  // White below the colour, so that lines are seen on any class and ground.
  for (const [style, wide] of side < 8 ? [[colour, width]] : [['#fff', 2 * width + 1.5], [colour, width]]) {
    [context.strokeStyle, context.lineWidth] = [style, wide];
    context.stroke();
  }
  context.restore();
}
