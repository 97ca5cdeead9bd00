/**
 * Matrix products against the FMA peak, ONNX Runtime's MatMul and PyTorch's (OpenBLAS for f32, oneDNN for bf16), and few-row linear layers
 * (decode) against the read bandwidth.
 *
 * One multiply-add counts as two operations. bf16 reaches twice the f32 peak where the machine has AVX512-BF16.
 */
import { linear, matmul, randn, type DType, type Tensor } from '../lib/index.ts';
import { native } from '../lib/native.ts';
import { matmulModel } from './onnx_model.ts';
import { measure, peer, round, save, type Row } from './report.ts';
import { inTorch } from './torch.ts';

interface Session {
  run(feeds: Record<string, unknown>): Promise<Record<string, { data: Float32Array; dispose?(): void }>>;
}
interface OnnxRuntime {
  InferenceSession: {
    create(model: Uint8Array, options: { intraOpNumThreads: number; interOpNumThreads: number }): Promise<Session>;
  };
  Tensor: new (type: 'float32', data: Float32Array, dims: readonly number[]) => unknown;
}

const threadCounts = [1, 2];

function random(shape: number[], dtype: DType): Tensor {
  return randn(shape, { dtype });
}

async function onnxRow(ort: OnnxRuntime, n: number, threads: number): Promise<number> {
  const session = await ort.InferenceSession.create(matmulModel(n, n, n), {
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
  });
  const values = (): Float32Array => Float32Array.from({ length: n * n }, (_, i) => (i % 17) - 8);
  const feeds = {
    a: new ort.Tensor('float32', values(), [n, n]),
    b: new ort.Tensor('float32', values(), [n, n]),
  };
  const row = await measure(
    `onnxruntime MatMul f32 ${n}^3`,
    async () => {
      await session.run(feeds);
    },
    { threads, flops: 2 * n ** 3 },
  );
  return row.ms;
}

async function squares(ort: OnnxRuntime | null): Promise<Row[]> {
  const rows: Row[] = [];
  for (const n of [1024, 2048]) {
    for (const threads of threadCounts) {
      for (const dtype of ['f32', 'bf16', 'f16'] as const) {
        const [a, b] = [random([n, n], dtype), random([n, n], dtype)];
        const row = await measure(`matmul ${dtype} ${n}^3`, () => matmul(a, b), { threads, flops: 2 * n ** 3 });
        if (dtype === 'f32' && ort) {
          const ms = await onnxRow(ort, n, threads);
          row.onnxruntimeMs = ms;
          row.speedUp = round(ms / row.ms);
        }
        const torch = dtype === 'f16' ? undefined : inTorch<{ gflops: number }>('matmul.py', n, dtype, threads);
        if (torch) {
          row.torchGflops = round(torch.gflops);
          row.ofTorch = round((row.gflops ?? 0) / torch.gflops);
          process.stdout.write(`  ${row.ofTorch} of PyTorch's ${row.torchGflops} GF/s\n`);
        }
        rows.push(row);
        a.dispose();
        b.dispose();
      }
    }
  }
  return rows;
}

/** Layers of a transformer as they are called: x [rows, in], weight [out, in], bias and activation fused. */
async function layers(): Promise<Row[]> {
  const rows: Row[] = [];
  for (const dtype of ['f32', 'bf16'] as const) {
    const [x, w, bias] = [random([4096, 256], dtype), random([1024, 256], dtype), random([1024], dtype)];
    for (const threads of threadCounts) {
      const flops = 2 * 4096 * 256 * 1024;
      rows.push(
        await measure(`linear ${dtype} 4096x256x1024 + gelu`, () => linear(x, w, bias, 'gelu'), { threads, flops }),
      );
    }
    for (const t of [x, w, bias]) t.dispose();
  }
  return rows;
}

async function decode(): Promise<Row[]> {
  const rows: Row[] = [];
  const size = 4096;
  for (const threads of threadCounts) {
    const bandwidth = native().readBandwidth(0.3, threads);
    for (const [dtype, bytes] of [
      ['f32', 4],
      ['bf16', 2],
    ] as const) {
      const w = random([size, size], dtype);
      for (const m of [1, 8]) {
        const x = random([m, size], dtype);
        const row = await measure(`linear ${dtype} ${m} row(s), weight 4096x4096`, () => linear(x, w), { threads });
        row.gigabytesPerSecond = round((bytes * size * size) / row.ms / 1e6);
        row.bandwidthFraction = round((row.gigabytesPerSecond as number) / bandwidth);
        process.stdout.write(`  ${row.gigabytesPerSecond} GB/s, ${row.bandwidthFraction} of the read bandwidth\n`);
        rows.push(row);
        x.dispose();
      }
      w.dispose();
    }
  }
  return rows;
}

const ort = await peer<OnnxRuntime & { default?: OnnxRuntime }>('onnxruntime-node');
save('matmul', [...(await squares(ort?.default ?? ort)), ...(await layers()), ...(await decode())]);
