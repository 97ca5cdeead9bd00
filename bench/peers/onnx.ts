/**
 * ONNX models of a single node, encoded by hand: the protobuf wire format needs nothing but varints and length-delimited fields.
 * Field numbers are those of onnx.proto.
 */
const varint = (n: number): number[] => (n < 128 ? [n] : [(n % 128) + 128, ...varint(Math.floor(n / 128))]);
const text = (s: string): number[] => [...new TextEncoder().encode(s)];
const bytes = (field: number, body: readonly number[]): number[] => [
  ...varint(field * 8 + 2),
  ...varint(body.length),
  ...body,
];
const integer = (field: number, n: number): number[] => [...varint(field * 8), ...varint(n)];

export const FLOAT = 1;
export const INT32 = 6;

export interface NodeModel {
  readonly op: string;
  readonly domain: string;
  /** Names in the op's order; '' for an input left out. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly types: Readonly<Record<string, number>>;
  readonly attributes: Readonly<Record<string, number>>;
}

/** The bytes of a model with this one node; all shapes are left open. */
export function encodeModel({ op, domain, inputs, outputs, types, attributes }: NodeModel): Uint8Array {
  const attribute = ([name, value]: [string, number]): number[] =>
    bytes(5, [...bytes(1, text(name)), ...integer(3, value), ...integer(20, 2)]);
  const node = [
    ...inputs.flatMap((name) => bytes(1, text(name))),
    ...outputs.flatMap((name) => bytes(2, text(name))),
    ...bytes(4, text(op)),
    ...Object.entries(attributes).flatMap(attribute),
    ...bytes(7, text(domain)),
  ];
  const value = (field: number, name: string): number[] =>
    bytes(field, [...bytes(1, text(name)), ...bytes(2, bytes(1, integer(1, types[name] ?? FLOAT)))]);
  const graph = [
    ...bytes(1, node),
    ...bytes(2, text('attention')),
    ...inputs.filter((name) => name).flatMap((name) => value(11, name)),
    ...outputs.flatMap((name) => value(12, name)),
  ];
  const opset = (name: string, version: number): number[] =>
    bytes(8, [...bytes(1, text(name)), ...integer(2, version)]);
  return Uint8Array.from([...integer(1, 8), ...bytes(7, graph), ...opset('', 17), ...opset('com.microsoft', 1)]);
}
