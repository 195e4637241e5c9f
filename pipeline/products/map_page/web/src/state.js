// What the page shows, kept in the address, so that a link shows the same.
const NUMBERS = {landcover: [0, 100, 100], confidence: [0, 100, 0], imagery: [0, 100, 0], least: [0, 100, 0], swipe: [0, 1000, 500], tiles: [0, 1, 0], zones: [0, 1, 0], diff: [0, 1, 0]};
const CHOICES = {language: ['en', 'fr'], theme: ['auto', 'light', 'dark'], palette: ['flair', 'safe']};

export function defaults() {
  const language = navigator.language.startsWith('fr') ? 'fr' : 'en';
  const numbers = Object.fromEntries(Object.entries(NUMBERS).map(([name, [, , value]]) => [name, value]));
  return {...numbers, language, theme: 'auto', palette: 'flair', off: new Set(), view: null, with: '', layer: '', domain: ''};
}

/** The state of an address: `domain` is in its query, all else behind `#`. */
export function read({search, hash}) {
  const [state, given] = [defaults(), new URLSearchParams(hash.replace(/^#/, ''))];
  state.domain = new URLSearchParams(search).get('domain') ?? '';
  for (const [name, [low, high]] of Object.entries(NUMBERS)) {
    const value = Number(given.get(name) ?? NaN);
    if (value >= low && value <= high) state[name] = value;
  }
  for (const [name, choices] of Object.entries(CHOICES)) {
    if (choices.includes(given.get(name))) state[name] = given.get(name);
  }
  state.off = new Set((given.get('off') ?? '').split(',').filter(Boolean).map(Number).filter((v) => v > 0 && v < 20));
  const view = (given.get('at') ?? '').split(',').map(Number);
  if (view.length === 3 && view.every(Number.isFinite) && view[2] > 0) state.view = view;
  if (/^(\d{6}|imagery|\w{1,9}_\d{4})$/.test(given.get('with') ?? '')) state.with = given.get('with');
  if (/^(generalised|vectors(-\w{1,9}_\d{4})?|change-\d{6}(-generalised)?)$/.test(given.get('layer') ?? '')) state.layer = given.get('layer');
  return state;
}

export function write(state) {
  const [usual, given] = [defaults(), new URLSearchParams()];
  if (state.view) given.set('at', state.view.map((v) => Number(v.toFixed(2))).join(','));
  for (const name of [...Object.keys(NUMBERS), ...Object.keys(CHOICES), 'with', 'layer']) {
    if (state[name] !== usual[name]) given.set(name, state[name]);
  }
  if (state.off.size) given.set('off', [...state.off].sort((a, b) => a - b).join(','));
  return `#${given.toString().replaceAll('%2C', ',')}`;
}

/** The query of a state's address. */
export function query(state) {
  return state.domain ? `?domain=${encodeURIComponent(state.domain)}` : '';
}
