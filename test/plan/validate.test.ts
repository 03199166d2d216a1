import { describe, expect, test } from 'vitest';
import { PlanError } from '../../src/core/errors.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import type { MemoryRules } from '../../src/ops/target.js';
import type { ExecutionPlan, Location, PlannedArg, PlannedStep } from '../../src/plan/execution-plan.js';
import { planGraph } from '../../src/plan/plan.js';
import { validate } from '../../src/plan/validate.js';
import { f32, u32 } from '../graph/support.js';
import { type FakeKernel, type FakeOptions, fakeTarget } from './support.js';

type Plan = ExecutionPlan<FakeKernel>;

/** x (0) to a = -x (1), b = exp a (2), c = a + b (3), d = |c| (4, the output). */
function goodPlan(options: FakeOptions = {}): Plan {
  const g = new GraphBuilder();
  const a = g.unary('neg', g.input('x', f32(16)), {}, 'a');
  const b = g.unary('exp', a, {}, 'b');
  g.output('d', g.unary('abs', g.binary('add', a, b, 'c'), {}, 'd'));
  return planGraph(g.build(), fakeTarget({ inPlace: false, ...options }));
}

/** The plan with some of its arguments elsewhere. */
function moved(plan: Plan, change: (arg: PlannedArg, step: number) => Partial<Location> | undefined): Plan {
  const steps = plan.steps.map((step, index) => ({
    ...step,
    args: step.args.map((arg) => ({ ...arg, location: { ...arg.location, ...change(arg, index) } })),
  }));
  return { ...plan, steps };
}

const withSteps = (plan: Plan, change: (steps: readonly PlannedStep<FakeKernel>[]) => readonly PlannedStep<FakeKernel>[]): Plan => ({
  ...plan,
  steps: change(plan.steps),
});
const withRules = (plan: Plan, memory: Partial<MemoryRules>): Plan => ({ ...plan, target: { ...plan.target, memory: { ...plan.target.memory, ...memory } } });
const placeOf = ({ memory }: Plan, value: number): Partial<Location> => {
  const slot = memory.slots.get(value);
  return { bank: slot?.bank ?? -1, offset: slot?.offset ?? -1 };
};

function refuses(plan: Plan, message: string): void {
  expect(() => validate(plan)).toThrow(PlanError);
  expect(() => validate(plan)).toThrow(message);
}

describe('the validator', () => {
  const plan = goodPlan();
  const shared = goodPlan({ memory: { exclusiveBuffers: false } });

  test('accepts what the planner makes', () => {
    validate(plan);
    validate(shared);
    validate(moved(plan, () => undefined));
  });

  test('refuses one slot for two values that live together', () => {
    refuses(
      moved(shared, ({ value }) => (value === 2 ? placeOf(shared, 1) : undefined)),
      'overlap, and one of them is written',
    );
  });

  test('refuses a slot that ends inside another', () => {
    const beside = { ...placeOf(shared, 1), offset: (placeOf(shared, 1).offset ?? 0) + 16 };
    const tight = { ...shared, memory: { ...shared.memory, banks: [1024] } };
    refuses(
      moved(tight, ({ value }) => (value === 2 ? beside : undefined)),
      'overlap',
    );
  });

  test('refuses one bank for what is read and what is written', () => {
    const bank = placeOf(plan, 1).bank ?? -1;
    const roomy = { ...plan, memory: { ...plan.memory, banks: plan.memory.banks.map(() => 4096) } };
    refuses(
      moved(roomy, ({ value }) => (value === 2 ? { bank, offset: 1024 } : undefined)),
      'share a buffer, one is read and one is written',
    );
  });

  test('refuses a bank that is not there, and the end of one that is', () => {
    refuses(
      moved(plan, ({ value }) => (value === 2 ? { bank: 9 } : undefined)),
      'of bank 9, past its end',
    );
    refuses(
      moved(plan, ({ value }) => (value === 2 ? { offset: 65_536 } : undefined)),
      'past its end',
    );
  });

  test('refuses a value that is read elsewhere than it was written', () => {
    refuses(
      moved(shared, ({ access, value }) => (access === 'read' && value === 2 ? placeOf(shared, 0) : undefined)),
      'which holds something else',
    );
  });

  test('refuses a value that was overwritten before it is read', () => {
    const roomy = { ...shared, memory: { ...shared.memory, banks: [4096] } };
    refuses(
      moved(roomy, ({ value }, step) => (value === 2 && step === 1 ? { offset: 1024 } : undefined)),
      'which holds something else',
    );
    refuses(
      withSteps(shared, ([a, b, ...rest]) => [b, a, ...rest].filter((step) => step !== undefined)),
      'step 0 (b) reads value 1',
    );
    refuses(
      withSteps(shared, (steps) => steps.slice(1)),
      'which holds something else',
    );
  });

  test('refuses an output and an input that do not last', () => {
    const last = shared.steps.at(-1);
    if (last === undefined) throw new Error('no steps');
    const elsewhere = {
      ...last,
      args: last.args.map((arg) => (arg.access === 'read' ? arg : { ...arg, location: { ...arg.location, ...placeOf(shared, 0) } })),
    };
    refuses(
      withSteps(shared, (steps) => [...steps.slice(0, -1), elsewhere]),
      'output "d" is overwritten',
    );
    refuses(
      moved(shared, ({ value }) => (value === 2 ? placeOf(shared, 0) : undefined)),
      'input "x" is overwritten',
    );
    refuses(
      withSteps(shared, (steps) => steps.slice(0, -1)),
      'output "d"',
    );
  });

  test('refuses what the device does not allow', () => {
    refuses(withRules(plan, { maxBindings: 2 }), '3 bindings, the device allows 2');
    refuses(withRules(plan, { maxBindingBytes: 32 }), 'binds 64 bytes, the device allows 32');
    refuses(withRules(plan, { maxGrid: 0 }), 'a grid of 1 x 1 x 1 workgroups');
    refuses(
      moved(plan, ({ value }) => (value === 0 ? { offset: 4 } : undefined)),
      'starts at byte 4, not a multiple of 16',
    );
  });

  test('refuses a kernel that declares other bindings or no grid', () => {
    const declaring = (change: Partial<FakeKernel>): Plan =>
      withSteps(plan, (steps) => steps.map((step, index) => (index === 1 ? { ...step, kernel: { ...step.kernel, ...change } } : step)));
    refuses(declaring({ bindings: ['read', 'read'] }), 'the kernel declares (read, read)');
    refuses(declaring({ bindings: ['read'] }), 'arguments are (read, read_write)');
    refuses(declaring({ grid: [0, 1, 1] }), 'a grid of 0 x 1 x 1');
    refuses(declaring({ grid: [Number.NaN, 1, 1] }), 'a grid of NaN');
  });

  test('refuses an update of what is neither a state nor consumed', () => {
    const updating = withSteps(plan, (steps) =>
      steps.map((step, index) =>
        index === 1 ? { ...step, args: step.args.map((arg) => (arg.access === 'write' ? { ...arg, access: 'readwrite' as const } : arg)) } : step,
      ),
    );
    refuses(updating, 'which is neither a state nor in place');
  });

  test('refuses an in-place step over another value than its input', () => {
    const inPlace = goodPlan({ inPlace: true });
    const step = inPlace.steps.findIndex(({ consumes }) => consumes !== undefined);
    expect(step).toBeGreaterThan(0);
    refuses(
      withSteps(inPlace, (steps) => steps.map((entry, index) => (index === step ? { ...entry, consumes: 0 } : entry))),
      'which holds something else',
    );
  });
});

describe('versions of a state', () => {
  /** Reads the cache, updates it, reads it again. */
  function cachePlan(): Plan {
    const g = new GraphBuilder();
    const session = g.state('session', u32(65));
    const cache = g.state('cache', f32(1, 4, 2));
    g.output('before', g.unary('exp', cache, {}, 'before'));
    const updated = g.cacheWrite(cache, g.input('x', f32(1, 1, 2)), session, 'update');
    g.output('after', g.unary('exp', updated, {}, 'after'));
    g.output('cache', updated);
    return planGraph(g.build(), fakeTarget());
  }

  const order = (names: readonly string[]): Plan =>
    withSteps(cachePlan(), (steps) => names.map((name) => steps.find(({ label }) => label === name)).filter((step) => step !== undefined));

  test('are read in their time', () => validate(order(['before', 'update', 'after'])));

  test.each([
    ['the old one after the update', ['update', 'before', 'after'], '(before) reads value'],
    ['the new one before it', ['before', 'after', 'update'], '(after) reads value'],
    ['an output of an update that does not run', ['before'], 'output "after"'],
  ])('and refused out of it: %s', (_, names, message) => {
    refuses(order(names), message);
  });

  test('an update is not done twice', () => {
    refuses(order(['before', 'update', 'update', 'after']), '(update) reads value');
  });
});
