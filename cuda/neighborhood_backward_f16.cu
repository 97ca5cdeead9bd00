// Gradients of neighborhood attention for f16.
#define ELEMENT f16
#include "neighborhood_backward_entries.cuh"
