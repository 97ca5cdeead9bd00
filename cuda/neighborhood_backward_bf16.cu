// Gradients of neighborhood attention for bf16.
#define ELEMENT bf16
#include "neighborhood_backward_entries.cuh"
