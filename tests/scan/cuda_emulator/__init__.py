"""Runs the CUDA C++ kernels on the CPU, one fiber a thread, so that their arithmetic is tested without a GPU."""

from cuda_emulator.device import emulated_device
from cuda_emulator.emulator import EmulatedModule, EmulationError, emulate, find_compiler

__all__ = ["EmulatedModule", "EmulationError", "emulate", "emulated_device", "find_compiler"]
