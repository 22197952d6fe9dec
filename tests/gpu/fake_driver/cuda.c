// A fake libcuda.so.1: device memory is host memory, streams and events are numbers, work is done at once.
#include "fake.h"
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

EXPORT int fake_logging = 1;
EXPORT long fake_live_bytes = 0;     // device memory that is allocated
EXPORT long fake_live_handles = 0;   // streams and events that exist
EXPORT long fake_memory_limit = 0;   // 0: none
EXPORT int fake_devices = 1;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char text[1 << 22];
static size_t used = 0;

EXPORT void fake_log(const char *format, ...) {
    if (!fake_logging) return;
    pthread_mutex_lock(&lock);
    va_list arguments;
    va_start(arguments, format);
    if (used < sizeof text - 400) {
        used += (size_t)vsnprintf(text + used, 390, format, arguments);
        text[used++] = '\n';
    }
    va_end(arguments);
    pthread_mutex_unlock(&lock);
}

EXPORT size_t fake_log_take(char *to, size_t room) {
    pthread_mutex_lock(&lock);
    size_t size = used < room ? used : room;
    memcpy(to, text, size);
    used = 0;
    pthread_mutex_unlock(&lock);
    return size;
}

// ---- contexts: the primary one is 0x1000 -------------------------------------------------------------------

static __thread void *stack[64];
static __thread int depth = 0;
static void *const primary = (void *)0x1000;

EXPORT Result cuInit(unsigned flags) { return SUCCESS; }
// Device n has the UUID 0f, n, 0 … 0; CUDA_VISIBLE_DEVICES may name one of them by it.
static int visible(void) {
    const char *named = getenv("CUDA_VISIBLE_DEVICES");
    unsigned number = 0;
    return named && sscanf(named, "GPU-0f%2x", &number) == 1 ? (int)number : -1;
}
EXPORT Result cuDeviceGetCount(int *count) { *count = visible() < 0 ? fake_devices : 1; return SUCCESS; }
EXPORT Result cuDeviceGet(int *device, int ordinal) { *device = ordinal; return SUCCESS; }
EXPORT Result cuDeviceGetUuid(unsigned char *uuid, int device) {
    memset(uuid, 0, 16);
    uuid[0] = 0x0f;
    uuid[1] = (unsigned char)(visible() < 0 ? device : visible());
    return SUCCESS;
}
// FAKE_CUDA_VERSION is what the driver says that it is for.
EXPORT Result cuDriverGetVersion(int *version) {
    const char *named = getenv("FAKE_CUDA_VERSION");
    if (!named || sscanf(named, "%d", version) != 1) *version = 12080;
    return SUCCESS;
}
EXPORT Result cuDevicePrimaryCtxRetain(void **context, int device) { *context = primary; return SUCCESS; }
EXPORT Result cuDevicePrimaryCtxRelease_v2(int device) { return SUCCESS; }
EXPORT Result cuCtxCreate_v2(void **context, unsigned flags, int device) {
    fake_log("create context");
    *context = (void *)0x2000;
    return SUCCESS;
}
EXPORT Result cuCtxDestroy_v2(void *context) { return SUCCESS; }
EXPORT Result cuCtxPushCurrent_v2(void *context) { stack[depth++] = context; return SUCCESS; }
EXPORT Result cuCtxPopCurrent_v2(void **context) {
    if (depth > 0) depth--;
    if (context) *context = stack[depth];
    return SUCCESS;
}
EXPORT Result cuCtxGetCurrent(void **context) { *context = depth ? stack[depth - 1] : NULL; return SUCCESS; }
EXPORT Result cuCtxGetDevice(int *device) { *device = 0; return SUCCESS; }
EXPORT Result cuCtxGetApiVersion(void *context, unsigned *version) { *version = 3020; return SUCCESS; }

// ---- streams and events ------------------------------------------------------------------------------------

static uintptr_t next_handle = 0x5000;

static Result new_handle(void **handle) {
    pthread_mutex_lock(&lock);
    *handle = (void *)(next_handle += 0x10);
    fake_live_handles++;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

static Result end_handle(void) {
    pthread_mutex_lock(&lock);
    fake_live_handles--;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

EXPORT Result cuStreamCreate(void **stream, unsigned flags) { return new_handle(stream); }
EXPORT Result cuStreamDestroy_v2(void *stream) { return end_handle(); }
EXPORT Result cuStreamSynchronize(void *stream) { fake_log("synchronize stream=%p", stream); return SUCCESS; }
EXPORT Result cuStreamGetCtx(void *stream, void **context) { *context = primary; return SUCCESS; }
EXPORT Result cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    fake_log("wait stream=%p event=%p", stream, event);
    return SUCCESS;
}
EXPORT Result cuEventCreate(void **event, unsigned flags) { return new_handle(event); }
EXPORT Result cuEventDestroy_v2(void *event) { return end_handle(); }
EXPORT Result cuEventRecord(void *event, void *stream) {
    fake_log("record stream=%p", stream);
    return SUCCESS;
}
EXPORT Result cuEventSynchronize(void *event) { fake_log("synchronize event"); return SUCCESS; }

// ---- memory: the size stands before each block; what is freed is overwritten first -------------------------

enum { HEADER = 64 };

static Result allocate(DevicePointer *pointer, size_t size) {
    pthread_mutex_lock(&lock);
    int full = fake_memory_limit && fake_live_bytes + (long)size > fake_memory_limit;
    if (!full) fake_live_bytes += (long)size;
    pthread_mutex_unlock(&lock);
    if (full) return OUT_OF_MEMORY;
    fake_log("allocate bytes=%zu", size);
    char *block = calloc(1, size + HEADER);
    *(size_t *)block = size;
    *pointer = (DevicePointer)(uintptr_t)(block + HEADER);
    return SUCCESS;
}

static Result release(DevicePointer pointer) {
    char *block = (char *)(uintptr_t)pointer - HEADER;
    size_t size = *(size_t *)block;
    memset(block + HEADER, 0xDD, size);
    free(block);
    pthread_mutex_lock(&lock);
    fake_live_bytes -= (long)size;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

EXPORT Result cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    *total = fake_memory_limit ? (size_t)fake_memory_limit : (size_t)1 << 34;
    *free_bytes = *total - (size_t)fake_live_bytes;
    return SUCCESS;
}
EXPORT Result cuMemAlloc_v2(DevicePointer *pointer, size_t size) { return allocate(pointer, size); }
EXPORT Result cuMemAllocAsync(DevicePointer *pointer, size_t size, void *stream) {
    fake_log("allocate async");
    return allocate(pointer, size);
}
EXPORT Result cuMemAllocPitch_v2(DevicePointer *pointer, size_t *pitch, size_t width, size_t height, unsigned element) {
    *pitch = (width + 511) / 512 * 512;
    return allocate(pointer, *pitch * height);
}
EXPORT Result cuMemFree_v2(DevicePointer pointer) { return release(pointer); }
EXPORT Result cuMemFreeAsync(DevicePointer pointer, void *stream) { return release(pointer); }
EXPORT Result cuPointerGetAttribute(void *value, int attribute, DevicePointer pointer) {
    *(int *)value = 0;
    return SUCCESS;
}

struct Copy2D {
    size_t source_x, source_y;
    int source_type;
    const void *source_host;
    DevicePointer source_device;
    void *source_array;
    size_t source_pitch;
    size_t target_x, target_y;
    int target_type;
    void *target_host;
    DevicePointer target_device;
    void *target_array;
    size_t target_pitch;
    size_t bytes, rows;
};

enum { HOST = 1 };

EXPORT Result cuMemcpy2DAsync_v2(const struct Copy2D *copy, void *stream) {
    int to_host = copy->target_type == HOST, from_host = copy->source_type == HOST;
    fake_log("copy %s stream=%p bytes=%zu rows=%zu", to_host ? "to host" : from_host ? "from host" : "on device",
             stream, copy->bytes, copy->rows);
    const char *from = from_host ? copy->source_host : (const char *)(uintptr_t)copy->source_device;
    char *to = to_host ? copy->target_host : (char *)(uintptr_t)copy->target_device;
    for (size_t row = 0; row < copy->rows; row++)
        memcpy(to + (row + copy->target_y) * copy->target_pitch + copy->target_x,
               from + (row + copy->source_y) * copy->source_pitch + copy->source_x, copy->bytes);
    return SUCCESS;
}
EXPORT Result cuMemcpy2D_v2(const struct Copy2D *copy) { return cuMemcpy2DAsync_v2(copy, NULL); }
EXPORT Result cuMemcpyDtoH_v2(void *to, DevicePointer from, size_t size) {
    fake_log("copy to host");
    memcpy(to, (void *)(uintptr_t)from, size);
    return SUCCESS;
}
EXPORT Result cuMemcpyDtoHAsync_v2(void *to, DevicePointer from, size_t size, void *stream) {
    return cuMemcpyDtoH_v2(to, from, size);
}
EXPORT Result cuMemcpyHtoD_v2(DevicePointer to, const void *from, size_t size) {
    memcpy((void *)(uintptr_t)to, from, size);
    return SUCCESS;
}

// ---- the rest ----------------------------------------------------------------------------------------------

static const char *name_of(Result error) { return error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_FAKE"; }
EXPORT Result cuGetErrorName(Result error, const char **text) { *text = name_of(error); return SUCCESS; }
EXPORT Result cuGetErrorString(Result error, const char **text) { *text = name_of(error); return SUCCESS; }
EXPORT Result cuGetProcAddress_v2(const char *name, void **entry, int version, uint64_t flags, void *status) {
    return NOT_FOUND;
}
