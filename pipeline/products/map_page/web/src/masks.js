// Where one domain owns pixels, at levels that have no layer of the owners. See domain_masks.py.

/** Domains of an edition, those of higher rank first, and what they claim. */
export class Masks {
  /**
   * @param {object[]} domains content of domains.json
   * @param {number[]} shape rows and columns of tiles
   * @param {number[]} bbox of the edition
   */
  constructor(domains, shape, bbox) {
    [this.rows, this.cols] = shape;
    this.bbox = bbox;
    this.domains = domains.map(({name, tiles, rings}) => {
      const there = new Uint8Array(this.rows * this.cols);
      for (let i = 0; i < tiles.length; i += 2) there.fill(1, tiles[i], tiles[i] + tiles[i + 1]);
      return {name, there, outline: rings && outlineOf(rings)};
    });
  }

  /** [left, bottom, right, top] of a domain's tiles, or null. */
  boundsOf(name) {
    const domain = this.domains.find((d) => d.name === name);
    return domain ? boundsOf(domain.there, [this.rows, this.cols], this.bbox) : null;
  }

  /**
   * Sets pixels of other domains to no data.
   * @param {Uint8Array} pixels (y, x, 4), changed in place
   * @param {object} place `top`, `left` and `side` in pixels of a level, and its `resolution`
   * @param {string} name of the domain that stays
   */
  keep(pixels, {top, left, side, resolution}, name) {
    const cells = (this.bbox[3] - this.bbox[1]) / this.rows / resolution;
    const wanted = this.domains.find((d) => d.name === name);
    const [clear, drawn] = [[], []];
    for (let row = Math.max(0, Math.floor(top / cells)); row < Math.min(this.rows, Math.ceil((top + side) / cells)); row++) {
      for (let col = Math.max(0, Math.floor(left / cells)); col < Math.min(this.cols, Math.ceil((left + side) / cells)); col++) {
        const here = this.domains.filter((d) => d.there[row * this.cols + col]);
        const box = [col * cells - left, row * cells - top, cells, cells];
        if (!here.includes(wanted)) clear.push(box);
        else if (here.length > 1) drawn.push({box, here});
      }
    }
    for (const box of clear) erase(pixels, side, box, () => true);
    if (!drawn.length) return;
    const context = new OffscreenCanvas(side, side).getContext('2d', {willReadFrequently: true});
    for (const {box, here} of drawn) this.paint(context, box, here, wanted, {top, left, resolution});
    const painted = context.getImageData(0, 0, side, side).data;
    for (const {box} of drawn) erase(pixels, side, box, (i) => painted[i] < 128);
  }

  /** Paints the claims of a tile, the first in rank last: white for the wanted domain, black for others. */
  paint(context, box, here, wanted, {top, left, resolution}) {
    context.save();
    context.beginPath();
    context.rect(...box);
    context.clip();
    for (const domain of [...here].reverse()) {
      context.fillStyle = domain === wanted ? '#fff' : '#000';
      context.setTransform(1 / resolution, 0, 0, -1 / resolution, -this.bbox[0] / resolution - left, this.bbox[3] / resolution - top);
      if (domain.outline) context.fill(domain.outline, 'evenodd');
      else context.fillRect(this.bbox[0], this.bbox[1], this.bbox[2] - this.bbox[0], this.bbox[3] - this.bbox[1]);
    }
    context.restore();
  }
}

/** [left, bottom, right, top] of the tiles that are not 0, or null if all are. */
export function boundsOf(tiles, [rows, cols], [left, bottom, right, top]) {
  const found = {top: rows, left: cols, bottom: 0, right: 0};
  for (let i = 0; i < rows * cols; i++) {
    if (!tiles[i]) continue;
    const [row, col] = [Math.floor(i / cols), i % cols];
    found.top = Math.min(found.top, row);
    found.left = Math.min(found.left, col);
    found.bottom = Math.max(found.bottom, row + 1);
    found.right = Math.max(found.right, col + 1);
  }
  if (!found.bottom) return null;
  const [width, height] = [(right - left) / cols, (top - bottom) / rows];
  return [left + found.left * width, top - found.bottom * height, left + found.right * width, top - found.top * height];
}

function outlineOf(rings) {
  const path = new Path2D();
  for (const ring of rings) {
    for (let i = 0; i < ring.length; i += 2) path[i ? 'lineTo' : 'moveTo'](ring[i], ring[i + 1]);
    path.closePath();
  }
  return path;
}

/** Sets class and confidence of pixels in a box to 0 where a condition of their index holds. */
function erase(pixels, side, [left, top, width, height], condition) {
  for (let y = Math.max(0, top); y < Math.min(side, top + height); y++) {
    for (let x = Math.max(0, left); x < Math.min(side, left + width); x++) {
      const i = (y * side + x) * 4;
      if (condition(i)) pixels[i] = pixels[i + 1] = 0;
    }
  }
}
