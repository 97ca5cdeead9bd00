// Gradients of bias and captured tables for bf16.
#define ELEMENT bf16
#include "attention_backward_scores_entries.cuh"
