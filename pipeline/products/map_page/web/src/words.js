// The page's words.
const WORDS = {
  en: {
    title: 'Land cover at 20 cm', edition: 'edition', published: 'published', landcover: 'Land cover', confidence: 'Confidence',
    least: 'Hide below a confidence of', classes: 'Classes', all: 'All', none: 'None', palette: 'Colours', flair: 'FLAIR',
    safe: 'For colour-blind users', language: 'Language', theme: 'Appearance', auto: 'As the system', light: 'Light', dark: 'Dark',
    here: 'At this place', hint: 'Click on the map, or press Enter for its centre.', nodata: 'no data', outside: 'No tile here.',
    class: 'Class', domain: 'Domain', dates: 'Imagery of', tile: 'Tile', files: 'Files', item: 'STAC item', place: 'Place',
    nobody: 'none', whole: 'Show everything', link: 'Copy the link', copied: 'Link copied.', zoomIn: 'Zoom in', zoomOut: 'Zoom out',
    compare: 'Compare with', nothing: 'nothing', swipe: 'Position of the swipe', map: 'Map: arrow keys move, + and − zoom, Enter asks at the centre',
    panel: 'Legend and options', wrong: 'The edition cannot be read', low: 'low', high: 'high', licence: 'Software licences',
    map1: 'map of', otherMap: 'Other map', differ: 'Only where they differ', differHint: 'Pixels of another class have this edition’s colour; all else is pale. Two vintages are compared from 0.8 m a pixel on. A click names both classes. Errors of either map look like changes.',
    imagery: 'imagery', imageryBelow: 'Imagery under the map', imageryHint: 'Make the land cover paler to see it. It appears from 25 m a pixel on.',
    imageryAbsent: 'No imagery of this campaign is on this machine.', imageryElsewhere: 'landcover view shows the imagery on the machine that has it.',
    colon: ':', zones: 'Zones', search: 'Search', shares: 'share of the mapped area, counted in cells of 100 m',
    name: 'Name', mapped_ha: 'Mapped (ha)', share: 'Share', csv: 'Save as CSV', tiles: 'Show tiles', state: 'State', every: 'all',
    states: {mapped: 'mapped', novel: 'mapped, unlike the training', failed: 'failed', missing: 'not mapped yet', again: 'to be mapped again'}, why: 'landcover plan says why',
    layer: 'Layer', generalised: 'Generalised map', polygons: 'Polygons', polygon: 'Polygon', pixel: 'Pixel', area: 'Area', ellipsoid: 'on the ellipsoid',
    tenth: 'a tenth of it below', change: 'Change', changeSince: 'Change since edition', fromTo: 'From → to',
    changes: {stable: 'stable', land_change: 'land change', map_change: 'map change: same imagery', uncertain: 'uncertain'},
    layerHints: {
      generalised: 'Without small patches. Confidences are those of the map itself.',
      polygons: 'They appear from 6 m a pixel on, over all domains. A click says area and confidence of the whole polygon.',
      change: 'It appears from 1 m a pixel on. A click names both classes.',
    },
    noGraphics: 'This browser has no WebGL, which the map needs.',
  },
  fr: {
    title: 'Occupation du sol à 20 cm', edition: 'édition', published: 'publiée le', landcover: 'Occupation du sol', confidence: 'Confiance',
    least: 'Masquer sous une confiance de', classes: 'Classes', all: 'Toutes', none: 'Aucune', palette: 'Couleurs', flair: 'FLAIR',
    safe: 'Pour daltoniens', language: 'Langue', theme: 'Apparence', auto: 'Comme le système', light: 'Claire', dark: 'Sombre',
    here: 'À cet endroit', hint: 'Cliquez sur la carte, ou appuyez sur Entrée pour son centre.', nodata: 'sans donnée', outside: 'Aucune dalle ici.',
    class: 'Classe', domain: 'Domaine', dates: 'Images de', tile: 'Dalle', files: 'Fichiers', item: 'Item STAC', place: 'Lieu',
    nobody: 'aucun', whole: 'Tout afficher', link: 'Copier le lien', copied: 'Lien copié.', zoomIn: 'Agrandir', zoomOut: 'Réduire',
    compare: 'Comparer à', nothing: 'rien', swipe: 'Position du rideau', map: 'Carte : les flèches déplacent, + et − zooment, Entrée interroge le centre',
    panel: 'Légende et options', wrong: 'L’édition est illisible', low: 'faible', high: 'forte', licence: 'Licences des logiciels',
    map1: 'carte de', otherMap: 'Autre carte', differ: 'Seulement les différences', differHint: 'Les pixels d’une autre classe ont la couleur de cette édition ; le reste est pâle. Deux millésimes sont comparés à partir de 0,8 m par pixel. Un clic nomme les deux classes. Les erreurs de chaque carte ressemblent à des changements.',
    imagery: 'images', imageryBelow: 'Images sous la carte', imageryHint: 'Pâlissez l’occupation du sol pour les voir. Elles apparaissent à partir de 25 m par pixel.',
    imageryAbsent: 'Aucune image de cette campagne n’est sur cette machine.', imageryElsewhere: 'landcover view montre les images sur la machine qui les a.',
    colon: ' :', zones: 'Zones', search: 'Chercher', shares: 'part de la surface cartographiée, comptée en cellules de 100 m',
    name: 'Nom', mapped_ha: 'Cartographié (ha)', share: 'Part', csv: 'Enregistrer en CSV', tiles: 'Montrer les dalles', state: 'État', every: 'tous',
    states: {mapped: 'cartographiée', novel: 'cartographiée, différente de l’entraînement', failed: 'en échec', missing: 'pas encore cartographiée', again: 'à cartographier de nouveau'}, why: 'landcover plan dit pourquoi',
    layer: 'Couche', generalised: 'Carte généralisée', polygons: 'Polygones', polygon: 'Polygone', pixel: 'Pixel', area: 'Surface', ellipsoid: 'sur l’ellipsoïde',
    tenth: 'un dixième en dessous de', change: 'Changement', changeSince: 'Changement depuis l’édition', fromTo: 'De → à',
    changes: {stable: 'stable', land_change: 'changement du sol', map_change: 'changement de carte : mêmes images', uncertain: 'incertain'},
    layerHints: {
      generalised: 'Sans petites plages. Les confiances sont celles de la carte elle-même.',
      polygons: 'Ils apparaissent à partir de 6 m par pixel, pour tous les domaines. Un clic donne la surface et la confiance du polygone entier.',
      change: 'Il apparaît à partir de 1 m par pixel. Un clic nomme les deux classes.',
    },
    noGraphics: 'Ce navigateur n’a pas WebGL, dont la carte a besoin.',
  },
};

export const LANGUAGES = {en: 'English', fr: 'Français'};

export function words(language) {
  return WORDS[language];
}
