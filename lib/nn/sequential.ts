import { expectFunction, expectObject } from '../tensor/expect.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { Module } from './module.ts';

/** A module of one tensor to one tensor. */
export type Layer = Module & { forward(x: Tensor): Tensor };

/** Modules one after the other. Keys: layers.<index>.<key of the module>. */
export class Sequential extends Module {
  readonly layers: Layer[];

  constructor(...layers: Layer[]) {
    super();
    layers.forEach((layer, i) => {
      expectObject('Sequential', `layer ${i}`, layer);
      expectFunction('Sequential', `forward of layer ${i}`, layer.forward);
    });
    this.layers = layers;
  }

  override forward(x: Tensor): Tensor {
    return this.layers.reduce((y, layer) => layer.forward(y), x);
  }
}
