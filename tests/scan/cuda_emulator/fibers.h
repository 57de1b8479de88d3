// What the shim needs of the scheduler: the running thread's identity, its barriers and its warp collectives.
#pragma once
#include <cstddef>
#include <cstdint>

struct uint3 { unsigned x, y, z; };
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace emulator {

constexpr size_t largest_shared = 227 * 1024;  // bytes a block may ask for on sm_80 to sm_90
constexpr size_t largest_static_shared = 48 * 1024;
constexpr size_t guard = 4096;
constexpr unsigned char poison = 0xFF;  // a NaN in every floating-point format, -1 as an integer

alignas(1024) extern unsigned char shared_memory[guard + largest_shared + guard];

// Ends the launch with a message; the caller never goes on.
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Waits for every thread of the block that has not returned; gives how many of them had a true `predicate`.
int barrier(bool predicate, const char *file, int line);

// Waits for every lane of `mask`; gives the 32 values that the lanes brought, poison for the lanes that did not.
const uint64_t *collective(unsigned mask, uint64_t value, const char *file, int line);

// Lets the other threads of the block run: for loops that wait for a value in memory.
void pause();

struct Launch {
    const char *name;
    unsigned grid[3], block[3], shared_bytes;
    int reversed;  // whether threads, and blocks along x, run from the last to the first
    double seconds;  // of processor time, after which the launch counts as hung
    void (*call)(void **);
    void **parameters;
};

// Runs all blocks; gives nullptr, or what went wrong.
const char *run(const Launch &launch);

}  // namespace emulator
