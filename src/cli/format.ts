/** Numbers and tables as people read them. */

const binaryUnits = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'] as const;

/** "7.9 MiB". */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  for (; value >= 1024 && unit < binaryUnits.length - 1; unit++) value /= 1024;
  return `${unit === 0 ? value : value.toFixed(1)} ${binaryUnits[unit]}`;
}

/** "1,048,576", whatever the machine's language. */
export function formatCount(count: number): string {
  return count.toLocaleString('en-US');
}

export function formatSeconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}

/** "1 token", "2 tokens". */
export function plural(count: number, noun: string): string {
  return `${formatCount(count)} ${noun}${count === 1 ? '' : 's'}`;
}

/** What a terminal takes for a command, or turns the reading of what follows round. */
const commands = /[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu;
/** Those that a text may not have: line breaks, tabs and the marks of languages that are written from right to left are part of it. */
const commandsInText = /(?![\n\t])\p{Cc}/gu;

/** One line with what a stranger's file says in it: control characters, which a terminal would obey, as "\u001b". */
export function printable(line: string): string {
  return line.replaceAll(commands, escaped);
}

/** As `printable`, for a text of several lines. */
export function printableText(text: string): string {
  return text.replaceAll(commandsInText, escaped);
}

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

/** Rows with their columns under each other; numbers to the right. Lines end without spaces. Cells are `printable`. */
export function formatTable(cells: readonly (readonly (string | number)[])[], indent = ''): string {
  const rows = cells.map((row) => row.map((cell) => (typeof cell === 'number' ? cell : printable(cell))));
  const columns = Math.max(0, ...rows.map((row) => row.length));
  const widths = Array.from({ length: columns }, (_, column) => Math.max(...rows.map((row) => String(row[column] ?? '').length)));
  const line = (row: readonly (string | number)[]): string =>
    row.map((cell, column) => (typeof cell === 'number' ? String(cell).padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0))).join('  ');
  return rows.map((row) => `${indent}${line(row)}`.trimEnd().concat('\n')).join('');
}

/** Wide enough for every label of `formatLabelled`, so that reports made at different times line up. */
const labelWidth = 12;

/** "backend     webgpu": one line for each pair, `printable`. */
export function formatLabelled(rows: readonly (readonly [label: string, text: string])[]): string {
  return rows.map(([label, text]) => `${label.padEnd(labelWidth)}${printable(text)}\n`).join('');
}
