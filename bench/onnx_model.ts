/**
 * The bytes of an ONNX model with one node, so that ONNX Runtime can be a peer without its Python tools.
 *
 * ONNX files are protocol buffers: a field is a tag (number * 8 + wire type) and then a varint (type 0) or a length and bytes (type 2).
 */
function varint(n: number): number[] {
  const out: number[] = [];
  for (; n > 127; n = Math.floor(n / 128)) out.push((n % 128) + 128);
  return [...out, n];
}

const integer = (field: number, n: number): number[] => [...varint(field * 8), ...varint(n)];
const bytes = (field: number, data: readonly number[]): number[] => [
  ...varint(field * 8 + 2),
  ...varint(data.length),
  ...data,
];
const text = (field: number, s: string): number[] => bytes(field, [...new TextEncoder().encode(s)]);

/** ValueInfoProto of an f32 tensor: name, type.tensor_type { elem_type: FLOAT, shape }. */
function value(field: number, name: string, shape: readonly number[]): number[] {
  const dims = shape.flatMap((n) => bytes(1, integer(1, n)));
  return bytes(field, [...text(1, name), ...bytes(2, bytes(1, [...integer(1, 1), ...bytes(2, dims)]))]);
}

/** c [m, n] = a [m, k] @ b [k, n], all f32. */
export function matmulModel(m: number, k: number, n: number): Uint8Array {
  const node = [...text(1, 'a'), ...text(1, 'b'), ...text(2, 'c'), ...text(4, 'MatMul')];
  const graph = [
    ...bytes(1, node),
    ...text(2, 'matmul'),
    ...value(11, 'a', [m, k]),
    ...value(11, 'b', [k, n]),
    ...value(12, 'c', [m, n]),
  ];
  return Uint8Array.from([...integer(1, 8), ...bytes(7, graph), ...bytes(8, [...text(1, ''), ...integer(2, 13)])]);
}

/** An op of the com.microsoft domain with integer attributes, over tensors of any shape. */
export interface ContribNode {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Inputs that are i32; the others are f32. */
  readonly integers?: readonly string[];
  readonly attributes: Readonly<Record<string, number>>;
}

export function contribModel({ op, inputs, outputs, integers = [], attributes }: ContribNode): Uint8Array {
  const FLOAT = 1;
  const INT32 = 6;
  const INT_ATTRIBUTE = 2;
  const open = (field: number, name: string): number[] =>
    bytes(field, [...text(1, name), ...bytes(2, bytes(1, integer(1, integers.includes(name) ? INT32 : FLOAT)))]);
  const node = [
    ...inputs.flatMap((name) => text(1, name)),
    ...outputs.flatMap((name) => text(2, name)),
    ...text(4, op),
    ...Object.entries(attributes).flatMap(([name, n]) =>
      bytes(5, [...text(1, name), ...integer(3, n), ...integer(20, INT_ATTRIBUTE)]),
    ),
    ...text(7, 'com.microsoft'),
  ];
  const graph = [
    ...bytes(1, node),
    ...text(2, op),
    ...inputs.flatMap((name) => open(11, name)),
    ...outputs.flatMap((name) => open(12, name)),
  ];
  const opset = (domain: string, version: number): number[] => bytes(8, [...text(1, domain), ...integer(2, version)]);
  return Uint8Array.from([...integer(1, 8), ...bytes(7, graph), ...opset('', 17), ...opset('com.microsoft', 1)]);
}
