// Layers whose tiles the campaign's machine cuts when asked: imagery. See lattice_tiles.py.
import WebGLTileLayer from 'ol/layer/WebGLTile.js';
import DataTile from 'ol/source/DataTile.js';
import TileGrid from 'ol/tilegrid/TileGrid.js';

const SIDE = 512;
const RESOLUTIONS = [12.8, 6.4, 3.2, 1.6, 0.8, 0.4, 0.2];
/** Above this resolution nothing is asked for: a screen would have hundreds of files. */
export const COARSEST = 2 * RESOLUTIONS[0];

export function latticeGrid(bbox) {
  return new TileGrid({extent: bbox, origin: [bbox[0], bbox[3]], resolutions: RESOLUTIONS, tileSize: SIDE});
}

/** Asks the campaign's machine, whose words are in the error. */
export async function askCampaign(edition, path, options) {
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
