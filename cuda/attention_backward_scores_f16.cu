// Gradients of bias and captured tables for f16.
#define ELEMENT f16
#include "attention_backward_scores_entries.cuh"
