import { FormatError } from '../core/errors.js';
import type { TensorType } from '../core/tensor.js';
import { type DecoderConfig, decoderConfig } from './decoder-config.js';
import { type ModelMetadata, readHyperparameters } from './hyperparameters.js';
import { decoderTensors, tensorNames } from './tensors.js';

/** An open model file, as far as its description goes: `GgufFile` is one. */
export interface ModelFile extends ModelMetadata {
  readonly tensors: ReadonlyMap<string, TensorType>;
}

/** What a file says that it holds: enough to build its decoder. */
export interface ModelDescription {
  readonly config: DecoderConfig;
  readonly weights: ReadonlyMap<string, TensorType>;
}

/** Checks an open file's hyperparameters and tensors against the architecture that it names. */
export function describeModel(file: ModelFile): ModelDescription {
  const hyperparameters = readHyperparameters(file);
  const embedding = file.tensors.get(tensorNames.embedding);
  if (embedding === undefined)
    throw new FormatError('E_TENSOR_MISSING', `${tensorNames.embedding} is missing: the file holds no language model`, { tensor: tensorNames.embedding });
  const config = decoderConfig(hyperparameters, embedding.shape[0] ?? 0);
  return { config, weights: decoderTensors(config, file.tensors) };
}
