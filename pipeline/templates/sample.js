// Answers: point number → FLAIR value, kept in the browser under the name of the sample.
const {sample, file, points, words} = JSON.parse(document.getElementById('data').textContent);
const at = (id) => document.getElementById(id);
const store = `landcover-sample-${sample}`;
const buttons = [...document.querySelectorAll('button.class')];
const values = new Set(buttons.map((button) => Number(button.dataset.value)));
let answers = new Map();
let current = 0;

function say(text) {
  at('said').textContent = text;
}

function keep() {
  try {
    localStorage.setItem(store, JSON.stringify([...answers]));
  } catch {
    say(words.volatile);
  }
}

function restore() {
  try {
    const kept = JSON.parse(localStorage.getItem(store) ?? '[]');
    answers = new Map(kept.filter(([point, value]) => points[point - 1] && values.has(value)));
  } catch {
    say(words.volatile);
  }
}

function show(index) {
  current = Math.min(Math.max(index, 0), points.length - 1);
  const {point, place, crop, context} = points[current];
  at('crop').src = crop;
  at('context').src = context;
  at('name').textContent = `${words.point.replace('{number}', point)} · ${place}`;
  const answer = answers.get(point);
  for (const button of buttons) button.setAttribute('aria-pressed', String(Number(button.dataset.value) === answer));
  at('progress').value = answers.size / points.length;
  at('done').textContent = words.of.replace('{done}', answers.size).replace('{all}', points.length);
  at('back').disabled = current === 0;
  at('forward').disabled = current === points.length - 1;
}

/** The next point without an answer, from the one after the shown one on; else the shown one. */
function nextOpen() {
  for (let step = 1; step <= points.length; step += 1) {
    const index = (current + step) % points.length;
    if (!answers.has(points[index].point)) return index;
  }
  return current;
}

function answer(value) {
  say('');
  answers.set(points[current].point, value);
  keep();
  if (answers.size === points.length) say(words.finished);
  show(nextOpen());
}

function clear() {
  answers.delete(points[current].point);
  keep();
  show(current);
}

function mark() {
  const shown = at('mark').getAttribute('aria-pressed') !== 'true';
  at('mark').setAttribute('aria-pressed', String(shown));
  at('cross').style.visibility = shown ? '' : 'hidden';
}

function csv() {
  const rows = points.map(({point}) => `${sample},${point},${answers.get(point) ?? ''}`);
  return ['sample,point,reference', ...rows, ''].join('\r\n');
}

function save() {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([csv()], {type: 'text/csv'}));
  link.download = file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  say(`${words.saved} ${file}`);
}

async function load(event) {
  const [chosen] = event.target.files;
  if (!chosen) return;
  const rows = (await chosen.text()).replace(/^\uFEFF/, '').trim().split(/\r?\n/).map((row) => row.split(/[,;]/));
  event.target.value = '';
  const [name, point, reference] = ['sample', 'point', 'reference'].map((column) => rows[0].indexOf(column));
  if (Math.min(name, point, reference) < 0) return say(words.wrong);
  if (rows.slice(1).some((row) => row[name] !== sample)) return say(words.other);
  let count = 0;
  for (const row of rows.slice(1)) {
    const [number, value] = [Number(row[point]), Number(row[reference])];
    if (!points[number - 1] || !values.has(value)) continue;
    answers.set(number, value);
    count += 1;
  }
  keep();
  show(answers.has(points[current].point) ? nextOpen() : current);
  say(`${words.loaded} ${count}`);
}

const moves = {back: () => show(current - 1), forward: () => show(current + 1), open: () => show(nextOpen()), clear, mark, save};
for (const [id, move] of Object.entries(moves)) at(id).addEventListener('click', move);
for (const button of buttons) button.addEventListener('click', () => answer(Number(button.dataset.value)));
at('load').addEventListener('change', load);
const keys = new Map(buttons.map((button) => [button.getAttribute('aria-keyshortcuts'), () => answer(Number(button.dataset.value))]));
for (const id of ['back', 'forward', 'open', 'clear', 'mark']) keys.set(at(id).getAttribute('aria-keyshortcuts'), moves[id]);
document.addEventListener('keydown', (event) => {
  const act = keys.get(event.key.length === 1 ? event.key.toLowerCase() : event.key);
  if (!act || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  act();
});
restore();
show(0);
if (answers.size && answers.has(points[0].point)) show(nextOpen());
