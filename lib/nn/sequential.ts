import type { Tensor } from '../tensor/tensor.ts';
import { Module } from './module.ts';

/** A module of one tensor to one tensor. */
export type Layer = Module & { forward(x: Tensor): Tensor };

/** Modules one after the other. Keys: layers.<index>.<key of the module>. */
export class Sequential extends Module {
  readonly layers: Layer[];

  constructor(...layers: Layer[]) {
    super();
    this.layers = layers;
  }

  override forward(x: Tensor): Tensor {
    return this.layers.reduce((y, layer) => layer.forward(y), x);
  }
}
