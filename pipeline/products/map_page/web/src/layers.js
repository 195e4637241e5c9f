// The layers of the map, drawn by the graphics card from classes and confidences, with nearest resampling.
import WebGLTileLayer from 'ol/layer/WebGLTile.js';
import {getRenderPixel} from 'ol/render.js';
import DataTile from 'ol/source/DataTile.js';
import TileGrid from 'ol/tilegrid/TileGrid.js';

const CLASSES = 20;
const VALUE = ['round', ['*', ['band', 1], 255]];
const CONFIDENCE = ['*', ['band', 2], 255];
const NONE = [0, 0, 0, 0];
/** Of confidence, from low to high: readable for all, and darker where the network is less sure. */
const RAMP = [[0, 68, 1, 84], [64, 59, 82, 139], [128, 33, 145, 140], [192, 94, 201, 98], [255, 253, 231, 37]];

export const rampCss = RAMP.map(([at, ...rgb]) => `rgb(${rgb.join(' ')}) ${(at / 2.55).toFixed(0)}%`).join(', ');

function source(edition, projection) {
  return new DataTile({
    loader: (z, x, y, {signal}) => edition.tile(z, x, y, signal),
    bandCount: 4,
    interpolate: false,
    transition: 0,
    wrapX: false,
    projection,
    tileGrid: new TileGrid({
      extent: edition.bbox,
      origin: [edition.bbox[0], edition.bbox[3]],
      resolutions: edition.levels.map((level) => level.resolution),
      tileSizes: edition.levels.map((level) => level.side),
    }),
  });
}

/** Draws a pixel with data whose class is chosen and whose confidence is high enough. */
function shown(state, colour) {
  return ['case', ['<', VALUE, 0.5], NONE, ['<', CONFIDENCE, ['var', 'least']], NONE, colour];
}

export function classColour(state, entry) {
  return (state.palette === 'safe' && entry.safe) || entry.colour;
}

function landcoverStyle(state, classes) {
  const colours = Array.from({length: CLASSES}, (_, value) => {
    const entry = classes.find((c) => c.value === value);
    return entry && !state.off.has(value) ? classColour(state, entry) : 'rgba(0,0,0,0)';
  });
  return {variables: {least: least(state)}, color: shown(state, ['palette', VALUE, colours])};
}

function confidenceStyle(state) {
  const stops = RAMP.flatMap(([at, ...rgb]) => [at, [...rgb, 1]]);
  const ramp = ['interpolate', ['linear'], CONFIDENCE, ...stops];
  const off = [...state.off].map((value) => ['between', VALUE, value - 0.5, value + 0.5]);
  const colour = off.length ? ['case', off.length > 1 ? ['any', ...off] : off[0], NONE, ramp] : ramp;
  return {variables: {least: least(state)}, color: shown(state, colour)};
}

/** The threshold as stored: confidence is 255 × probability. */
function least(state) {
  return (state.least / 100) * 255;
}

/** Land cover and confidence of an edition. */
export class EditionLayers {
  constructor(edition, projection, state) {
    this.classes = edition.page.classes;
    const [tiles, maxResolution] = [source(edition, projection), edition.coarsest ?? Infinity];
    this.landcover = new WebGLTileLayer({source: tiles, style: landcoverStyle(state, this.classes), className: 'landcover', maxResolution});
    this.confidence = new WebGLTileLayer({source: source(edition, projection), style: confidenceStyle(state), className: 'confidence', maxResolution});
    this.all = [this.landcover, this.confidence];
    this.update(state);
  }

  /** Draws all tiles anew. */
  refresh() {
    for (const layer of this.all) layer.getSource().refresh();
  }

  /** Draws as the state says, at a share of its opacities. */
  update(state, share = 1) {
    const drawn = JSON.stringify([[...state.off].sort(), state.palette]);
    if (drawn !== this.drawn) {
      this.drawn = drawn;
      this.landcover.setStyle(landcoverStyle(state, this.classes));
      this.confidence.setStyle(confidenceStyle(state));
    }
    for (const layer of this.all) layer.updateStyleVariables({least: least(state)});
    for (const [layer, opacity] of [[this.landcover, state.landcover], [this.confidence, state.confidence]]) {
      layer.setOpacity((share * opacity) / 100);
      layer.setVisible(share * opacity > 0);
    }
  }
}

/** Draws layers only left or only right of the swipe. */
export function clip(layers, map, side, position) {
  for (const layer of layers) {
    layer.on('prerender', (event) => {
      const gl = event.context;
      const [width, height] = map.getSize();
      const at = width * position();
      const [left, right] = side === 'left' ? [0, at] : [at, width];
      if (gl instanceof CanvasRenderingContext2D) {
        const corners = [[left, 0], [right, 0], [right, height], [left, height]].map((pixel) => getRenderPixel(event, pixel));
        gl.save();
        gl.beginPath();
        corners.forEach(([x, y], i) => (i ? gl.lineTo(x, y) : gl.moveTo(x, y)));
        gl.clip();
        return;
      }
      const [bottomLeft, topRight] = [getRenderPixel(event, [left, height]), getRenderPixel(event, [right, 0])];
      // OpenLayers clears inside of the scissors only, and a canvas keeps what was drawn before the swipe moved.
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.enable(gl.SCISSOR_TEST);
      gl.scissor(Math.round(bottomLeft[0]), Math.round(bottomLeft[1]), Math.round(topRight[0] - bottomLeft[0]), Math.round(topRight[1] - bottomLeft[1]));
    });
    layer.on('postrender', ({context}) => (context instanceof CanvasRenderingContext2D ? context.restore() : context.disable(context.SCISSOR_TEST)));
  }
}
