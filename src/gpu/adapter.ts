/** Which adapters there are, which one is taken, and why. */

import type { GpuCapabilities } from '../core/capabilities.js';
import { ArgumentError, CentellaError } from '../core/errors.js';
import { type DawnAdapterName, dawnAdapterNames, dawnBackend, type GpuSource, keepAlive, openGpu } from '../platform/dawn.js';
import { type SelectableGpus, selectableGpus } from '../platform/device-select.js';
import { type AdapterInfoLike, adapterName, capabilitiesOf, identifier, isPartOfName, packedDotFeature } from './capabilities.js';

/** WebGPU's two words for which adapter is wanted. */
export type PowerPreference = 'high-performance' | 'low-power';

/** An adapter that can be chosen. */
export interface AdapterEntry {
  /** Position in the list; `adapter: index` chooses it. */
  readonly index: number;
  /** As `GPUAdapterInfo.device` writes it ("nvidia-h200"), or the best that the runtime tells. */
  readonly name: string;
  /** What WebGPU is made of there, in Dawn's words ("vulkan", "metal", "d3d12"); "webgpu" in browsers and other runtimes, which do not tell. */
  readonly backend: string;
  readonly software: boolean;
  readonly capabilities: GpuCapabilities;
  /** "0000:07:00.0", where several adapters have one name and only this tells them apart. */
  readonly pciAddress?: string;
  /** Power preferences that lead to it, where the runtime can only be asked that way. */
  readonly powerPreferences: readonly PowerPreference[];
}

/** Adapters that can be chosen, and what is to be known about the others. */
export interface AdapterList {
  readonly adapters: readonly AdapterEntry[];
  /** What could not be told apart or reached. */
  readonly notes: readonly string[];
}

export interface AdapterQuery {
  /** Index in `listAdapters()`, or a part of a name (case and punctuation do not matter: "NVIDIA H200" is "nvidia-h200"). */
  readonly adapter?: number | string;
  /** Default 'high-performance'. */
  readonly powerPreference?: PowerPreference;
  /** Keep Dawn's own checks on (Node only; browsers always have theirs on). */
  readonly checked?: boolean;
  /**
   * Whether an adapter that renders on the CPU will do. Default 'allow': who asks for a GPU device asks for WebGPU. An automatic choice of backend refuses it,
   * because the CPU backend is faster. An adapter named by `adapter` is taken either way.
   */
  readonly software?: 'allow' | 'refuse';
}

/** @throws ArgumentError for values that no option has: calls come from plain JavaScript too. */
export function assertQuery({ adapter, powerPreference, software }: AdapterQuery): void {
  const valid = typeof adapter === 'string' ? adapter !== '' : adapter === undefined || Number.isSafeInteger(adapter);
  if (!valid) throw new ArgumentError('adapter', `adapter must be an index or a part of a name, got ${JSON.stringify(adapter)}: see GpuDevice.adapters()`);
  assertOneOf('powerPreference', powerPreference, ['high-performance', 'low-power']);
  assertOneOf('software', software, ['allow', 'refuse']);
}

export function assertOneOf(argument: string, value: string | undefined, values: readonly string[]): void {
  if (value !== undefined && !values.includes(value))
    throw new ArgumentError(argument, `${argument} must be ${values.map((one) => `'${one}'`).join(' or ')}, got ${JSON.stringify(value)}`);
}

export interface AdapterChoice {
  readonly adapter: GPUAdapter;
  readonly source: GpuSource;
  readonly capabilities: GpuCapabilities;
  readonly name: string;
  readonly backend: string;
  /** Where it is, when only that tells it from others of its name. */
  readonly pciAddress?: string;
  /** One sentence for people. */
  readonly reason: string;
}

interface Candidate {
  /** For messages and to be found by; the adapter's own once it is open. */
  readonly name: string;
  readonly backend: string;
  readonly pciAddress?: string;
  readonly open: (checked: boolean) => Promise<{ source: GpuSource; adapter: GPUAdapter } | undefined>;
  readonly powerPreferences: readonly PowerPreference[];
}

/** Every adapter that this runtime lets one reach. No device is made. */
export async function listAdapters(): Promise<AdapterList> {
  const { candidates, notes } = await findCandidates();
  const adapters: AdapterEntry[] = [];
  for (const [index, candidate] of candidates.entries()) {
    const { name, backend, powerPreferences } = candidate;
    const opened = await candidate.open(false).catch((error: unknown) => (error instanceof Error ? error.message : String(error)));
    if (opened === undefined || typeof opened === 'string') {
      notes.push(`${name} (${backend}) is listed but gives no adapter${opened === undefined ? '' : `: ${opened}`}`);
      continue;
    }
    const capabilities = adapterCapabilities(opened.source, opened.adapter);
    adapters.push({ index, name: nameOf(opened.adapter), backend, software: capabilities.software, capabilities, powerPreferences, ...placeOf(candidate) });
  }
  return { adapters, notes };
}

/**
 * Chooses an adapter: hardware first, software only where it may be. The adapter is a fresh one, for one device.
 * @throws CentellaError E_NO_ADAPTER, E_NO_WEBGPU; ArgumentError where `adapter` names none.
 */
export async function chooseAdapter(query: AdapterQuery = {}): Promise<AdapterChoice> {
  if (query.adapter !== undefined) return chooseNamed(query.adapter, query.checked === true);
  const powerPreference = query.powerPreference ?? 'high-performance';
  const source = await openGpu({ checked: query.checked === true });
  const adapter = await source.gpu.requestAdapter({ powerPreference });
  if (adapter === null) throw noAdapter('WebGPU is there, but it has no adapter: is a graphics driver (on Linux a Vulkan driver) installed?');
  keepAlive(adapter);
  const capabilities = adapterCapabilities(source, adapter);
  if (!capabilities.software) return choice({ adapter, source }, capabilities, `the ${powerPreference} adapter of this machine`);
  const hardware = await firstHardware(query.checked === true);
  if (hardware !== undefined) return hardware;
  if (query.software === 'refuse') {
    throw noAdapter(
      `the only adapter, ${capabilities.description}, renders in software, which an automatic choice does not take: ask for WebGPU or name the adapter to use it`,
    );
  }
  return choice({ adapter, source }, capabilities, 'a software adapter, because WebGPU was asked for and no hardware adapter was found');
}

async function chooseNamed(wanted: number | string, checked: boolean): Promise<AdapterChoice> {
  const { candidates } = await findCandidates();
  const candidate = typeof wanted === 'number' ? candidates[wanted] : candidates.find(({ name }) => isPartOfName(wanted, name));
  const opened = await candidate?.open(checked);
  if (candidate === undefined || opened === undefined) {
    const known = candidates.map(({ name, backend, pciAddress }, index) => `${index}: ${name} (${backend}${at(pciAddress)})`).join('; ');
    throw new ArgumentError(
      'adapter',
      `no adapter ${typeof wanted === 'number' ? `with index ${wanted}` : `named "${wanted}"`}; there is ${known === '' ? 'none' : known}`,
    );
  }
  const { backend } = candidate;
  const capabilities = adapterCapabilities(opened.source, opened.adapter);
  const how = typeof wanted === 'number' ? `chosen by index ${wanted}` : `chosen by the name "${wanted}"`;
  const reason = `${how}${at(candidate.pciAddress)}${capabilities.software ? '; it renders in software' : ''}`;
  return { ...opened, name: nameOf(opened.adapter), backend, capabilities, reason, ...placeOf(candidate) };
}

function placeOf({ pciAddress }: Candidate): { pciAddress?: string } {
  return pciAddress === undefined ? {} : { pciAddress };
}

function at(pciAddress: string | undefined): string {
  return pciAddress === undefined ? '' : `, at PCI ${pciAddress}`;
}

/** A hardware adapter that the plain request passed over; only Dawn lists what it has. */
async function firstHardware(checked: boolean): Promise<AdapterChoice | undefined> {
  const list = await listAdapters();
  const entry = list.adapters.find(({ software }) => !software);
  return entry === undefined ? undefined : chooseNamed(entry.index, checked);
}

function choice(opened: { adapter: GPUAdapter; source: GpuSource }, capabilities: GpuCapabilities, reason: string): AdapterChoice {
  return { ...opened, capabilities, name: nameOf(opened.adapter), backend: opened.source.provider === 'dawn' ? dawnBackend() : 'webgpu', reason };
}

function noAdapter(message: string): CentellaError {
  return new CentellaError('E_NO_ADAPTER', message);
}

function nameOf(adapter: GPUAdapter): string {
  return adapterName(adapter.info);
}

function adapterCapabilities(source: GpuSource, adapter: GPUAdapter): GpuCapabilities {
  const packedDot = source.gpu.wgslLanguageFeatures?.has(packedDotFeature) ?? false;
  return capabilitiesOf(adapter, adapter.info as AdapterInfoLike, packedDot);
}

async function findCandidates(): Promise<{ candidates: readonly Candidate[]; notes: string[] }> {
  const source = await openGpu();
  return source.provider === 'dawn' ? dawnCandidates(await dawnAdapterNames()) : navigatorCandidates(source);
}

/**
 * Dawn takes the first adapter whose name contains the one asked for, so later ones whose name an earlier one contains are out of reach. Several of one name are
 * one entry here: see `placed`.
 */
export function reachable(names: readonly DawnAdapterName[]): { reached: readonly DawnAdapterName[]; notes: string[] } {
  const reached: DawnAdapterName[] = [];
  const notes: string[] = [];
  for (const entry of names) {
    const shadow = reached.find(({ backend, name }) => backend === entry.backend && name.includes(entry.name));
    if (shadow === undefined) reached.push(entry);
    else if (shadow.name !== entry.name)
      notes.push(`${entry.name} (${entry.backend}) cannot be chosen: Dawn finds adapters by a part of their name and takes ${shadow.name} first`);
  }
  return { reached, notes };
}

/** One entry for each of several adapters of one name, where the layer tells their places; else one entry for all, and a note why. */
export function placed(
  entry: DawnAdapterName,
  copies: number,
  { gpus, problem }: SelectableGpus,
): { entries: readonly (DawnAdapterName & { pciAddress?: string })[]; notes: string[] } {
  const places = gpus.flatMap(({ name, pciAddress }) => (name === entry.name && pciAddress !== undefined ? [pciAddress] : []));
  if (places.length >= copies) return { entries: places.slice(0, copies).map((pciAddress) => ({ ...entry, pciAddress })), notes: [] };
  const why = problem ?? `Mesa's device-select layer lists ${places.length} of them`;
  return { entries: [entry], notes: [`${copies} adapters are named ${entry.name} (${entry.backend}) and only the first can be reached: ${why}`] };
}

const vulkanOnly: SelectableGpus = { gpus: [], problem: 'Dawn takes the first of that name' };

async function dawnCandidates(names: readonly DawnAdapterName[]): Promise<{ candidates: readonly Candidate[]; notes: string[] }> {
  const { reached, notes } = reachable(names);
  const candidates: Candidate[] = [];
  for (const entry of reached) {
    const copies = names.filter(({ backend, name }) => backend === entry.backend && name === entry.name).length;
    const told = copies === 1 ? { entries: [entry], notes: [] } : placed(entry, copies, entry.backend === 'vulkan' ? await selectableGpus() : vulkanOnly);
    candidates.push(...told.entries.map(dawnCandidate));
    notes.push(...told.notes);
  }
  return { candidates, notes };
}

function dawnCandidate({ backend, name, pciAddress }: DawnAdapterName & { pciAddress?: string }): Candidate {
  const place = pciAddress === undefined ? {} : { pciAddress };
  return {
    name: identifier(name),
    backend,
    powerPreferences: [],
    ...place,
    open: async (checked) => {
      const source = await openGpu({ checked, backend, adapterName: name, ...place });
      const adapter = await source.gpu.requestAdapter();
      return adapter === null ? undefined : { source, adapter: keepAlive(adapter) };
    },
  };
}

/** A browser does not enumerate: what the power preferences lead to is listed, equal descriptions once. */
async function navigatorCandidates(source: GpuSource): Promise<{ candidates: readonly Candidate[]; notes: string[] }> {
  const found = new Map<string, { preference: PowerPreference; all: PowerPreference[] }>();
  for (const preference of ['high-performance', 'low-power'] as const) {
    const adapter = await source.gpu.requestAdapter({ powerPreference: preference });
    if (adapter === null) continue;
    const name = adapterCapabilities(source, adapter).description;
    const known = found.get(name);
    if (known === undefined) found.set(name, { preference, all: [preference] });
    else known.all.push(preference);
  }
  const candidates = [...found].map(([name, { preference, all }]) => ({
    name,
    backend: 'webgpu',
    powerPreferences: all,
    open: async () => {
      const adapter = await source.gpu.requestAdapter({ powerPreference: preference });
      return adapter === null ? undefined : { source, adapter };
    },
  }));
  return {
    candidates,
    notes: ['this runtime does not enumerate adapters: listed is what the two power preferences lead to; adapters with equal descriptions are one entry'],
  };
}
