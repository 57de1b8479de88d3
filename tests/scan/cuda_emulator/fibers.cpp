// One block at a time; its threads are fibers that run one at a time and switch at barriers and warp collectives.
#include "fibers.h"

#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <link.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>

extern "C" void *__tls_get_addr(void *);

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulator {

alignas(1024) unsigned char shared_memory[guard + largest_shared + guard];

namespace {

constexpr int most_threads = 1024, lanes = 32;
constexpr size_t stack_bytes = 256 * 1024;
constexpr long most_idle_rounds = 100000;

enum class State { ready, pausing, at_barrier, at_collective, done };

struct Fiber {
    bool started;
    State state;
    uint3 index;
    const char *file;
    int line;
    unsigned mask;
    bool predicate;
    int count;
    uint64_t value, received[lanes];
    jmp_buf here;
    ucontext_t context;
};

Fiber fibers[most_threads];
char *stacks;
int threads, current;
Launch launch;
void **parameters;
jmp_buf scheduler;
sigjmp_buf abandon;
char message[1200];
volatile sig_atomic_t running;

void to_scheduler() {
    if (!_setjmp(fibers[current].here)) _longjmp(scheduler, 1);
}

void release_barrier_if_complete() {
    int count = 0, first = -1;
    for (int i = 0; i < threads; ++i) {
        const Fiber &f = fibers[i];
        if (f.state == State::done) continue;
        if (f.state != State::at_barrier) return;
        if (first >= 0 && (f.line != fibers[first].line || strcmp(f.file, fibers[first].file)))
            fail("divergent barrier: thread %d waits at %s:%d and thread %d at %s:%d", first, fibers[first].file,
                 fibers[first].line, i, f.file, f.line);
        if (first < 0) first = i;
        count += f.predicate;
    }
    for (int i = 0; i < threads; ++i)
        if (fibers[i].state == State::at_barrier) fibers[i].state = State::ready, fibers[i].count = count;
}

int warp_end(int warp) { return warp + lanes < threads ? warp + lanes : threads; }

void release_collective_if_complete(int arrived) {
    const Fiber &last = fibers[arrived];
    const int warp = arrived / lanes * lanes, end = warp_end(warp);
    for (int i = warp; i < end; ++i) {
        const Fiber &f = fibers[i];
        if (!(last.mask >> (i - warp) & 1) || f.state == State::done) continue;
        if (f.state != State::at_collective || f.mask != last.mask || f.line != last.line || strcmp(f.file, last.file))
            return;
    }
    uint64_t values[lanes];
    memset(values, poison, sizeof values);
    for (int i = warp; i < end; ++i)
        if ((last.mask >> (i - warp) & 1) && fibers[i].state == State::at_collective) values[i - warp] = fibers[i].value;
    for (int i = warp; i < end; ++i)
        if ((last.mask >> (i - warp) & 1) && fibers[i].state == State::at_collective) {
            memcpy(fibers[i].received, values, sizeof values);
            fibers[i].state = State::ready;
        }
}

// Lanes that wait at a collective whose last missing lane has returned go on without it, as they do on the device.
void after_exit(int left) {
    const int warp = left / lanes * lanes, end = warp_end(warp);
    for (int i = warp; i < end; ++i)
        if (fibers[i].state == State::at_collective) release_collective_if_complete(i);
    release_barrier_if_complete();
}

void body() {
    for (;;) {
        launch.call(parameters);
        fibers[current].state = State::done;
        after_exit(current);
        to_scheduler();
    }
}

void resume(int i) {
    current = i;
    threadIdx = fibers[i].index;
    if (_setjmp(scheduler)) return;
    if (fibers[i].started) _longjmp(fibers[i].here, 1);
    fibers[i].started = true;
    getcontext(&fibers[i].context);
    fibers[i].context.uc_stack.ss_sp = stacks + i * stack_bytes;
    fibers[i].context.uc_stack.ss_size = stack_bytes;
    fibers[i].context.uc_link = nullptr;
    makecontext(&fibers[i].context, body, 0);
    setcontext(&fibers[i].context);
}

void report_deadlock() {
    char text[700];
    int used = 0, done = 0;
    for (int i = 0; i < threads; ++i) done += fibers[i].state == State::done;
    for (int i = 0, groups = 0; i < threads && groups < 4; ++i) {
        const Fiber &f = fibers[i];
        if (f.state == State::done) continue;
        const Fiber *before = i ? &fibers[i - 1] : nullptr;
        if (before && before->state == f.state && before->line == f.line && before->mask == f.mask) continue;
        ++groups;
        if (f.state == State::at_barrier)
            used += snprintf(text + used, sizeof text - used, "; thread %d waits at the barrier %s:%d", i, f.file, f.line);
        else
            used += snprintf(text + used, sizeof text - used, "; thread %d waits at the collective %s:%d for lanes %08x",
                             i, f.file, f.line, f.mask);
        if (used > 500) break;
    }
    fail("deadlock: %d of %d threads have returned%s", done, threads, text);
}

void run_block() {
    for (int i = 0; i < threads; ++i) fibers[i].state = State::ready;
    for (long idle = 0;;) {
        bool ran = false, paused = false;
        for (int n = 0; n < threads; ++n) {
            const int i = launch.reversed ? threads - 1 - n : n;
            if (fibers[i].state != State::ready && fibers[i].state != State::pausing) continue;
            fibers[i].state = State::ready;
            resume(i);
            (fibers[i].state == State::pausing ? paused : ran) = true;
        }
        if (ran) idle = 0;
        else if (!paused) break;
        else if (++idle > most_idle_rounds) fail("livelock: threads wait for a value in memory that nobody writes");
    }
    for (int i = 0; i < threads; ++i)
        if (fibers[i].state != State::done) report_deadlock();
}

// A block's static shared variables are all the thread-local storage that this library has.
struct Storage { unsigned char *at; size_t bytes; };

int find_storage(dl_phdr_info *info, size_t, void *found) {
    bool here = false;
    const ElfW(Phdr) *tls = nullptr;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const ElfW(Phdr) &p = info->dlpi_phdr[i];
        const uintptr_t start = info->dlpi_addr + p.p_vaddr, mine = reinterpret_cast<uintptr_t>(&fibers);
        if (p.p_type == PT_LOAD && mine >= start && mine < start + p.p_memsz) here = true;
        if (p.p_type == PT_TLS) tls = &p;
    }
    if (!here) return 0;
    if (tls) {
        struct { unsigned long module, offset; } index = {info->dlpi_tls_modid, 0};
        *static_cast<Storage *>(found) = {static_cast<unsigned char *>(__tls_get_addr(&index)), tls->p_memsz};
    }
    return 1;
}

void check_guard(const unsigned char *at, const char *side) {
    for (size_t i = 0; i < guard; ++i)
        if (at[i] != poison) fail("the block wrote %s its %u bytes of dynamic shared memory", side,
                                  launch.shared_bytes);
}

void hung(int) {
    if (!running) return;
    snprintf(message, sizeof message, "%s: no end after %.0f s of processor time", launch.name, launch.seconds);
    siglongjmp(abandon, 1);
}

void run_blocks() {
    Storage fixed = {nullptr, 0};
    dl_iterate_phdr(find_storage, &fixed);
    if (fixed.bytes > largest_static_shared) fail("%zu bytes of static shared memory; a block has 49152", fixed.bytes);
    if (fixed.bytes + launch.shared_bytes > largest_shared) fail("%u bytes of dynamic shared memory: too many", launch.shared_bytes);
    unsigned char *dynamic = shared_memory + guard;
    for (unsigned z = 0; z < launch.grid[2]; ++z)
        for (unsigned y = 0; y < launch.grid[1]; ++y)
            for (unsigned x = 0; x < launch.grid[0]; ++x) {
                blockIdx = {launch.reversed ? launch.grid[0] - 1 - x : x, y, z};
                if (fixed.bytes) memset(fixed.at, poison, fixed.bytes);
                memset(shared_memory, poison, guard + launch.shared_bytes + guard);
                run_block();
                check_guard(shared_memory, "before");
                check_guard(dynamic + launch.shared_bytes, "beyond");
            }
}

}  // namespace

void fail(const char *format, ...) {
    int used = snprintf(message, sizeof message, "%s, block (%u, %u, %u): ", launch.name, blockIdx.x, blockIdx.y, blockIdx.z);
    va_list rest;
    va_start(rest, format);
    vsnprintf(message + used, sizeof message - used, format, rest);
    va_end(rest);
    siglongjmp(abandon, 1);
}

int barrier(bool predicate, const char *file, int line) {
    Fiber &f = fibers[current];
    f.state = State::at_barrier, f.predicate = predicate, f.file = file, f.line = line;
    release_barrier_if_complete();
    if (f.state != State::ready) to_scheduler();
    return fibers[current].count;
}

const uint64_t *collective(unsigned mask, uint64_t value, const char *file, int line) {
    Fiber &f = fibers[current];
    if (!(mask >> (current % lanes) & 1)) fail("thread %d is not in its own mask %08x at %s:%d", current, mask, file, line);
    f.state = State::at_collective, f.value = value, f.mask = mask, f.file = file, f.line = line;
    release_collective_if_complete(current);
    if (f.state != State::ready) to_scheduler();
    return fibers[current].received;
}

void pause() {
    fibers[current].state = State::pausing;
    to_scheduler();
}

const char *run(const Launch &asked) {
    launch = asked;
    parameters = asked.parameters;
    const uint64_t wanted = uint64_t(asked.block[0]) * asked.block[1] * asked.block[2];
    if (wanted == 0 || wanted > most_threads) return "a block has 1 to 1024 threads";
    if (!asked.grid[0] || !asked.grid[1] || !asked.grid[2]) return "a grid of no blocks is an invalid launch";
    if (asked.grid[1] > 65535 || asked.grid[2] > 65535) return "a grid has at most 65535 blocks along y and z";
    if (!stacks) {
        void *mapped = mmap(nullptr, most_threads * stack_bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mapped == MAP_FAILED) return "no memory for the threads' stacks";
        stacks = static_cast<char *>(mapped);
    }
    threads = int(wanted);
    blockDim = {asked.block[0], asked.block[1], asked.block[2]};
    gridDim = {asked.grid[0], asked.grid[1], asked.grid[2]};
    for (unsigned i = 0; i < wanted; ++i)
        fibers[i].index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
    struct sigaction before, action = {};
    action.sa_handler = hung;
    sigaction(SIGVTALRM, &action, &before);
    itimerval timer = {};
    timer.it_value.tv_sec = long(asked.seconds);
    const bool failed = sigsetjmp(abandon, 1);
    if (!failed) {
        running = 1;
        setitimer(ITIMER_VIRTUAL, &timer, nullptr);
        run_blocks();
    } else {
        for (Fiber &f : fibers) f.started = false;  // they are in the middle of the kernel
    }
    running = 0;
    timer = {};
    setitimer(ITIMER_VIRTUAL, &timer, nullptr);
    sigaction(SIGVTALRM, &before, nullptr);
    return failed ? message : nullptr;
}

}  // namespace emulator

// The compiler's checks of alignment and of array bounds report here.
struct Place { const char *file; uint32_t line, column; };
struct Type { uint16_t kind, info; char name[1]; };

extern "C" {
void __ubsan_handle_type_mismatch_v1(void *data, void *address) {
    struct Mismatch { Place place; const Type *type; unsigned char log_alignment, kind; };
    const auto *m = static_cast<const Mismatch *>(data);
    emulator::fail("%s:%u: an access to %s at %p needs an alignment of %d bytes", m->place.file, m->place.line,
                   m->type->name, address, 1 << m->log_alignment);
}
void __ubsan_handle_out_of_bounds(void *data, void *index) {
    struct Bounds { Place place; const Type *array, *index; };
    const auto *b = static_cast<const Bounds *>(data);
    emulator::fail("%s:%u: index %ld is outside %s", b->place.file, b->place.line, reinterpret_cast<long>(index),
                   b->array->name);
}
}
