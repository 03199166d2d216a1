// Writes the tables and plots of docs/performance.md, and the summary in README.md, from a file of bench/results: `node scripts/performance.mjs [--check]`. In both, what stands between
// `<!-- figures NAME -->` and `<!-- end -->` is made here; --check changes nothing and ends with status 1 where a page or a plot is not what the results say.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * @typedef {object} Figure
 * @property {string} name
 * @property {number} value
 * @property {string} unit
 * @property {number} [least]
 * @property {number} [most]
 * @property {number} [samples]
 * @property {string} [by]
 * @property {string} [checks]
 *
 * @typedef {object} Report
 * @property {string} bench
 * @property {string} command
 * @property {string} date
 * @property {string} adapter
 * @property {Readonly<Record<string, string>>} machine
 * @property {readonly Figure[]} figures
 *
 * @typedef {object} Series
 * @property {string} name
 * @property {boolean} own
 */

const page = 'docs/performance.md';
const readme = 'README.md';
/** What README.md shows: a benchmark, what the name of a figure says after the model's, and the heading of its columns. */
const summarised = [
  { bench: 'prefill', of: ' of 2048 tokens', heading: 'prompt of 2,048 tokens' },
  { bench: 'decode', of: ' after 512', heading: 'each token after 512' },
];
const summaryPeer = 'llama.cpp vulkan';
const plots = 'docs/performance';
const results = 'bench/results/h200.json';
/** Rates are drawn: their bars can be compared at a glance. Times of many magnitudes are not. */
const drawnUnits = ['tok/s', 'TFLOP/s', 'GB/s'];

/** @param {number} value */
function number(value) {
  if (Number.isInteger(value)) return value.toLocaleString('en-US');
  if (Math.abs(value) < 1e-3) return value.toExponential(2);
  const digits = Math.abs(value) >= 100 ? 0 : Math.max(0, Math.min(6, 2 - Math.floor(Math.log10(Math.abs(value)))));
  return value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/**
 * Who made a figure: this project by its checks, peers by their names.
 * @param {Figure} figure
 * @returns {Series}
 */
function seriesOf({ by, checks }) {
  return by === undefined || by === 'centella' ? { name: checks === undefined ? 'Centella' : `Centella, ${checks}`, own: true } : { name: by, own: false };
}

/**
 * Each distinct value once, in order.
 * @param {readonly string[]} values
 */
function distinct(values) {
  return [...new Set(values)];
}

/** @param {Figure | undefined} figure */
function cell(figure) {
  if (figure === undefined) return '';
  const range = figure.least === undefined || figure.most === undefined || figure.samples === 1 ? '' : ` (${number(figure.least)} to ${number(figure.most)})`;
  return `${number(figure.value)} ${figure.unit}${range}`;
}

/**
 * A table with a row for each name and a column for each maker.
 * @param {readonly Figure[]} figures
 */
function table(figures) {
  const makers = distinct(figures.map((figure) => seriesOf(figure).name));
  const rows = distinct(figures.map(({ name }) => name)).map((name) => {
    const cells = makers.map((maker) => cell(figures.find((figure) => figure.name === name && seriesOf(figure).name === maker)));
    return `| ${[name, ...cells].join(' | ')} |`;
  });
  return [`| ${['', ...makers].join(' | ')} |`, `|${' --- |'.repeat(makers.length + 1)}`, ...rows].join('\n');
}

/** @param {string} text */
function escaped(text) {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}

/**
 * Bars of one unit, one below the other, grouped by name, with a line from the least to the most sample.
 * @param {string} title
 * @param {readonly Figure[]} figures
 */
function plot(title, figures) {
  const [left, width, bar, gap, top] = [250, 420, 16, 10, 34];
  const longest = Math.max(...figures.map(({ value, most = value }) => Math.max(value, most)));
  const x = (/** @type {number} */ value) => left + (value / longest) * width;
  const peers = distinct(figures.filter((figure) => !seriesOf(figure).own).map((figure) => seriesOf(figure).name));
  /** @type {string[]} */
  const parts = [];
  let y = top;
  for (const name of distinct(figures.map((figure) => figure.name))) {
    const group = figures.filter((figure) => figure.name === name);
    parts.push(`<text x="${left - 8}" y="${y + (group.length * bar) / 2 + 4}" text-anchor="end">${escaped(name)}</text>`);
    for (const figure of group) {
      const { value, least, most, unit } = figure;
      const series = seriesOf(figure);
      const kind = series.own ? (figure.checks === 'checked' ? 'own checked' : 'own') : `peer p${peers.indexOf(series.name) % 3}`;
      parts.push(
        `<rect class="${kind}" x="${left}" y="${y + 1}" width="${(x(value) - left).toFixed(1)}" height="${bar - 2}"><title>${escaped(series.name)}</title></rect>`,
      );
      if (least !== undefined && most !== undefined)
        parts.push(`<line x1="${x(least).toFixed(1)}" x2="${x(most).toFixed(1)}" y1="${y + bar / 2}" y2="${y + bar / 2}"/>`);
      const label = `${number(value)} ${unit}${group.length > 1 ? `  ${series.name}` : ''}`;
      parts.push(`<text class="value" x="${(Math.max(x(value), x(most ?? value)) + 6).toFixed(1)}" y="${y + bar - 4}">${escaped(label)}</text>`);
      y += bar;
    }
    y += gap;
  }
  const style = `text{font:12px sans-serif;fill:#57606a}.title{font-weight:bold}.value{font-size:11px}.own{fill:#2f6fab}.checked{fill:#8fb8dc}.peer{fill:#b4b9c0}.p1{fill:#c9b88a}.p2{fill:#a9bfa4}line{stroke:#57606a}`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${left + width + 330} ${y}" role="img" aria-label="${escaped(title)}">
<title>${escaped(title)}</title>
<style>${style}</style>
<text class="title" x="8" y="18">${escaped(title)}</text>
${parts.join('\n')}
</svg>
`;
}

/** @param {readonly Report[]} reports */
function sourceLine(reports) {
  const commands = distinct(reports.map(({ command }) => `\`${command}\``));
  return `${commands.join('; ')}: ${distinct(reports.map(({ date }) => date)).join(', ')}, ${distinct(reports.map(({ adapter }) => adapter)).join(', ')}.`;
}

/**
 * What stands in the page for one benchmark, and its plots by file name.
 * @param {string} bench
 * @param {readonly Report[]} all
 * @returns {{ readonly text: string, readonly files: ReadonlyMap<string, string> }}
 */
function section(bench, all) {
  const reports = all.filter((report) => report.bench === bench);
  if (reports.length === 0) return { text: 'No figures of this machine yet.', files: new Map() };
  const figures = reports.flatMap((report) => report.figures).toSorted((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }));
  const files = new Map(
    drawnUnits.flatMap((unit) => {
      const drawn = figures.filter((figure) => figure.unit === unit);
      return drawn.length === 0 ? [] : [[`${bench}-${unit.replace('/', '-per-').toLowerCase()}.svg`, plot(`${bench}, ${unit}`, drawn)]];
    }),
  );
  const images = [...files.keys()].map((name) => `![${name.replace('.svg', '').replaceAll('-', ' ')}](performance/${name})`);
  return { text: [sourceLine(reports), ...images, table(figures)].join('\n\n'), files };
}

/**
 * Rates of whole models beside a peer's, as medians: a row for each model that both ran.
 * @param {readonly Report[]} all
 */
function summary(all) {
  const columns = summarised.flatMap(({ bench, of, heading }) => {
    const figures = all.filter((report) => report.bench === bench).flatMap((report) => report.figures);
    const find = (/** @type {string} */ model, /** @type {(figure: Figure) => boolean} */ made) =>
      figures.find((figure) => figure.name === model + of && made(figure));
    return [
      { heading: `${heading}, Centella`, of, figures, cell: (/** @type {string} */ model) => find(model, ({ checks }) => checks === 'unchecked') },
      { heading: 'llama.cpp', of, figures, cell: (/** @type {string} */ model) => find(model, ({ by }) => by?.startsWith(summaryPeer) ?? false) },
    ];
  });
  const models = distinct(columns.flatMap(({ of, figures }) => figures.filter(({ name }) => name.endsWith(of)).map(({ name }) => name.slice(0, -of.length))));
  const rows = models.flatMap((model) => {
    const cells = columns.map(({ cell: figure }) => figure(model)).filter((figure) => figure !== undefined);
    return cells.length < columns.length ? [] : [`| ${[model, ...cells.map(({ value, unit }) => `${number(value)} ${unit}`)].join(' | ')} |`];
  });
  return [`| ${['model', ...columns.map(({ heading }) => heading)].join(' | ')} |`, `|${' --- |'.repeat(columns.length + 1)}`, ...rows].join('\n');
}

/**
 * The page with its figures, the README with its summary, and every plot, by path.
 * @param {string} root
 * @returns {ReadonlyMap<string, string>}
 */
export function performancePage(root) {
  const { reports } = /** @type {{ reports: Report[] }} */ (JSON.parse(readFileSync(join(root, results), 'utf8')));
  /** @type {Map<string, string>} */
  const files = new Map();
  const text = readFileSync(join(root, page), 'utf8').replace(/(<!-- figures ([\w-]+) -->\n)[\s\S]*?(<!-- end -->)/g, (_, begin, bench, end) => {
    const made = section(bench, reports);
    for (const [name, content] of made.files) files.set(`${plots}/${name}`, content);
    return `${begin}\n${made.text}\n\n${end}`;
  });
  const told = readFileSync(join(root, readme), 'utf8').replace(
    /(<!-- figures summary -->\n)[\s\S]*?(<!-- end -->)/,
    (_, begin, end) => `${begin}\n${summary(reports)}\n\n${end}`,
  );
  return files.set(page, text).set(readme, told);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const root = fileURLToPath(new URL('..', import.meta.url));
  const check = process.argv.includes('--check');
  for (const [path, content] of performancePage(root)) {
    const known = existsSync(join(root, path)) ? readFileSync(join(root, path), 'utf8') : undefined;
    if (known === content) continue;
    process.stderr.write(`${path} ${check ? 'is not what the results say: run node scripts/performance.mjs' : 'written'}\n`);
    if (check) process.exitCode = 1;
    else {
      mkdirSync(join(root, plots), { recursive: true });
      writeFileSync(join(root, path), content);
    }
  }
}
