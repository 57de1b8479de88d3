// One pass over the chunks of a sequence: scan_chunks.cuh.
#include "scan_chunks.cuh"
