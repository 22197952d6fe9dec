// What the three fake libraries share: the few driver types that they need, and a log of the calls.
//
// Fake driver: it proves call order, arguments, timestamps, lifetimes, error paths and threads of the real
// PyNvVideoCodec wheel and of our code around it. It proves nothing about pictures, speed or a real parser.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500 };

typedef int Result;
typedef uint64_t DevicePointer;

// In libcuda.so.1. Switched off by `fake_logging = 0`; the text is read and emptied by `fake_log_take`.
void fake_log(const char *format, ...);
Result cuMemAlloc_v2(DevicePointer *pointer, size_t size);
Result cuMemFree_v2(DevicePointer pointer);
