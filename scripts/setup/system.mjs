// The programs that the tests need beside npm's packages: a software Vulkan driver, and Chromium, which brings a second one.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { adapterEnvironment, adapterManifest, adapterNames, chromiumPath, withheld } from './adapters.mjs';
import { candidateVersion, install, installFromBackports, update } from './apt.mjs';
import { osRelease } from './sources.mjs';

/** Dawn opens no adapter on Mesa 22 (Debian 12's own); it does on 25 (its backports). A plain package from this major on is tried first. */
const oldestMesa = 23;

const probe = fileURLToPath(new URL('./probe.mjs', import.meta.url));

/**
 * What Dawn sees in an adapter's environment, or undefined: asked in a process of its own, since a driver may end it.
 * @param {import('./adapters.mjs').AdapterName} name
 */
function probeAdapter(name) {
  if (adapterManifest(name) === undefined) return undefined;
  const run = spawnSync(process.execPath, [probe], { encoding: 'utf8', env: { ...process.env, ...adapterEnvironment(name) }, timeout: 60_000 });
  return run.status === 0 && run.stdout !== '' ? run.stdout : undefined;
}

/** The names of what is wanted and does not work. */
function lacking() {
  /** @type {string[]} */
  const names = adapterNames.filter((name) => !withheld(name) && probeAdapter(name) === undefined);
  if (!withheld('chromium') && !existsSync(chromiumPath() ?? '')) names.push('chromium');
  return names;
}

/** @param {string} version for example '25.0.7-2~bpo12+1' */
function major(version) {
  return Number.parseInt(version.replace(/^\d+:/, ''), 10);
}

/** @param {string} family */
function chromiumPackage(family) {
  return family === 'ubuntu' ? 'chromium-browser' : 'chromium';
}

/**
 * @param {string[]} names what lacks
 * @param {string} family
 * @param {string} codename
 * @param {import('./apt.mjs').Say} say
 */
function installLacking(names, family, codename, say) {
  update(say);
  const plain = ['libvulkan1'];
  if (names.includes('chromium') || names.includes('swiftshader')) plain.push(chromiumPackage(family));
  const mesa = candidateVersion('mesa-vulkan-drivers');
  const plainMesa = mesa !== undefined && major(mesa) >= oldestMesa;
  if (names.includes('lavapipe') && plainMesa) plain.push('mesa-vulkan-drivers');
  install(plain, say);
  if (!names.includes('lavapipe') || probeAdapter('lavapipe') !== undefined) return;
  if (family !== 'debian') throw new Error(`Mesa ${mesa ?? ''} gives Dawn no adapter, and only Debian's backports are known to help`);
  say(`Mesa ${mesa ?? ''} of ${codename} is too old for Dawn`);
  installFromBackports(['mesa-vulkan-drivers'], codename, say);
}

/**
 * @param {string[]} names
 * @param {string} reason
 */
function refusal(names, reason) {
  return new Error(
    [
      `the tests lack ${names.join(', ')}, and ${reason}.`,
      `Install: ${[
        ...(names.includes('lavapipe')
          ? ["Mesa's lavapipe (Debian: mesa-vulkan-drivers, on Debian 12 from bookworm-backports) with the Vulkan loader (libvulkan1)"]
          : []),
        ...(names.includes('chromium') || names.includes('swiftshader') ? ['Chromium, which brings SwiftShader (Debian: chromium)'] : []),
      ].join('; ')}.`,
      `Or run without them: CENTELLA_WITHOUT=${names.join(',')} npm test reports their cases as not run.`,
    ].join('\n'),
  );
}

/**
 * Makes sure that the adapters and Chromium work, installing what lacks where that is possible and allowed.
 * @param {import('./apt.mjs').Say} say
 */
export function ensureSystem(say) {
  const names = lacking();
  if (names.length === 0) return;
  const release = osRelease();
  const family = [release.get('ID'), ...(release.get('ID_LIKE') ?? '').split(' ')].find((name) => name === 'debian' || name === 'ubuntu');
  const codename = release.get('VERSION_CODENAME');
  if (process.env['CENTELLA_NO_INSTALL'] === '1') throw refusal(names, 'CENTELLA_NO_INSTALL=1 forbids installing');
  if (family === undefined || codename === undefined) throw refusal(names, 'this system is neither Debian nor Ubuntu, so nothing is installed');
  if (process.getuid?.() !== 0) throw refusal(names, 'installing needs root');
  say(`the tests lack ${names.join(', ')}: installing from this machine's package sources`);
  try {
    installLacking(names, family, codename, say);
  } catch (error) {
    throw refusal(names, `installing failed:\n${error instanceof Error ? error.message : String(error)}`);
  }
  const still = lacking();
  if (still.length > 0) throw refusal(still, 'the installed packages did not bring them');
}
