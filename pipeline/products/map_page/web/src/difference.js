// Where two maps differ: tiles of both, compared pixel by pixel.

/** Is drawn as an edition is: a pixel has the first map's class where both differ, and no data elsewhere. */
export class Difference {
  /**
   * @param {object} one the edition of the page
   * @param {object} other another edition, or a vintage
   */
  constructor(one, other) {
    Object.assign(this, {one, other, bbox: one.bbox, page: one.page});
    const common = (level) => other.levels.findIndex((l) => Math.abs(l.resolution - level.resolution) < 1e-6 * level.resolution);
    /** Levels that both have, from coarse to fine. */
    this.levels = one.levels.filter((level) => common(level) >= 0);
    this.coarsest = this.levels[0].resolution * (this.levels.length < one.levels.length ? 4 : Infinity);
    this.pairs = this.levels.map((level) => [one.levels.indexOf(level), common(level)]);
  }

  async tile(z, x, y) {
    const [own, others] = this.pairs[z];
    const {side, resolution} = this.levels[z];
    // Both maps lie on one lattice; their corners are whole tiles apart.
    const [right, down] = [this.bbox[0] - this.other.bbox[0], this.other.bbox[3] - this.bbox[3]].map((metres) => Math.round(metres / resolution));
    const [now, then] = await Promise.all([this.one.tile(own, x, y), this.part(others, x * side + right, y * side + down, side)]);
    const pixels = new Uint8Array(side * side * 4);
    for (let i = 0; i < pixels.length; i += 4) {
      pixels[i + 3] = 255;
      if (!now[i] || !then[i] || now[i] === then[i]) continue;
      pixels[i] = now[i];
      // A change is as sure as the less sure of both maps.
      pixels[i + 1] = Math.min(now[i + 1], then[i + 1]);
    }
    return pixels;
  }

  /** A window of the other map, put together of its tiles. */
  async part(z, left, top, side) {
    const step = this.other.levels[z].side;
    if (step === side && left % side === 0 && top % side === 0) return this.other.tile(z, left / side, top / side);
    const pixels = new Uint8Array(side * side * 4);
    const range = (from) => Array.from({length: Math.floor((from + side - 1) / step) - Math.floor(from / step) + 1}, (_, k) => Math.floor(from / step) + k);
    for (const y of range(top)) {
      for (const x of range(left)) {
        if (x < 0 || y < 0) continue;
        const tile = await this.other.tile(z, x, y);
        const [x0, x1] = [Math.max(left, x * step), Math.min(left + side, (x + 1) * step)];
        for (let row = Math.max(top, y * step); row < Math.min(top + side, (y + 1) * step); row++) {
          const from = ((row - y * step) * step + x0 - x * step) * 4;
          pixels.set(tile.subarray(from, from + (x1 - x0) * 4), ((row - top) * side + x0 - left) * 4);
        }
      }
    }
    return pixels;
  }
}
