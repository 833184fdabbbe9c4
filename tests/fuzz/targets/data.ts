import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadCalibrationTokens, openInput, readFloatTensors, readRatios } from '@secateur/checkpoint';
import { readQuestion, SecateurError, TASKS } from '@secateur/core';
import { readJsonLines } from '../../../packages/checkpoint/dist/files/json-lines.js';
import type { Documents } from '../../../packages/checkpoint/dist/tokens/documents.js';
import { openDocuments } from '../../../packages/checkpoint/dist/tokens/open-documents.js';
import { ParquetReader } from '../../../packages/checkpoint/dist/tokens/parquet.js';
import type { FuzzTarget } from '../engine/target.js';
import { withHeaderLength } from './checkpoint.js';

const WATCHED = ['packages/checkpoint/', 'fzstd'];
const ZSTD_MAGIC = 0xfd2fb528;
const GZIP_MAGIC = 0x8b1f;

const INPUTS_PER_PROCESS = 200;
const OPTIONS = { textField: 'text' };

/** Reads the documents at both ends of a file. */
async function readEnds(documents: Documents): Promise<void> {
  const places = Array.from({ length: Math.min(documents.count, 8) }, (_, place) => place);
  for (const place of [...places, documents.count - 1]) if (place >= 0) await documents.read(place);
}

function documentTarget(words: readonly string[], nameOf: (input: Buffer) => string): FuzzTarget {
  return {
    words,
    watched: WATCHED,
    limitMs: 20_000,
    open: async (folder) => ({
      read: async (input) => {
        const path = join(folder, nameOf(input));
        await writeFile(path, input);
        const documents = await openDocuments([path], OPTIONS);
        try {
          await readEnds(documents);
        } finally {
          await documents.close();
        }
      },
    }),
  };
}

export const jsonLines = documentTarget(
  ['{"text":"', '"}\n', '\n', '{"text":""}', '\\ud800', '\\u0000', '"text":null', '[]'],
  () => 'data.jsonl',
);
/** Read by the process of the product, which many inputs share while they leave it alive. */
export const parquet: FuzzTarget = {
  words: ['PAR1', 'text', 'schema', '\u0015\0', '\ufffd\u0001', 'UTF8'],
  // What a small file may take before its process is stopped.
  limitMs: 90_000,
  open: async (folder) => {
    const path = join(folder, 'data.parquet');
    let reader = new ParquetReader();
    let inputs = 0;
    const renew = async (): Promise<void> => {
      await reader.close();
      reader = new ParquetReader();
      inputs = 0;
    };
    return {
      read: async (input) => {
        await writeFile(path, input);
        // Each file that was opened is remembered.
        if (++inputs > INPUTS_PER_PROCESS) await renew();
        const file = await openInput(path);
        try {
          await readEnds(await reader.open(file, OPTIONS));
        } catch (error) {
          // A process that was stopped reads no more.
          if (!(error instanceof SecateurError) || error.reason !== 'INVALID_DATA' || error.message.includes('was stopped')) await renew();
          throw error;
        } finally {
          await file.close();
        }
      },
      close: () => reader.close(),
    };
  },
};
export const compressed = documentTarget(['\u001f\ufffd', '(\ufffd/\ufffd', '{"text":"a"}\n', '\0\0\0'], (input) => {
  const magic = input.byteLength < 4 ? 0 : input.readUInt32LE();
  return magic === ZSTD_MAGIC || (magic & 0xffff) !== GZIP_MAGIC ? 'data.jsonl.zst' : 'data.jsonl.gz';
});

/** Questions of tasks. */
export const questions: FuzzTarget = {
  words: [
    '"query":',
    '"choices":',
    '"gold":',
    '"ctx":',
    '"endings":',
    '"label":',
    '"question":',
    '"answerKey":',
    '"sentence":',
    '"option1":',
    '"goal":',
  ],
  watched: ['packages/core/', 'packages/checkpoint/'],
  limitMs: 5_000,
  open: async (folder) => {
    const path = join(folder, 'questions.jsonl');
    return {
      read: async (input) => {
        await writeFile(path, input);
        const file = await openInput(path);
        try {
          for await (const { line, value } of readJsonLines(file)) readForAll(value, `line ${line}`);
        } finally {
          await file.close();
        }
      },
    };
  },
};

/** Reads a record as every task does; throws what the last of them throws. */
function readForAll(value: unknown, where: string): void {
  const errors: unknown[] = [];
  for (const task of TASKS.values()) {
    try {
      readQuestion(task, value, where);
    } catch (error) {
      if (!(error instanceof SecateurError)) throw error;
      errors.push(error);
    }
  }
  if (errors.length > 0) throw errors.at(-1);
}

/** Token ids, and vectors by name, as .safetensors. */
export const tokenIds: FuzzTarget = {
  words: ['"input_ids"', '"dtype":"I64"', '"dtype":"I32"', '"shape":[2,4]', '"data_offsets":[0,64]', '"shape":[4294967296,0]'],
  watched: WATCHED,
  limitMs: 5_000,
  open: async (folder) => {
    const path = join(folder, 'ids.safetensors');
    const source = { paths: [path], samples: 0, sequenceLength: 0, seed: 0, sampling: 'documents', textField: 'text' } as const;
    return {
      read: async (input) => {
        await writeFile(path, input);
        await loadCalibrationTokens(source, { directory: folder, vocabularySize: 64 });
        await readFloatTensors(path, [{ name: 'input_ids', length: 4 }], {});
      },
    };
  },
  repair: withHeaderLength,
};

/** Ratios as JSON or of NumPy. */
export const ratios: FuzzTarget = {
  words: ['\u0093NUMPY', "'descr': '<f8'", "'shape': (4,)", "'fortran_order': False", '0.7', '"model.layers.0"'],
  watched: ['packages/checkpoint/'],
  limitMs: 5_000,
  open: async (folder) => {
    const path = join(folder, 'ratios');
    return {
      read: async (input) => {
        await writeFile(path, input);
        await readRatios(path, {});
      },
    };
  },
};
