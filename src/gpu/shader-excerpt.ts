/** What the WGSL compiler complained about, with the lines in question. */

/** Lines shown before and after the one that is wrong. */
const context = 2;

/** "3:14 expected ';'" and the lines around it, or undefined where the compiler has no message (the fault is then the pipeline's). */
export async function shaderExcerpt(module: GPUShaderModule, code: string): Promise<string | undefined> {
  const info = await module.getCompilationInfo();
  const error = info.messages.find(({ type }) => type === 'error');
  if (error === undefined) return undefined;
  return `${error.lineNum}:${error.linePos} ${error.message}\n${excerpt(code, error.lineNum, error.linePos)}`;
}

/** Numbered lines around `line` (from 1), with a mark under `column` (from 1). */
export function excerpt(code: string, line: number, column: number): string {
  const lines = code.split('\n');
  const first = Math.max(1, line - context);
  const last = Math.min(lines.length, line + context);
  const width = String(last).length;
  const shown: string[] = [];
  for (let number = first; number <= last; number++) {
    shown.push(`${String(number).padStart(width)} | ${lines[number - 1] ?? ''}`);
    if (number === line) shown.push(`${' '.repeat(width)} | ${' '.repeat(Math.max(0, column - 1))}^`);
  }
  return shown.join('\n');
}
