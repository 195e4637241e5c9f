// Bundles the page into one folder: `node build.mjs OUT`, after `npm ci`.
import {copyFile, mkdir, readFile, readdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {build} from 'esbuild';

const out = process.argv[2] ?? 'built';
await mkdir(out, {recursive: true});
const result = await build({
  entryPoints: {map: 'src/main.js'},
  outdir: out,
  bundle: true,
  format: 'esm',
  minify: true,
  legalComments: 'none',
  metafile: true,
  target: ['es2022'],
  alias: Object.fromEntries(['blosc', 'lz4', 'zstd'].map((name) => [`numcodecs/${name}`, './src/no_codec.js'])),
  logLevel: 'warning',
});
await copyFile('index.html', join(out, 'index.html'));

// The licences of what was bundled travel with it.
const packages = new Set();
for (const input of Object.keys(result.metafile.inputs)) {
  const found = /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
  if (found) packages.add(found[1]);
}
const texts = [];
for (const name of [...packages].sort()) {
  const folder = join('node_modules', name);
  const {version, license} = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8'));
  const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
  const text = file ? await readFile(join(folder, file), 'utf8') : `Licence: ${license}`;
  texts.push(`${name} ${version} (${license})\n\n${text.trim()}\n`);
}
await writeFile(join(out, 'LICENSES.txt'), texts.join('\n----\n\n'));
