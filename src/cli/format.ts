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

/** Rows with their columns under each other; numbers to the right. Lines end without spaces. */
export function formatTable(rows: readonly (readonly (string | number)[])[], indent = ''): string {
  const columns = Math.max(0, ...rows.map((row) => row.length));
  const widths = Array.from({ length: columns }, (_, column) => Math.max(...rows.map((row) => String(row[column] ?? '').length)));
  const line = (row: readonly (string | number)[]): string =>
    row.map((cell, column) => (typeof cell === 'number' ? String(cell).padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0))).join('  ');
  return rows.map((row) => `${indent}${line(row)}`.trimEnd().concat('\n')).join('');
}

/** Wide enough for every label of `formatLabelled`, so that reports made at different times line up. */
const labelWidth = 12;

/** "backend     webgpu": one line for each pair. */
export function formatLabelled(rows: readonly (readonly [label: string, text: string])[]): string {
  return rows.map(([label, text]) => `${label.padEnd(labelWidth)}${text}\n`).join('');
}
