// Neighborhood attention forward for f16.
#define ELEMENT f16
#include "neighborhood_forward_entries.cuh"
