// Gradients of bias and captured tables for bf16.
#include "attention_backward_bias.cuh"
#include "attention_backward_tables.cuh"

#define ELEMENT bf16
#include "attention_backward_scores_entries.cuh"
