/** Names of the function's text and what they stand for. */
import type { FunctionDeclaration } from 'acorn';
import type { ResolvedCapture } from './captures.ts';
import type { FunctionNode } from './source.ts';

export interface TableOperand {
  readonly kind: 'table';
  readonly capture: Extract<ResolvedCapture, { kind: 'table' }>;
  /** Axes indexed so far. */
  readonly indices: readonly number[];
}

export type Operand =
  | { readonly kind: 'value'; readonly id: number }
  | { readonly kind: 'coordinates' }
  | { readonly kind: 'captures' }
  | { readonly kind: 'undefined' }
  | { readonly kind: 'function'; readonly node: FunctionNode | FunctionDeclaration; readonly scope: Scope }
  | TableOperand;

export class Scope {
  private readonly names = new Map<string, Operand>();
  private readonly parent: Scope | null;

  constructor(parent: Scope | null) {
    this.parent = parent;
  }

  find(name: string): Operand | undefined {
    return this.names.get(name) ?? this.parent?.find(name);
  }

  has(name: string): boolean {
    return this.names.has(name);
  }

  define(name: string, operand: Operand): void {
    this.names.set(name, operand);
  }
}
